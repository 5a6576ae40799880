//! What the kernel routed by itself: its accounts become metrics, its records become lines of the access log and
//! reports to outlier detection.
//!
//! The numbers are the kernel's: here they are read, given names, and compared with the sockets that exist.

mod audit;
mod denied;
mod gauges;
mod history;
mod ledger;
mod lines;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use proxy_common::direct::{Account, AccountKey, Event, EventKind, Tracked};
use proxy_traffic::{Snapshot, Workload, outlier::Outcome};

use self::{
    audit::Audit,
    denied::Denials,
    gauges::{Gauges, Place},
    history::History,
    ledger::{Ledger, Live, Named},
    lines::{Clock, Parties},
};
use crate::{
    kernel::Kernel,
    metrics::Metrics,
    node::{Namespace, SocketList, TrackedSocket},
    proxy::{self, AccessLog},
};

/// The cookie of accounts that are nobody's in particular.
const EVERYBODY: u64 = 0;

/// The direct path's books.
pub(super) struct Direct {
    ledger: Ledger,
    gauges: Gauges,
    audit: Audit,
    history: History,
    /// The open sockets of each namespace, by its cookie; not there when the kernel lists none.
    lists: HashMap<u64, SocketList>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    access_log: AccessLog,
    denied: Denials,
    lease: Lease,
}

/// How long the kernel goes on by itself.
pub(super) struct Lease {
    length: Option<Duration>,
    renewed: Instant,
}

impl Lease {
    /// Just renewed; a `length` of 0 never ends.
    pub(super) fn new(length: Duration) -> Self {
        Self { length: (!length.is_zero()).then_some(length), renewed: Instant::now() }
    }

    /// What is left of it; `None` when it never ends.
    pub(super) fn left(&self) -> Option<Duration> {
        self.length.map(|length| length.saturating_sub(self.renewed.elapsed()))
    }
}

impl Direct {
    /// Empty books, whose metrics are `metrics` from here on.
    pub(super) fn new(
        metrics: &Arc<Metrics>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        access_log: AccessLog,
        lease: Duration,
    ) -> Self {
        let gauges = Gauges::default();
        metrics.register(Box::new(gauges.clone()));
        let mut ledger = Ledger::new(Arc::clone(metrics));
        // Where a limit counts all workloads together, so are those that it turns away.
        ledger.open(EVERYBODY, &lines::NOBODY);
        Self {
            ledger,
            gauges,
            audit: Audit::default(),
            history: History::default(),
            lists: HashMap::new(),
            snapshot,
            access_log,
            denied: Denials(Arc::clone(metrics)),
            lease: Lease::new(lease),
        }
    }

    /// Connections of `namespace` are those of `workload` from here on.
    pub(super) fn open(&mut self, namespace: &Namespace, workload: &Arc<Workload>) {
        self.ledger.open(namespace.cookie(), workload);
        match SocketList::open(namespace) {
            Ok(list) => drop(self.lists.insert(namespace.cookie(), list)),
            Err(error) => {
                tracing::warn!("workload {}: bytes of open connections are not seen: {error}", workload.name)
            }
        }
    }

    /// Leaves a workload that has left the node alone.
    pub(super) fn forget(&mut self, cookie: u64, workload: &Workload) {
        self.lists.remove(&cookie);
        self.ledger.forget(workload);
    }

    /// The sockets of the namespace `cookie`, if the kernel lists any.
    pub(super) fn sockets(&self, cookie: u64) -> Option<&SocketList> {
        self.lists.get(&cookie)
    }

    /// Whether connections are open that the kernel routed for the namespace `cookie`.
    pub(super) fn has_open(&self, kernel: &Kernel, cookie: u64) -> bool {
        let mut open = false;
        self.list(kernel, cookie, |socket| open |= is_open(&socket.tracked, cookie));
        open
    }

    /// How long the kernel would go on by itself; `None`: for ever.
    pub(super) fn lease_left(&self) -> Option<Duration> {
        self.lease.left()
    }

