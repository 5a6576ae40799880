//! What survives a reload: the part of a cluster that connections change.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The running side of a cluster. A cluster that is compiled again under the same name takes it over, so an
/// edit of a weight neither restarts the round robin nor forgets who is connected.
#[derive(Debug, Default)]
pub struct ClusterState {
    cursor: AtomicUsize,
    active: AtomicU64,
}

impl ClusterState {
    /// The next place of the round robin; wraps around.
    pub fn advance(&self) -> usize {
        self.cursor.fetch_add(1, Ordering::Relaxed)
    }

    /// Connections open to this cluster, from here.
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    /// One more connection.
    pub fn opened(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// One connection fewer.
    pub fn closed(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }
}
