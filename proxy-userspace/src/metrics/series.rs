//! Istio's four TCP families, from one table: a connection finds its series once and from then on only adds to
//! counters. The table is bounded, so no workload can make the daemon or its scraper run out of memory.
//!
//! A series has two sides, which its reader sees as one sum: what the proxy adds as it carries bytes, and what the kernel
//! counted, which comes as a total at every scrape.

use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    ops::AddAssign,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, metrics::MetricType};
use proxy_traffic::{Cluster, ClusterName, Flag, Workload, WorkloadName};

/// Series one workload may have; connections beyond are counted together, with destination `other`.
pub(super) const SERIES_A_WORKLOAD: usize = 2000;
const OTHER: &str = "other";
const UNKNOWN: &str = WorkloadName::UNKNOWN;

/// What one series counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Connections opened.
    pub(crate) opened: u64,
    /// Connections closed.
    pub(crate) closed: u64,
    /// Bytes sent to clients.
    pub(crate) sent: u64,
    /// Bytes received from clients.
    pub(crate) received: u64,
}

impl Totals {
    /// So many connections that were over as soon as they had begun.
    pub(crate) const fn refused(count: u64) -> Self {
        Self { opened: count, closed: count, sent: 0, received: 0 }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.closed += other.closed;
        self.sent += other.sent;
        self.received += other.received;
    }
}

/// The same, for many writers.
#[derive(Debug, Default)]
struct Counters {
    opened: AtomicU64,
    closed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counters {
    fn each(&self, totals: Totals, change: impl Fn(&AtomicU64, u64)) {
        change(&self.opened, totals.opened);
        change(&self.closed, totals.closed);
        change(&self.sent, totals.sent);
        change(&self.received, totals.received);
    }

    fn load(&self) -> Totals {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Totals {
            opened: load(&self.opened),
            closed: load(&self.closed),
            sent: load(&self.sent),
            received: load(&self.received),
        }
    }
}

/// Counters of one combination of labels.
#[derive(Debug)]
pub(crate) struct Series {
    labels: Labels,
    /// What the proxy added.
    carried: Counters,
    /// What the kernel counted when it was last asked; never less than before.
    routed: Counters,
    /// The part of that which the kernel has forgotten meanwhile.
    folded: Counters,
}

impl Series {
    fn new(labels: Labels) -> Self {
        let none = Counters::default;
        Self { labels, carried: none(), routed: none(), folded: none() }
    }

    pub(crate) fn opened(&self) {
        self.carried.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.carried.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds bytes from the client and bytes to it.
    pub(crate) fn moved(&self, received: u64, sent: u64) {
        if received > 0 {
            self.carried.received.fetch_add(received, Ordering::Relaxed);
        }
        if sent > 0 {
            self.carried.sent.fetch_add(sent, Ordering::Relaxed);
        }
    }

    /// The kernel has counted so much by now. A total that is behind an earlier one, as that of a connection which
    /// ends while it is read, changes nothing.
    pub(crate) fn routed(&self, now: Totals) {
        let mut all = self.folded.load();
        all += now;
        self.routed.each(all, |cell, total| {
            cell.fetch_max(total, Ordering::Relaxed);
        });
    }

    /// The kernel has counted so much that later totals no longer contain.
    pub(crate) fn fold(&self, gone: Totals) {
        self.folded.each(gone, |cell, count| {
            cell.fetch_add(count, Ordering::Relaxed);
        });
    }

    /// Both sides together.
    fn total(&self) -> Totals {
        let mut all = self.carried.load();
        all += self.routed.load();
        all
    }
}

/// A workload as a key: found by its name, told apart by its labels too.
#[derive(Debug, PartialEq, Eq)]
struct Source(Arc<Workload>);

impl Hash for Source {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.0.namespace, &self.0.name).hash(state);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    cluster: Option<ClusterName>,
    endpoint: Option<Arc<WorkloadName>>,
    flag: Flag,
}

/// Every series, by workload.
#[derive(Debug, Default)]
pub(super) struct Table(RwLock<HashMap<Source, HashMap<Key, Arc<Series>>>>);

impl Table {
    /// The series of connections like this one, made when it is the first.
    pub(super) fn series(
        &self,
        source: &Arc<Workload>,
        cluster: Option<&Cluster>,
        endpoint: Option<&Arc<WorkloadName>>,
        flag: Flag,
    ) -> Arc<Series> {
        let source = Source(Arc::clone(source));
        let key =
            Key { cluster: cluster.map(|cluster| cluster.name.clone()), endpoint: endpoint.cloned(), flag };
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(&source).and_then(|all| all.get(&key)) {
            return Arc::clone(series);
        }
        drop(known);
        self.add(source, key, cluster)
    }

