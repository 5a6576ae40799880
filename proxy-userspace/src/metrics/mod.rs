//! Every metric, and its text.

mod egress;
mod series;

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::text,
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use proxy_traffic::{Cluster, Flag, Workload, WorkloadName};

pub(crate) use self::series::{Series, Totals};
use self::{egress::Blocked, series::Table};

/// All of the daemon's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    table: Arc<Table>,
    blocked: Arc<Blocked>,
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
        let blocked = Arc::new(Blocked::default());
        registry.register_collector(Box::new(Arc::clone(&table)));
        registry.register_collector(Box::new(Arc::clone(&blocked)));
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
        Self {
            registry: Mutex::new(registry),
            table,
            blocked,
            open,
            log_dropped,
            backoffs,
            problems,
            generation,
        }
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
        self.table.forget(workload);
        self.blocked.forget(workload);
    }

    /// `workload` tried to reach what it may not: `destination`, if that is known, by `protocol` (`tcp`, `udp`, …). `verdict` says
    /// what it met: `close`, `refuse`, `drop`.
    pub fn egress_blocked(
        &self,
        workload: &Workload,
        destination: Option<SocketAddr>,
        protocol: &str,
        verdict: &str,
    ) {
        self.blocked.count(workload, destination, protocol, verdict);
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
        self.table.series(source, cluster, endpoint, flag)
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
        for index in 0..series::SERIES_A_WORKLOAD + 100 {
            let endpoint = WorkloadName { name: format!("w{index}"), ..WorkloadName::default() };
            metrics.series(&workload, None, Some(&Arc::new(endpoint)), Flag::None).opened();
        }
        let text = metrics.text().unwrap();
        let opened = |line: &&str| line.starts_with("istio_tcp_connections_opened_total{");
        assert_eq!(text.lines().filter(opened).count(), series::SERIES_A_WORKLOAD + 1);
        let common = text.lines().filter(opened).find(|line| line.contains("destination_workload=\"other\""));
        assert!(common.unwrap().ends_with(" 100"));
    }
}
