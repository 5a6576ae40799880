//! A snapshot in text: what `/config_dump` and `shunt check` show, and what the tests of `istio` compare.

use std::{fmt, time::Duration};

use ipnet::IpNet;

use crate::{
    Balancing, Cluster, ClusterKind, Egress, EgressPolicy, EgressVerdict, Endpoint, Keepalive, Limit,
    LimitScope, Listener, Match, OutlierDetection, Route, Rule, Snapshot, datapath,
};

/// Istio's defaults, which are not shown.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const OUTLIER: OutlierDetection = OutlierDetection {
    consecutive: 0,
    interval: Duration::from_secs(10),
    base_ejection: Duration::from_secs(30),
    max_ejection_percent: 10,
    min_health_percent: 0,
};

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.egress.fmt(f)?;
        for (address, listener) in &self.listeners {
            captured(f, address, address.ip().into(), listener)?;
        }
        for range in &self.subnets {
            captured(f, format_args!("{}:{}", range.subnet, range.port), range.subnet, &range.listener)?;
        }
        for (address, listener) in &self.gateways {
            writeln!(f, "gateway {address} {listener}")?;
        }
        self.clusters.values().try_for_each(|cluster| writeln!(f, "{cluster}"))?;
        for (name, lookup) in &self.lookups {
            writeln!(f, "lookup {name}{}", if lookup.external { ", outside" } else { "" })?;
        }
        self.datagrams.iter().try_for_each(|(net, port)| writeln!(f, "datagrams to {net}:{port}"))
    }
}

/// `egress MODE by RESOURCE` for the mesh and each Sidecar, if anybody says anything.
impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self != Self::default() {
            writeln!(f, "egress {}", self.mesh)?;
        }
        self.sidecars.iter().try_for_each(|scope| {
            f.write_str("egress of ")?;
            match &scope.namespace {
                Some(namespace) => write!(f, "namespace {namespace}")?,
                None => f.write_str("every namespace")?,
            }
            scope.labels.iter().try_for_each(|(key, value)| write!(f, " with {key}={value}"))?;
            writeln!(f, ": {}", scope.policy)
        })
    }
}

/// `REGISTRY_ONLY, refused, also what is open, by Sidecar default/db`.
impl fmt::Display for EgressPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.verdict {
            EgressVerdict::Allow => "ALLOW_ANY",
            EgressVerdict::Close => "REGISTRY_ONLY, closed",
            EgressVerdict::Refuse => "REGISTRY_ONLY, refused",
        })?;
        f.write_str(if self.closes_existing { ", also what is open" } else { "" })?;
        if self.source.is_empty() { f.write_str(" by default") } else { write!(f, " by {}", self.source) }
    }
}

/// `ADDRESS NAME, VERDICT` and one indented line a rule.
fn captured(
    f: &mut fmt::Formatter<'_>,
    address: impl fmt::Display,
    net: IpNet,
    listener: &Listener,
) -> fmt::Result {
    writeln!(f, "{address} {}, {}", listener.name, datapath::verdict(listener, net))?;
    listener.rules.iter().try_for_each(|rule| writeln!(f, "  {rule}"))
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
        if !self.server_names.is_empty() {
            parts.push(format!("SNI {}", self.server_names.join("|")));
        }
        if !self.authorities.is_empty() {
            parts.push(format!("Host {}", self.authorities.join("|")));
        }
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

/// `cluster NAME: ENDPOINT, ENDPOINT; POLICY; POLICY`, with weights that differ from 1 and policies that differ from
/// Istio's defaults.
impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {}: ", self.name)?;
        match &self.kind {
            ClusterKind::OriginalDestination => {
                f.write_str("the original destination")?;
                self.port.map_or(Ok(()), |port| write!(f, ", port {port}"))?;
            }
            ClusterKind::Named(None) => f.write_str("the name that the client says")?,
            ClusterKind::Named(Some(port)) => write!(f, "the name that the client says, port {port}")?,
            ClusterKind::Missing(reason) => return write!(f, "missing, {reason}"),
            ClusterKind::Endpoints(endpoints) if endpoints.is_empty() => f.write_str("no endpoint")?,
            ClusterKind::Endpoints(endpoints) => separated(f, ", ", endpoints)?,
        }
        policies(self).iter().try_for_each(|policy| write!(f, "; {policy}"))
    }
}

/// What a cluster does otherwise than Istio's defaults, in Istio's words.
fn policies(cluster: &Cluster) -> Vec<String> {
    let balancing = match cluster.balancing {
        Balancing::Random => Some("RANDOM"),
        Balancing::RoundRobin => Some("ROUND_ROBIN"),
        Balancing::SourceHash => Some("useSourceIp"),
        Balancing::LeastRequest | Balancing::OriginalDestination => None,
    };
    let mut all: Vec<_> = balancing.map(str::to_owned).into_iter().collect();
    if cluster.connect_timeout != CONNECT_TIMEOUT {
        all.push(format!("connectTimeout {:?}", cluster.connect_timeout));
    }
    all.extend(cluster.limit.map(|limit| limit.to_string()));
    all.extend(cluster.keepalive.map(|keepalive| keepalive.to_string()));
    all.extend(cluster.outlier.map(|outlier| outlier.to_string()));
    all
}

/// `maxConnections 3 per workload`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match self.scope {
            LimitScope::Workload => "workload",
            LimitScope::Node => "node",
            LimitScope::Endpoint => "workload and endpoint",
        };
        write!(f, "maxConnections {} per {scope}", self.max_connections)
    }
}

/// `tcpKeepalive time 1m interval 5s probes 3`, without what the system decides.
impl fmt::Display for Keepalive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tcpKeepalive")?;
        self.time.map_or(Ok(()), |time| write!(f, " time {time:?}"))?;
        self.interval.map_or(Ok(()), |interval| write!(f, " interval {interval:?}"))?;
        self.probes.map_or(Ok(()), |probes| write!(f, " probes {probes}"))
    }
}

/// `outlierDetection after 5 interval 1s`.
impl fmt::Display for OutlierDetection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outlierDetection after {}", self.consecutive)?;
        let named = [
            ("interval", format!("{:?}", self.interval), self.interval != OUTLIER.interval),
            (
                "baseEjectionTime",
                format!("{:?}", self.base_ejection),
                self.base_ejection != OUTLIER.base_ejection,
            ),
            (
                "maxEjectionPercent",
                self.max_ejection_percent.to_string(),
                self.max_ejection_percent != OUTLIER.max_ejection_percent,
            ),
            (
                "minHealthPercent",
                self.min_health_percent.to_string(),
                self.min_health_percent != OUTLIER.min_health_percent,
            ),
        ];
        let mut shown = named.into_iter().filter(|(.., differs)| *differs);
        shown.try_for_each(|(name, value, _)| write!(f, " {name} {value}"))
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
