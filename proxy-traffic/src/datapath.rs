//! Listener → verdict: what the kernel does with a workload's connections, decided before there are any.

use std::{fmt, net::SocketAddr, sync::Arc};

use ipnet::IpNet;

use crate::{Cluster, ClusterKind, Listener, Route, SteerReason, Workload, route};

/// What the kernel does.
#[derive(Clone, Debug)]
pub enum Decision<'a> {
    /// It connects untouched: no rule holds for this workload.
    Pass,
    /// It routes by itself.
    Direct(&'a Arc<Route>),
    /// It gives the connection to the daemon.
    Steer(SteerReason),
}

/// What the kernel does with connections of `workload` to `destination`: one address, or those of a prefix that no
/// longer one of [`prefixes`] holds.
#[must_use]
pub fn decide<'a>(listener: &'a Listener, destination: IpNet, workload: &Workload) -> Decision<'a> {
    if let Some(reason) = reason_at(listener, destination) {
        return Decision::Steer(reason);
    }
    let Some(route) = route::statically(listener, destination, workload) else { return Decision::Pass };
    match other_family(route, destination) {
        Some(other) => Decision::Steer(SteerReason::Family(other)),
        None => Decision::Direct(route),
    }
}

/// Whether the answer of [`decide`] may differ from workload to workload.
#[must_use]
pub fn depends_on_workload(listener: &Listener) -> bool {
    let mut matches = listener.rules.iter().flat_map(|rule| &rule.matches);
    listener.steer.is_none()
        && !listener.sniff.any()
        && matches.any(|one| one.source_namespace.is_some() || !one.source_labels.is_empty())
}

/// The parts of `subnet` that rules may send different ways: itself, and what rules name inside it.
#[must_use]
pub fn prefixes(listener: &Listener, subnet: IpNet) -> Vec<IpNet> {
    let matches = listener.rules.iter().flat_map(|rule| &rule.matches);
    let named = matches.flat_map(|one| &one.destination_subnets).copied();
    let mut all: Vec<_> = named.filter(|named| subnet.contains(named)).chain([subnet]).collect();
    all.sort();
    all.dedup();
    all
}

/// The verdict on connections to `destination`, whoever makes them, as `shunt routes` says it: `direct`,
/// `steer: REASON`, or both where it depends on the rule.
#[must_use]
pub fn verdict(listener: &Listener, destination: IpNet) -> String {
    if let Some(reason) = reason_at(listener, destination) {
        return format!("steer: {reason}");
    }
    let foreign = || listener.rules.iter().map(|rule| other_family(&rule.route, destination));
    match foreign().flatten().next().map(SteerReason::Family) {
        None => "direct".to_owned(),
        Some(reason) if foreign().all(|one| one.is_some()) => format!("steer: {reason}"),
        Some(reason) => format!("direct; by some rules steer: {reason}"),
    }
}

/// Why connections to `destination` are the daemon's whoever makes them. A listener that is steered for the family of
/// one of its addresses is steered at the others for its limit.
fn reason_at(listener: &Listener, destination: IpNet) -> Option<SteerReason> {
    if listener.sniff.any() && listener.steer.is_none() {
        return Some(SteerReason::Sniff);
    }
    let reason = listener.steer.clone()?;
    let SteerReason::Family(_) = reason else { return Some(reason) };
    let foreign = listener.rules.iter().find_map(|rule| other_family(&rule.route, destination));
    let limited = || reached(listener).find(|cluster| cluster.limit.is_some());
    Some(match (foreign, limited()) {
        (Some(endpoint), _) => SteerReason::Family(endpoint),
        (None, Some(cluster)) => {
            let other = if destination.addr().is_ipv4() { "IPv6" } else { "IPv4" };
            SteerReason::SharedLimit(cluster.name.clone(), format!("{} over {other}", listener.name))
        }
        (None, None) => reason,
    })
}

/// The clusters that connections of a listener may reach.
pub(crate) fn reached(listener: &Listener) -> impl Iterator<Item = &Arc<Cluster>> {
    listener.rules.iter().flat_map(|rule| drawn(&rule.route))
}

/// The first endpoint of the route that `destination`'s kind of socket cannot be led to.
pub(crate) fn other_family(route: &Route, destination: IpNet) -> Option<SocketAddr> {
    let mut endpoints = drawn(route).flat_map(|cluster| addresses(cluster));
    endpoints.find(|endpoint| endpoint.is_ipv4() != destination.addr().is_ipv4())
}

/// The clusters of a route; a weight of 0 is never drawn.
fn drawn(route: &Route) -> impl Iterator<Item = &Arc<Cluster>> {
    route.destinations.iter().filter(|arm| arm.weight > 0).map(|arm| &arm.cluster)
}

