//! What survives a reload: the part of a cluster that connections change.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use proxy_common::ejection;

use crate::{
    Cluster, Limit, Permit, Workload,
    limits::Permits,
    outlier::{Detector, Health, Outcome},
};

/// The running side of a cluster. A cluster that is compiled again under the same name takes it over, so an
/// edit of a weight neither restarts the round robin nor forgets who is connected or ejected.
#[derive(Debug, Default)]
pub struct ClusterState {
    cursor: AtomicU32,
    active: AtomicU64,
    /// Connections of the daemon to each endpoint; only where balancing asks.
    loads: Mutex<HashMap<SocketAddr, Arc<AtomicU64>>>,
    permits: Permits,
    detection: Mutex<Detection>,
    /// The detector remembers somebody.
    tracking: AtomicBool,
    /// Somebody is ejected, or all health is off.
    unhealthy: AtomicBool,
}

/// The detector, and what it last found.
#[derive(Debug, Default)]
struct Detection {
    detector: Detector,
    health: Arc<Health>,
}

impl ClusterState {
    /// The next place of the round robin; wraps around.
    pub fn advance(&self) -> u32 {
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

    /// A place within `limit` for one more connection of `workload` to `endpoint` (`None`: the original destination,
    /// or not known yet); `None`: the limit is reached. Exact: never one too many, and none is lost.
    pub fn permit(
        &self,
        workload: &Arc<Workload>,
        endpoint: Option<SocketAddr>,
        limit: &Limit,
    ) -> Option<Permit> {
        self.permits.permit(workload, endpoint, limit)
    }

    /// Takes note of one attempt to connect to `endpoint` of `cluster`; whether [`Self::health`] changed. `now` is
    /// any clock that only goes forward, the same one for everybody who reports or sweeps.
    pub fn report(&self, cluster: &Cluster, endpoint: SocketAddr, outcome: Outcome, now: Duration) -> bool {
        let Some(rules) = &cluster.outlier else { return false };
        if outcome == Outcome::Connected && !self.tracking.load(Ordering::Relaxed) {
            return false;
        }
        let members = cluster.endpoints();
        if outcome != Outcome::Connected && members.iter().all(|one| one.address != endpoint) {
            return false;
        }
        let mut detection = self.detection();
        let ejected = detection.detector.report(rules, members.len(), endpoint, outcome, now);
        self.tracking.store(!detection.detector.is_idle(), Ordering::Relaxed);
        ejected && self.publish(&mut detection, cluster)
    }

    /// To be called often, with the cluster in force: lets those back whose time is over and forgets who is gone.
    /// Whether [`Self::health`] changed.
    pub fn sweep(&self, cluster: &Cluster, now: Duration) -> bool {
        let mut detection = self.detection();
        if let Some(rules) = &cluster.outlier {
            // Most of the time nobody is remembered, and only the interval moves on.
            let known = if detection.detector.is_idle() { &[] } else { cluster.endpoints() };
            let members: BTreeSet<_> = known.iter().map(|one| one.address).collect();
            detection.detector.sweep(rules, |endpoint| members.contains(endpoint), now);
        } else {
            detection.detector.clear();
        }
        self.tracking.store(!detection.detector.is_idle(), Ordering::Relaxed);
        // Also when nobody came back: panic depends on how many there are.
        self.publish(&mut detection, cluster)
    }

    /// Who is left out now.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.detection().health)
    }

    /// The same, `None` where nobody is: what a connection asks.
    pub(crate) fn unhealthy(&self) -> Option<Arc<Health>> {
        self.unhealthy.load(Ordering::Relaxed).then(|| self.health())
    }

    /// The counters of connections to `endpoints`, in their order; those of others that nobody uses are forgotten.
    pub(crate) fn loads(&self, endpoints: impl Iterator<Item = SocketAddr>) -> Vec<Arc<AtomicU64>> {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let found = endpoints.map(|endpoint| Arc::clone(loads.entry(endpoint).or_default())).collect();
        loads.retain(|_, load| Arc::strong_count(load) > 1);
        found
    }

    /// Makes what the detector knows the health; whether it is another than before.
    fn publish(&self, detection: &mut Detection, cluster: &Cluster) -> bool {
        let ejected: BTreeSet<_> = detection.detector.ejected().collect();
        let total = cluster.endpoints().len() as u64;
        let minimum = cluster.outlier.as_ref().map_or(0, |rules| rules.min_health_percent);
        let panic = ejection::panics(ejected.len() as u64, total, minimum);
        let before = &detection.health;
        if before.ejected == ejected && before.panic == panic {
            return false;
        }
        self.unhealthy.store(panic || !ejected.is_empty(), Ordering::Relaxed);
        detection.health = Arc::new(Health { version: before.version + 1, ejected, panic });
        true
    }

    fn detection(&self) -> MutexGuard<'_, Detection> {
        self.detection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
