//! What the kernel programs decided, as a metric: `shunt_connects_total{verdict}`.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, metrics::MetricType};
use proxy_common::Counter;

/// The counters as they were read last; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Connects(Arc<[AtomicU64; Counter::ALL.len()]>);

impl Connects {
    /// Takes over what the kernel says now.
    pub(super) fn update(&self, counters: &[(&'static str, u64)]) {
        for (cell, (_, count)) in self.0.iter().zip(counters) {
            cell.store(*count, Ordering::Relaxed);
        }
    }
}

impl Collector for Connects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Decisions of the kernel programs on connects of the workloads";
        let mut family = encoder.encode_descriptor("shunt_connects", help, None, MetricType::Counter)?;
        for (cell, (_, verdict)) in self.0.iter().zip(Counter::ALL) {
            let labels = [("verdict", verdict)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<[(&str, &str); 0], _, u64>(&cell.load(Ordering::Relaxed), None)?;
        }
        Ok(())
    }
}
