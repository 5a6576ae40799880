//! Istio resources in, routing decisions out.
//!
//! Pure: no sockets, no files, no clock, no randomness of its own, no async. Bytes of YAML, the time and random
//! draws are arguments. The two types that matter are [`Snapshot`], the whole of the routing rules at one
//! moment, and [`Flow`], the facts of one connection; [`route::select`] and [`balance::pick`] take one of each.
//!
//! Istio's words live in [`istio`], Envoy's everywhere else; `istio::compile` is the dictionary.

pub mod balance;
mod cluster;
pub mod datapath;
mod egress;
mod error;
mod flow;
pub mod istio;
mod limits;
mod listing;
mod map;
pub mod outlier;
pub mod route;
mod snapshot;
mod state;
pub mod table;

pub use cluster::{
    Balancing, Cluster, ClusterKind, ClusterName, Endpoint, Keepalive, Limit, LimitScope, OutlierDetection,
    Service, WorkloadName,
};
pub use egress::{Egress, EgressPolicy, EgressScope, EgressVerdict};
pub use error::{Error, Flag};
pub use flow::{Door, Flow, Sniffed, Workload};
pub use limits::Permit;
pub use map::{Change, Iter, Map};
pub use snapshot::{
    Destination, Host, Listener, Lookup, Match, Route, Rule, Snapshot, Sniff, SteerReason, SubnetListener,
};
pub use state::ClusterState;
