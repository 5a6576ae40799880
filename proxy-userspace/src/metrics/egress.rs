//! Attempts to reach what may not be reached, by workload and destination. Destinations are the workloads' choice, so only
//! so many are told apart.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, metrics::MetricType};
use proxy_traffic::{Workload, WorkloadName};

/// Series with a destination of their own; attempts beyond are counted with destination `other`.
const DESTINATIONS: usize = 1000;

/// Whom the attempts are counted of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    workload: String,
    namespace: String,
    destination: Destination,
    protocol: String,
    verdict: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Destination {
    Is(SocketAddr),
    /// A socket was refused before it said where to.
    Unknown,
    Other,
}

/// All attempts.
#[derive(Debug, Default)]
pub(super) struct Blocked(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: HashMap<Key, u64>,
    /// Those among them that have a destination of their own.
    told_apart: usize,
}

impl Blocked {
    pub(super) fn count(
        &self,
        workload: &Workload,
        destination: Option<SocketAddr>,
        protocol: &str,
        verdict: &str,
    ) {
        let mut key = Key {
            workload: workload.name.clone(),
            namespace: workload.namespace.clone(),
            destination: destination.map_or(Destination::Unknown, Destination::Is),
            protocol: protocol.to_owned(),
            verdict: verdict.to_owned(),
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.all.get_mut(&key) {
            *count += 1;
            return;
        }
        if key.destination.is_one() && counts.told_apart >= DESTINATIONS {
            key.destination = Destination::Other;
        }
        counts.told_apart += usize::from(key.destination.is_one());
        *counts.all.entry(key).or_default() += 1;
    }

    /// Forgets a workload that left the node.
    pub(super) fn forget(&self, workload: &Workload) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all.retain(|key, _| key.workload != workload.name || key.namespace != workload.namespace);
        counts.told_apart = counts.all.keys().filter(|key| key.destination.is_one()).count();
    }
}

impl Destination {
    fn is_one(self) -> bool {
        matches!(self, Self::Is(_))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(address) => address.fmt(f),
            Self::Unknown => f.write_str(WorkloadName::UNKNOWN),
            Self::Other => f.write_str("other"),
        }
    }
}

impl Collector for Blocked {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let help = "Attempts of workloads to reach what they may not";
        let mut family =
            encoder.encode_descriptor("shunt_egress_blocked", help, None, MetricType::Counter)?;
        for (key, count) in &counts.all {
            let labels = [
                ("source_workload", key.workload.clone()),
                ("source_workload_namespace", key.namespace.clone()),
                ("destination", key.destination.to_string()),
                ("protocol", key.protocol.clone()),
                ("verdict", key.verdict.clone()),
            ];
            family.encode_family(&labels)?.encode_counter::<[(&str, String); 5], _, u64>(count, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::metrics::Metrics;

    use super::*;

    fn workload(name: &str) -> Arc<Workload> {
        let (name, namespace) = (name.to_owned(), "shop".to_owned());
        Arc::new(Workload { name, namespace, labels: std::collections::BTreeMap::new() })
    }

    #[test]
    fn destinations_are_bounded() {
        let (metrics, web, cart) = (Metrics::new(), workload("web"), workload("cart"));
        for port in 0..1100 {
            let destination = SocketAddr::from(([203, 0, 113, 1], port));
            metrics.egress_blocked(&web, Some(destination), "tcp", "close");
            metrics.egress_blocked(&web, Some(destination), "tcp", "close");
        }
        metrics.egress_blocked(&cart, Some(([203, 0, 113, 2], 1).into()), "udp", "refuse");
        metrics.egress_blocked(&cart, None, "udp", "refuse");
        let text = metrics.text().unwrap();
        let lines: Vec<_> =
            text.lines().filter(|line| line.starts_with("shunt_egress_blocked_total{")).collect();
        let with = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!((lines.len(), with("destination=\"203.0.113.1:")), (DESTINATIONS + 3, DESTINATIONS));
        assert!(text.contains("destination=\"other\",protocol=\"tcp\",verdict=\"close\"} 200"), "{text}");
        assert!(text.contains("destination=\"other\",protocol=\"udp\",verdict=\"refuse\"} 1"));
        assert!(text.contains("destination=\"unknown\",protocol=\"udp\",verdict=\"refuse\"} 1"));
        // Who leaves makes room.
        metrics.forget(&web);
        metrics.egress_blocked(&cart, Some(([203, 0, 113, 2], 1).into()), "udp", "refuse");
        let text = metrics.text().unwrap();
        assert!(text.contains("destination=\"203.0.113.2:1\"") && !text.contains("web"), "{text}");
    }
}