    /// The lease was renewed.
    pub(super) fn renewed(&mut self) {
        self.lease.renewed = Instant::now();
    }

    /// Writes what the kernel tells of single connections, and reports failures; whether health has changed.
    pub(super) fn read_events(&mut self, kernel: &mut Kernel) -> bool {
        let mut events = Vec::new();
        kernel.events(|event| events.push(*event));
        let (snapshot, clock) = (self.snapshot.load(), Clock::now());
        let mut changed = false;
        for event in &events {
            if event.kind == EventKind::Denied as u32 {
                let workload = self.ledger.workload(event.netns_cookie).unwrap_or(&lines::NOBODY);
                self.denied.told(event, workload);
            }
            let parties = Parties {
                workload: self.ledger.workload(event.netns_cookie),
                cluster: kernel.cluster(event.cluster),
                endpoint: kernel.endpoint(event.endpoint).map(|endpoint| endpoint.address),
            };
            if event.logged != 0 {
                self.access_log.write(|| lines::entry(event, &parties, &snapshot, &clock));
            }
            changed |= report(event, &parties);
        }
        changed
    }

    /// Brings every metric of the direct path up to date.
    pub(super) fn scrape(&mut self, kernel: &Kernel) {
        let Some(accounts) = self.read(kernel) else { return };
        let live = self.live(kernel, &accounts);
        self.ledger.update(&accounts, &live, |key| named(kernel, key));
        let (lease, ejected) = (self.lease.left(), ejected(&self.snapshot.load()));
        self.gauges.update(|reading| {
            reading.open = open(&accounts).values().sum();
            (reading.lease, reading.ejected) = (lease, ejected);
            let tables = kernel.fill().into_iter();
            reading.tables = tables.map(|one| (one.table, one.used.into(), one.size.into())).collect();
            reading.round_trips.update(&accounts, |number| place(kernel, number));
        });
    }

    /// Compares the limits' counts with the sockets that exist, and says where they differ for long.
    pub(super) fn audit(&mut self, kernel: &Kernel) {
        let Some(accounts) = self.read(kernel) else { return };
        let mut count = audit::Count::default();
        for cookie in self.lists.keys() {
            if self.list(kernel, *cookie, |socket| count.add(&socket.tracked)) {
                count.listed(*cookie);
            }
        }
        for drift in self.audit.compare(&accounts, &count) {
            let cluster = kernel.cluster(drift.key.cluster).map(|cluster| cluster.name.to_string());
            let cluster = cluster.unwrap_or_else(|| drift.key.cluster.to_string());
            let (active, sockets, endpoint) = (drift.active, drift.sockets, drift.key.endpoint);
            tracing::warn!(
                cluster,
                endpoint,
                active,
                sockets,
                "an account differs from the sockets that exist"
            );
        }
    }

    /// Every account. The kernel forgets one of what is gone once it was read after its last connection, so whoever
    /// reads keeps what is missing.
    fn read(&mut self, kernel: &Kernel) -> Option<Vec<(AccountKey, Account)>> {
        let accounts = kernel.accounts().inspect_err(|error| tracing::warn!("{error}")).ok()?;
        let gone = self.history.gone(&accounts);
        self.ledger.fold(&gone, |key| named(kernel, key));
        self.gauges.update(|reading| reading.round_trips.fold(&gone, |number| place(kernel, number)));
        Some(accounts)
    }

    /// Bytes of connections that are open.
    fn live(&self, kernel: &Kernel, accounts: &[(AccountKey, Account)]) -> Live {
        let mut live = Live::new();
        let some = open(accounts).into_iter().filter(|(_, open)| *open > 0);
        for (cookie, _) in some {
            self.list(kernel, cookie, |socket| {
                let tracked = &socket.tracked;
                if is_open(tracked, cookie) {
                    let key = AccountKey {
                        netns_cookie: cookie,
                        cluster: tracked.cluster,
                        endpoint: tracked.endpoint,
                    };
                    let (received, sent) = live.entry(key).or_default();
                    // Istio's words are the server's: what the client sent was received.
                    (*received, *sent) = (*received + socket.sent, *sent + socket.received);
                }
            });
        }
        live
    }

