//! Names: what workloads ask is answered where the mesh knows it and passed on where it does not; what the mesh itself has to
//! know is looked up.
//!
//! Start with `answer.rs`: one question and the snapshot give an answer, or the word to forward it. `server.rs` serves a
//! namespace's datagrams and `stream.rs` a connection, both with `forward.rs`; `resolver` asks on our own behalf. Sockets come from others,
//! and who may see which host was decided when the snapshot was compiled.

mod answer;
mod forward;
mod hosts;
mod message;
mod places;
mod resolver;
mod server;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, atomic::AtomicU64},
};

use arc_swap::ArcSwap;
use proxy_traffic::{Snapshot, Workload};

use self::places::Places;
pub use answer::{Verdict, answer};
pub use resolver::{Error, Keeper, Resolver};
pub use server::serve_datagrams;
pub use stream::serve_stream;

/// How many questions of a workload may wait for its resolvers at once, and for one of them.
const IN_FLIGHT: usize = 1024;
const FOR_EACH: usize = IN_FLIGHT / 4;

/// Opens sockets in a workload's network namespace, none of whose connections are captured.
pub trait Sockets: Send + Sync {
    /// A fresh UDP socket, non-blocking and close-on-exec, of IPv4 or IPv6.
    ///
    /// # Errors
    /// What the kernel says.
    fn datagram(&self, v4: bool) -> io::Result<OwnedFd>;

    /// A fresh TCP socket, non-blocking and close-on-exec, of IPv4 or IPv6.
    ///
    /// # Errors
    /// What the kernel says.
    fn stream(&self, v4: bool) -> io::Result<OwnedFd>;

    /// Sends `reply` to `client` as if `resolver` had, whom it asked.
    ///
    /// # Errors
    /// What the kernel says.
    fn answer(&self, resolver: SocketAddr, client: SocketAddr, reply: &[u8]) -> io::Result<()>;
}

/// What became of questions.
#[derive(Debug, Default)]
pub struct Counters {
    /// The mesh answered.
    pub answered: AtomicU64,
    /// The resolver that was asked answered.
    pub forwarded: AtomicU64,
    /// The resolver did not answer in time, or could not be reached.
    pub failed: AtomicU64,
    /// Too many were waiting, or it was no question at all.
    pub dropped: AtomicU64,
}

/// One workload's view of the mesh's names. Clones are the same view, with one limit on what waits.
#[derive(Clone, Debug)]
pub struct Zone {
    snapshot: Arc<ArcSwap<Snapshot>>,
    workload: Arc<Workload>,
    domain: Arc<str>,
    /// Places for questions that wait for a resolver.
    places: Arc<Places>,
}

impl Zone {
    /// The view of `workload` in a cluster whose names end in `domain` (`cluster.local`).
    #[must_use]
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, workload: Arc<Workload>, domain: Arc<str>) -> Self {
        Self { snapshot, workload, domain, places: Arc::new(Places::new(IN_FLIGHT, FOR_EACH)) }
    }

    fn answer(&self, query: &[u8], over_tcp: bool) -> Verdict {
        answer(&self.snapshot.load(), &self.workload, query, over_tcp, &self.domain)
    }
}
