//! Every metric, and its text.
//!
//! Istio's four TCP families come from one table: a connection finds its series once and from then on only adds
//! to counters. The table is bounded, so no workload can make the daemon or its scraper run out of memory.

use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    metrics::{MetricType, counter::Counter, gauge::Gauge},
    registry::Registry,
};
use proxy_traffic::{Cluster, ClusterName, Flag, Workload, WorkloadName};

/// Series one workload may have; connections beyond are counted together, with destination `other`.
const SERIES_A_WORKLOAD: usize = 2000;
const OTHER: &str = "other";
const UNKNOWN: &str = WorkloadName::UNKNOWN;

/// All of the daemon's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    table: Arc<Table>,
    open: Gauge,
    log_dropped: Counter,
    backoffs: Counter,
    problems: Gauge,
    generation: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let table = Arc::new(Table::default());
        registry.register_collector(Box::new(Arc::clone(&table)));
        let (open, problems, generation) = (Gauge::default(), Gauge::default(), Gauge::default());
        let (log_dropped, backoffs) = (Counter::default(), Counter::default());
        registry.register("shunt_connections_open", "Connections the daemon carries now", open.clone());
        registry.register("shunt_problems", "Problems in the resources in force", problems.clone());
        registry.register("shunt_snapshot_generation", "Publications of the rules", generation.clone());
        registry.register(
            "shunt_access_log_dropped",
            "Access-log lines that the writer was too slow for",
            log_dropped.clone(),
        );
        registry.register(
            "shunt_accept_backoff",
            "Pauses in accepting for want of descriptors or memory",
            backoffs.clone(),
        );
        Self { registry: Mutex::new(registry), table, open, log_dropped, backoffs, problems, generation }
    }

    /// Adds metrics that somebody else counts, read at every scrape.
    pub fn register(&self, collector: Box<dyn Collector>) {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register_collector(collector);
    }

    /// Everything, in the OpenMetrics text format.
    ///
    /// # Errors
    /// When a collector fails.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(out)
    }

    /// Connections the daemon carries now.
    #[must_use]
    pub fn connections_open(&self) -> i64 {
        self.open.get()
    }

    /// Rules were published.
    pub fn published(&self, generation: u64, problems: usize) {
        self.generation.set(generation.cast_signed());
        self.problems.set(i64::try_from(problems).unwrap_or(i64::MAX));
    }

    /// Forgets the series of a workload that left the node.
    pub fn forget(&self, workload: &Arc<Workload>) {
        let mut sources = self.table.0.write().unwrap_or_else(PoisonError::into_inner);
        sources.remove(&Source(Arc::clone(workload)));
    }

    pub(crate) fn connection_opened(&self) {
        self.open.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.open.dec();
    }

    pub(crate) fn access_log_dropped(&self) {
        self.log_dropped.inc();
    }

    pub(crate) fn accept_backed_off(&self) {
        self.backoffs.inc();
    }

    /// The counters of connections like this one. Without `cluster` or `endpoint` the destination is `unknown`.
    pub(crate) fn series(
        &self,
        source: &Arc<Workload>,
        cluster: Option<&Cluster>,
        endpoint: Option<&Arc<WorkloadName>>,
        flag: Flag,
    ) -> Arc<Series> {
        let source = Source(Arc::clone(source));
        let key =
            Key { cluster: cluster.map(|cluster| cluster.name.clone()), endpoint: endpoint.cloned(), flag };
        let known = self.table.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(&source).and_then(|all| all.get(&key)) {
            return Arc::clone(series);
        }
        drop(known);
        self.table.add(source, key, cluster)
    }
}

/// Counters of one combination of labels.
#[derive(Debug)]
pub(crate) struct Series {
    labels: Labels,
    opened: AtomicU64,
    closed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Series {
    fn new(labels: Labels) -> Self {
        let zero = AtomicU64::default;
        Self { labels, opened: zero(), closed: zero(), sent: zero(), received: zero() }
    }

    pub(crate) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds bytes from the client and bytes to it.
    pub(crate) fn moved(&self, received: u64, sent: u64) {
        if received > 0 {
            self.received.fetch_add(received, Ordering::Relaxed);
        }
        if sent > 0 {
            self.sent.fetch_add(sent, Ordering::Relaxed);
        }
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

#[derive(Debug, Default)]
struct Table(RwLock<HashMap<Source, HashMap<Key, Arc<Series>>>>);

impl Table {
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
type Family = (&'static str, &'static str, fn(&Series) -> &AtomicU64);

impl Collector for Table {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sources = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let families: [Family; 4] = [
            ("istio_tcp_connections_opened", "TCP connections opened", |series| &series.opened),
            ("istio_tcp_connections_closed", "TCP connections closed", |series| &series.closed),
            ("istio_tcp_sent_bytes", "Bytes sent to clients", |series| &series.sent),
            ("istio_tcp_received_bytes", "Bytes received from clients", |series| &series.received),
        ];
        for (name, help, value) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for series in sources.values().flat_map(HashMap::values) {
                let value = value(series).load(Ordering::Relaxed);
                family.encode_family(&series.labels)?.encode_counter::<Labels, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Arc<Workload> {
        let labels = [("app".to_owned(), "shop".to_owned())].into();
        Arc::new(Workload { name: "web".to_owned(), namespace: "shop".to_owned(), labels })
    }

    #[test]
    fn one_series_serves_equal_connections_and_shows_istios_labels() {
        let (metrics, workload) = (Metrics::new(), workload());
        let cluster = Cluster::passthrough(std::time::Duration::from_secs(1));
        let series = metrics.series(&workload, Some(&cluster), None, Flag::None);
        series.opened();
        series.moved(3, 5);
        assert!(Arc::ptr_eq(&series, &metrics.series(&workload, Some(&cluster), None, Flag::None)));
        let text = metrics.text().unwrap();
        let line = text.lines().find(|line| line.starts_with("istio_tcp_sent_bytes_total{")).unwrap();
        assert!(line.ends_with(" 5"), "{line}");
        for label in
            ["reporter=\"source\"", "source_app=\"shop\"", "destination_service=\"PassthroughCluster\""]
        {
            assert!(line.contains(label), "{label} in {line}");
        }
        metrics.forget(&workload);
        assert!(!metrics.text().unwrap().contains("shop"));
    }

    #[test]
    fn a_workload_cannot_make_series_without_end() {
        let (metrics, workload) = (Metrics::new(), workload());
        for index in 0..SERIES_A_WORKLOAD + 100 {
            let endpoint = WorkloadName { name: format!("w{index}"), ..WorkloadName::default() };
            metrics.series(&workload, None, Some(&Arc::new(endpoint)), Flag::None).opened();
        }
        let text = metrics.text().unwrap();
        let opened = |line: &&str| line.starts_with("istio_tcp_connections_opened_total{");
        assert_eq!(text.lines().filter(opened).count(), SERIES_A_WORKLOAD + 1);
        let common = text.lines().filter(opened).find(|line| line.contains("destination_workload=\"other\""));
        assert!(common.unwrap().ends_with(" 100"));
    }
}