    /// Every tracked socket of a namespace; whether the kernel listed them.
    fn list(&self, kernel: &Kernel, cookie: u64, each: impl FnMut(TrackedSocket)) -> bool {
        let Some(list) = self.lists.get(&cookie) else { return false };
        let Ok(map) = kernel.tracked_map_fd() else { return false };
        let listed = list.tracked(map, each);
        listed.inspect_err(|error| tracing::debug!("open sockets are not listed: {error}")).is_ok()
    }
}

/// Whether a socket of the namespace `cookie` is a connection that the kernel routed: one that was used again for another
/// still remembers the first, but not as established.
fn is_open(tracked: &Tracked, cookie: u64) -> bool {
    tracked.flags & Tracked::ESTABLISHED != 0 && tracked.netns_cookie == cookie
}

/// Tells the cluster of a failure to connect; whether its health has changed. Where the kernel lengthened no run, it did
/// not blame the endpoint: somebody gave up, or no SYN ever left.
fn report(event: &Event, parties: &Parties<'_>) -> bool {
    let blamed = event.kind == EventKind::Failed as u32 && event.run != 0;
    let (Some(cluster), Some(endpoint), true) = (parties.cluster, parties.endpoint, blamed) else {
        return false;
    };
    let outcome = Outcome::Failed { run: Some(event.run) };
    cluster.outlier.is_some() && cluster.state.report(cluster, endpoint, outcome, proxy::now())
}

/// Connections that are open, by namespace. Accounts of nobody in particular count none.
fn open(accounts: &[(AccountKey, Account)]) -> HashMap<u64, u64> {
    let mut open = HashMap::new();
    for (key, account) in accounts.iter().filter(|(key, _)| key.netns_cookie != EVERYBODY) {
        *open.entry(key.netns_cookie).or_default() += account.opened.saturating_sub(account.closed);
    }
    open
}

fn named(kernel: &Kernel, key: AccountKey) -> Named {
    let endpoint = kernel.endpoint(key.endpoint).map(|endpoint| Arc::clone(&endpoint.workload));
    Named { cluster: kernel.cluster(key.cluster).cloned(), endpoint }
}

fn place(kernel: &Kernel, endpoint: u32) -> Option<Place> {
    let endpoint = kernel.endpoint(endpoint)?;
    Some((kernel.cluster(endpoint.cluster)?.name.to_string(), endpoint.address))
}

/// Endpoints that nobody is sent to.
fn ejected(snapshot: &Snapshot) -> usize {
    let watched = snapshot.clusters.values().filter(|cluster| cluster.outlier.is_some());
    watched.map(|cluster| cluster.state.health().ejected.len()).sum()
}

#[cfg(test)]
mod tests {
    use proxy_traffic::OutlierDetection;

    use super::*;

    #[test]
    fn who_is_not_blamed_is_not_reported() {
        let second = Duration::from_secs(1);
        let rules = OutlierDetection {
            consecutive: 1,
            interval: second,
            base_ejection: second,
            max_ejection_percent: 100,
            min_health_percent: 0,
        };
        let endpoint = "10.0.0.1:80".parse().unwrap();
        let place = proxy_traffic::Endpoint { address: endpoint, weight: 1, workload: Arc::default() };
        let plain = proxy_traffic::Cluster::passthrough(second);
        let kind = proxy_traffic::ClusterKind::Endpoints(vec![place]);
        let cluster = Arc::new(proxy_traffic::Cluster { kind, outlier: Some(rules), ..plain });
        let parties =
            Parties { workload: Some(&lines::NOBODY), cluster: Some(&cluster), endpoint: Some(endpoint) };
        let told =
            |kind: EventKind, run| report(&Event { kind: kind as u32, run, ..Event::default() }, &parties);
        assert!(!told(EventKind::Failed, 0));
        assert!(!told(EventKind::Closed, 1));
        assert!(told(EventKind::Failed, 1));
    }
}