fn addresses(cluster: &Cluster) -> impl Iterator<Item = SocketAddr> {
    let endpoints = match &cluster.kind {
        ClusterKind::Endpoints(all) => all.as_slice(),
        ClusterKind::OriginalDestination | ClusterKind::Named(_) | ClusterKind::Missing(_) => &[],
    };
    endpoints.iter().map(|endpoint| endpoint.address)
}

/// As `shunt routes` says it.
impl fmt::Display for SteerReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting => f.write_str("--datapath steer"),
            Self::Annotation(resource) => write!(f, "shunt.dev/datapath: steer on {resource}"),
            Self::Sniff => {
                f.write_str("a rule asks for what the client says first, a TLS server name or an HTTP host")
            }
            Self::TargetPort(cluster) => {
                write!(f, "{cluster} dials another port than its clients (targetPort)")
            }
            Self::SourceSubnet => f.write_str("sourceSubnet is known only once a connection is accepted"),
            Self::ShortConnectTimeout(cluster) => {
                write!(f, "connectTimeout of {cluster} is below 1s, which the kernel cannot keep")
            }
            Self::OverflowCloses(cluster) => {
                write!(f, "shunt.dev/overflow: close, and {cluster} has a limit")
            }
            Self::SharedLimit(cluster, listener) => {
                write!(f, "the daemon counts the connections of {cluster}: it carries those of {listener}")
            }
            Self::Family(endpoint) => {
                write!(f, "the endpoint {endpoint} is of another address family")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{ClusterName, Destination, Endpoint, Match, Rule};

    /// A cluster of endpoints; `passthrough` and `missing` are the other kinds.
    fn cluster(text: &str) -> Arc<Cluster> {
        let kind = match text {
            "passthrough" => ClusterKind::OriginalDestination,
            "missing" => ClusterKind::Missing(String::new()),
            list => ClusterKind::Endpoints(list.split_whitespace().map(endpoint).collect()),
        };
        let name = ClusterName::outbound(1, "", text);
        Arc::new(Cluster { name, kind, ..Cluster::passthrough(std::time::Duration::from_secs(1)) })
    }

    fn endpoint(address: &str) -> Endpoint {
        Endpoint { address: address.parse().unwrap(), weight: 1, workload: Default::default() }
    }

    /// `CONDITIONS -> CLUSTER or CLUSTER`; conditions are `to NET`, `in NAMESPACE`, `app LABEL`, joined by `and`. A
    /// cluster after `never` has weight 0. The route is named after the whole text.
    fn rule(text: &str) -> Rule {
        let (conditions, clusters) = text.split_once("->").unwrap();
        let mut one = Match::default();
        for condition in conditions.split(" and ").filter(|one| !one.trim().is_empty()) {
            let (word, value) = condition.trim().split_once(' ').unwrap();
            match word {
                "to" => one.destination_subnets.push(value.parse().unwrap()),
                "in" => one.source_namespace = Some(value.to_owned()),
                _ => drop(one.source_labels.insert(word.to_owned(), value.to_owned())),
            }
        }
        let arm = |text: &str| {
            let never = text.trim().strip_prefix("never ");
            Destination { weight: u64::from(never.is_none()), cluster: cluster(never.unwrap_or(text).trim()) }
        };
        let destinations = clusters.split(" or ").map(arm).collect();
        let matches = if conditions.trim().is_empty() { Vec::new() } else { vec![one] };
        Rule { matches, route: Arc::new(Route { name: text.to_owned(), destinations }) }
    }

    fn listener(rules: &[&str]) -> Listener {
        let rules = rules.iter().map(|text| rule(text)).collect();
        Listener { name: "a:80".to_owned(), rules, ..Listener::default() }
    }

    /// A workload `NAMESPACE/APP`.
    fn workload(text: &str) -> Workload {
        let (namespace, app) = text.split_once('/').unwrap();
        let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        Workload { name: app.to_owned(), namespace: namespace.to_owned(), labels }
    }

    /// `pass`, the route's name, or the reason to steer.
    fn decided(listener: &Listener, destination: &str, of: &str) -> String {
        match decide(listener, destination.parse().unwrap(), &workload(of)) {
            Decision::Pass => "pass".to_owned(),
            Decision::Direct(route) => route.name.clone(),
            Decision::Steer(reason) => format!("steer: {reason}"),
        }
    }

    const V4: &str = "-> 10.1.0.1:80 10.1.0.2:80";
    const V6: &str = "-> [2001:db8::1]:80";
    const MIXED: &str = "-> 10.1.0.1:80 or [2001:db8::1]:80";
    const WEB: &str = "app web -> 10.1.0.3:80";
    const PROD: &str = "in prod and app web -> 10.1.0.4:80";
    const NARROW: &str = "to 10.0.0.0/24 -> 10.1.0.5:80";
    const FOREIGN: &str = "to 10.0.0.0/24 -> [2001:db8::1]:80";
    const TO_V4: &str = "steer: the endpoint 10.1.0.1:80 is of another address family";
    const TO_V6: &str = "steer: the endpoint [2001:db8::1]:80 is of another address family";

    #[test]
    fn a_listener_a_workload_and_a_destination_make_a_decision() {
        for (rules, workload, destination, want) in [
            (&[V4][..], "default/db", "10.0.0.5/32", V4),
            (&[V4], "default/db", "2001:db8::5/128", TO_V4),
            (&[V6], "default/db", "2001:db8::5/128", V6),
            (&[V6], "default/db", "10.0.0.5/32", TO_V6),
            (&[MIXED], "default/db", "10.0.0.5/32", TO_V6),
            (
                &["-> 10.1.0.1:80 or never [2001:db8::1]:80"],
                "a/b",
                "10.0.0.5/32",
                "-> 10.1.0.1:80 or never [2001:db8::1]:80",
            ),
            (&["-> passthrough"], "a/b", "2001:db8::5/128", "-> passthrough"),
            (&["-> missing"], "a/b", "10.0.0.5/32", "-> missing"),
            (&["-> "], "a/b", "10.0.0.5/32", "-> "),
            // Rules of a workload.
            (&[WEB, V4], "default/web", "10.0.0.5/32", WEB),
            (&[WEB, V4], "default/db", "10.0.0.5/32", V4),
            (&[PROD, WEB, V4], "prod/web", "10.0.0.5/32", PROD),
            (&[PROD, WEB, V4], "prod/db", "10.0.0.5/32", V4),
            (&[PROD, WEB, V4], "test/web", "10.0.0.5/32", WEB),
            (&[WEB], "default/db", "10.0.0.5/32", "pass"),
            (&[WEB, V6], "default/web", "10.0.0.5/32", WEB),
            (&[WEB, V6], "default/db", "10.0.0.5/32", TO_V6),
            // Rules of a range: only what holds all of the destination.
            (&[NARROW, V4], "a/b", "10.0.0.5/32", NARROW),
            (&[NARROW, V4], "a/b", "10.0.0.0/24", NARROW),
            (&[NARROW, V4], "a/b", "10.0.0.0/16", V4),
            (&[NARROW], "a/b", "10.0.0.0/16", "pass"),
            (&[FOREIGN, V4], "a/b", "10.0.0.0/24", TO_V6),
            (&[FOREIGN, V4], "a/b", "10.0.0.0/16", V4),
        ] {
            assert_eq!(
                decided(&listener(rules), destination, workload),
                want,
                "{rules:?} {workload} {destination}"
            );
        }
        let steered = Listener { steer: Some(SteerReason::Setting), ..listener(&[V4]) };
        assert_eq!(decided(&steered, "10.0.0.5/32", "a/b"), "steer: --datapath steer");
    }

    #[test]
    fn workloads_differ_only_where_rules_name_them() {
        for (rules, want) in [
            (&[V4][..], false),
            (&[NARROW, V4], false),
            (&[WEB, V4], true),
            (&["in prod -> 10.1.0.1:80"], true),
        ] {
            assert_eq!(depends_on_workload(&listener(rules)), want, "{rules:?}");
            let steered = Listener { steer: Some(SteerReason::Setting), ..listener(rules) };
            assert!(!depends_on_workload(&steered), "{rules:?}");
        }
    }

    #[test]
    fn a_range_falls_apart_where_rules_name_parts_of_it() {
        let two = "to 10.0.0.0/24 and to 10.0.9.0/24 -> 10.1.0.1:80";
        for (rules, subnet, want) in [
            (&[V4][..], "10.0.0.0/16", "10.0.0.0/16"),
            (&[NARROW, V4], "10.0.0.0/16", "10.0.0.0/16 10.0.0.0/24"),
            (&[NARROW, NARROW, two], "10.0.0.0/16", "10.0.0.0/16 10.0.0.0/24 10.0.9.0/24"),
            (&[NARROW, V4], "10.0.0.0/24", "10.0.0.0/24"),
            (&[NARROW, V4], "10.0.0.7/32", "10.0.0.7/32"),
            (&[NARROW, V4], "10.2.0.0/16", "10.2.0.0/16"),
            (&[NARROW, V4], "::/0", "::/0"),
        ] {
            let parts = prefixes(&listener(rules), subnet.parse().unwrap());
            let shown: Vec<_> = parts.iter().map(ToString::to_string).collect();
            assert_eq!(shown.join(" "), want, "{rules:?} {subnet}");
        }
    }

    #[test]
    fn a_verdict_is_told_for_all_rules_together() {
        for (rules, want) in [
            (&[V4][..], "direct".to_owned()),
            (&[V6], TO_V6.to_owned()),
            (&[WEB, V6], format!("direct; by some rules {TO_V6}")),
        ] {
            assert_eq!(verdict(&listener(rules), "10.0.0.5/32".parse().unwrap()), want, "{rules:?}");
        }
    }
}