    /// Forgets the series of a workload.
    pub(super) fn forget(&self, workload: &Arc<Workload>) {
        let mut sources = self.0.write().unwrap_or_else(PoisonError::into_inner);
        sources.remove(&Source(Arc::clone(workload)));
    }

    /// The series of `key`, which was not there a moment ago; the common one when the workload has too many.
    fn add(&self, source: Source, key: Key, cluster: Option<&Cluster>) -> Arc<Series> {
        let mut sources = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let workload = Arc::clone(&source.0);
        let all = sources.entry(source).or_default();
        let key = if all.len() < SERIES_A_WORKLOAD || all.contains_key(&key) { key } else { other(key.flag) };
        let labels = || labels(&workload, &key, cluster);
        Arc::clone(all.entry(key.clone()).or_insert_with(|| Arc::new(Series::new(labels()))))
    }
}

/// Where connections are counted that have no series of their own.
fn other(flag: Flag) -> Key {
    let name = || OTHER.to_owned();
    let endpoint = WorkloadName { name: name(), namespace: name(), app: name(), version: name() };
    Key { cluster: None, endpoint: Some(Arc::new(endpoint)), flag }
}

type Labels = Vec<(&'static str, String)>;

/// Istio's labels, in its order.
fn labels(source: &Workload, key: &Key, cluster: Option<&Cluster>) -> Labels {
    let unknown = Arc::default();
    let endpoint = key.endpoint.as_ref().unwrap_or(&unknown);
    let label = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| source.labels.get(*name));
        found.map_or(UNKNOWN, String::as_str)
    };
    // The common series has an endpoint and no cluster.
    let nobody = if key.cluster.is_none() && key.endpoint.is_some() { OTHER } else { UNKNOWN };
    let service = cluster.filter(|_| key.cluster.is_some()).map(|cluster| &cluster.service);
    let (host, name, namespace) =
        service.map_or((nobody, nobody, nobody), |one| (&*one.host, &*one.name, &*one.namespace));
    let canonical = match label(["service.istio.io/canonical-name", "app.kubernetes.io/name"]) {
        UNKNOWN => label(["app", ""]),
        name => name,
    };
    let pairs = [
        ("reporter", "source"),
        ("source_workload", &source.name),
        ("source_workload_namespace", &source.namespace),
        ("source_app", label(["app", "app.kubernetes.io/name"])),
        ("source_version", label(["version", "app.kubernetes.io/version"])),
        ("source_canonical_service", canonical),
        ("destination_workload", &endpoint.name),
        ("destination_workload_namespace", &endpoint.namespace),
        ("destination_app", &endpoint.app),
        ("destination_version", &endpoint.version),
        ("destination_service", host),
        ("destination_service_name", name),
        ("destination_service_namespace", namespace),
        ("request_protocol", "tcp"),
        ("response_flags", key.flag.as_str()),
        ("connection_security_policy", UNKNOWN),
    ];
    pairs.map(|(name, value)| (name, value.to_owned())).into()
}

/// Name, help and counter of one metric family.
type Family = (&'static str, &'static str, fn(Totals) -> u64);

impl Collector for Table {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sources = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let families: [Family; 4] = [
            ("istio_tcp_connections_opened", "TCP connections opened", |all| all.opened),
            ("istio_tcp_connections_closed", "TCP connections closed", |all| all.closed),
            ("istio_tcp_sent_bytes", "Bytes sent to clients", |all| all.sent),
            ("istio_tcp_received_bytes", "Bytes received from clients", |all| all.received),
        ];
        for (name, help, value) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for series in sources.values().flat_map(HashMap::values) {
                let value = value(series.total());
                family.encode_family(&series.labels)?.encode_counter::<Labels, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_counted_only_grows_also_when_it_forgets() {
        let series = Series::new(Vec::new());
        let bytes = |sent| Totals { opened: 2, closed: 1, sent, received: 1 };
        series.opened();
        series.moved(0, 5);
        series.routed(bytes(10));
        assert_eq!(series.total(), Totals { opened: 3, closed: 1, sent: 15, received: 1 });
        series.routed(bytes(7));
        assert_eq!(series.total().sent, 15, "a total that is behind");
        series.routed(bytes(20));
        series.fold(bytes(20));
        series.routed(Totals::default());
        assert_eq!(series.total().sent, 25, "forgotten by the kernel");
        series.routed(bytes(1));
        assert_eq!(series.total(), Totals { opened: 5, closed: 2, sent: 26, received: 2 });
    }
}
