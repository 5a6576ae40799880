//! Carries connections: accepted sockets in, bytes to the endpoint that the snapshot names, one record each.
//!
//! Start with `tcp.rs`: one connection from its first to its last step. The room knows neither YAML, Kubernetes
//! nor eBPF; opening listeners, publishing snapshots and serving metrics are other rooms' work.

mod acceptor;
pub mod access_log;
mod buffer;
mod clock;
mod direction;
mod forward;
mod pipe;
mod record;
mod splice;
mod tcp;
mod upstream;
mod workers;

use std::sync::Arc;

use arc_swap::ArcSwap;
use proxy_traffic::{Cluster, Snapshot};

pub use acceptor::Acceptor;
pub use access_log::{AccessLog, Entry};
pub use clock::now;
pub use record::Cause;
pub use upstream::{Dial, Family, PlainDial};
pub use workers::{AcceptorHandle, Drained, Workers};

use crate::metrics::Metrics;

/// What every connection may ask for.
#[derive(Debug)]
pub struct Context {
    /// The rules in force; a connection reads them once, when it is accepted.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where connections and bytes are counted.
    pub metrics: Arc<Metrics>,
    /// Where each connection's line goes.
    pub access_log: AccessLog,
    /// The cluster of destinations that no listener claims.
    pub passthrough: Arc<Cluster>,
}
