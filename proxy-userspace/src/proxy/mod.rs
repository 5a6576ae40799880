//! Carries connections: accepted sockets in, bytes to the endpoint that the snapshot names, one record each.
//!
//! Start with `tcp.rs`: one connection from its first to its last step. The room knows neither YAML, Kubernetes
//! nor eBPF; opening listeners, publishing snapshots and serving metrics are other rooms' work.

mod acceptor;
pub mod access_log;
mod buffer;
mod cause;
mod clock;
mod direction;
mod farewell;
mod forward;
mod named;
mod names;
mod pipe;
mod record;
mod sniff;
mod splice;
mod tcp;
mod upstream;
mod workers;

use std::{
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use arc_swap::ArcSwap;
use proxy_traffic::{Cluster, Snapshot, Workload};
use tokio::net::TcpStream;

pub use acceptor::Acceptor;
pub use access_log::{AccessLog, Entry};
pub use cause::Cause;
pub use clock::now;
pub use upstream::{Dial, Family, PlainDial};
pub use workers::{AcceptorHandle, Drained, Workers};

use crate::metrics::Metrics;

/// Something that takes a while.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Finds the addresses of names that clients say.
pub trait Resolve: Send + Sync {
    /// All that `name` has now; none when it cannot be found out.
    fn resolve(&self, name: &str) -> Pending<'_, Vec<IpAddr>>;
}

/// Answers questions for names that come over TCP.
pub trait ServeDns: Send + Sync {
    /// Serves `stream` until its client has no more questions. `workload` meant them for `resolver`; whoever has to be asked is
    /// asked from sockets of `dial`.
    fn serve(
        &self,
        stream: TcpStream,
        workload: &Arc<Workload>,
        resolver: SocketAddr,
        dial: Arc<dyn Dial>,
    ) -> Pending<'_, ()>;
}

/// What every connection may ask for.
pub struct Context {
    /// The rules in force; a connection reads them when it is accepted, and again when it has said what they ask for.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where connections and bytes are counted.
    pub metrics: Arc<Metrics>,
    /// Where each connection's line goes.
    pub access_log: AccessLog,
    /// The cluster of destinations that no listener claims.
    pub passthrough: Arc<Cluster>,
    /// The cluster of those among them that may not be reached.
    pub blackhole: Arc<Cluster>,
    /// The status that HTTP requests to them are answered with.
    pub http_status: u16,
    /// Finds what names are that clients say.
    pub resolver: Arc<dyn Resolve>,
    /// Serves TCP connections to name servers that no listener claims; `None`: they are connections as any.
    pub dns: Option<Arc<dyn ServeDns>>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}
