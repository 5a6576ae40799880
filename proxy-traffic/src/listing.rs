//! A snapshot in text: what `/config_dump` and `shunt check` show, and what the tests of `istio` compare.

use std::fmt;

use crate::{Cluster, ClusterKind, Endpoint, Listener, Match, Route, Rule, Snapshot};

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (address, listener) in &self.listeners {
            writeln!(f, "{address} {listener}")?;
        }
        for range in &self.subnets {
            writeln!(f, "{}:{} {}", range.subnet, range.port, range.listener)?;
        }
        for (address, listener) in &self.gateways {
            writeln!(f, "gateway {address} {listener}")?;
        }
        self.clusters.values().try_for_each(|cluster| writeln!(f, "{cluster}"))
    }
}

/// `NAME` and one indented line a rule.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.rules.iter().try_for_each(|rule| write!(f, "\n  {rule}"))
    }
}

/// `if A or B -> 80% CLUSTER, 20% CLUSTER`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.matches.is_empty() {
            f.write_str("if ")?;
            separated(f, " or ", &self.matches)?;
            f.write_str(" ")?;
        }
        write!(f, "-> {}", self.route)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.destination_subnets.is_empty() {
            let subnets: Vec<_> = self.destination_subnets.iter().map(ToString::to_string).collect();
            parts.push(format!("destination in {}", subnets.join("|")));
        }
        parts.extend(self.source_subnet.map(|subnet| format!("source in {subnet}")));
        parts.extend(self.source_namespace.iter().map(|namespace| format!("source namespace {namespace}")));
        parts.extend(self.source_labels.iter().map(|(key, value)| format!("source label {key}={value}")));
        if parts.is_empty() {
            parts.push("any".to_owned());
        }
        f.write_str(&parts.join(" and "))
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.destinations.iter().map(|destination| destination.weight).sum();
        let shares = self.destinations.iter().map(|destination| {
            let percent = destination.weight as f64 * 100.0 / total as f64;
            format!("{}% {}", (percent * 100.0).round() / 100.0, destination.cluster.name)
        });
        separated(f, ", ", &shares.collect::<Vec<_>>())
    }
}

/// `cluster NAME: ENDPOINT, ENDPOINT`, with weights where they differ from 1.
impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {}: ", self.name)?;
        match &self.kind {
            ClusterKind::OriginalDestination => f.write_str("the original destination"),
            ClusterKind::Missing(reason) => write!(f, "missing, {reason}"),
            ClusterKind::Endpoints(endpoints) if endpoints.is_empty() => f.write_str("no endpoint"),
            ClusterKind::Endpoints(endpoints) => separated(f, ", ", endpoints),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        if self.weight == 1 { Ok(()) } else { write!(f, " weight {}", self.weight) }
    }
}

/// `items` with `separator` between them.
fn separated<T: fmt::Display>(f: &mut fmt::Formatter<'_>, separator: &str, items: &[T]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}
