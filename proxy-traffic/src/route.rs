//! Flow and snapshot → cluster.

use std::sync::Arc;

use ipnet::IpNet;
use proxy_common::pick;

use crate::{Cluster, Door, Error, Flow, Listener, Match, Route, Snapshot, Workload};

/// The route of `flow`; `None` when no listener claims its destination, or none of a mesh listener's rules
/// matches: such a connection goes to the address that the client dialled.
///
/// # Errors
/// [`Error::NoRoute`] for a gateway's connection that no rule matches: there is no address to pass it on to.
pub fn select<'a>(snapshot: &'a Snapshot, flow: &Flow<'_>) -> Result<Option<&'a Arc<Route>>, Error> {
    match flow.door {
        Door::Mesh => Ok(snapshot.listener(flow.destination).and_then(|listener| matching(listener, flow))),
        Door::Gateway(bind) => snapshot
            .gateways
            .get(&bind)
            .and_then(|listener| matching(listener, flow))
            .map(Some)
            .ok_or(Error::NoRoute(flow.destination)),
    }
}

/// One of the route's clusters, by weight. `draw` is uniform over all of u64.
#[must_use]
pub fn draw(route: &Route, draw: u64) -> &Arc<Cluster> {
    let weights = || route.destinations.iter().map(|destination| destination.weight);
    let point = pick::scale(draw, weights().sum());
    let index = pick::weighted(point, weights()).unwrap_or_default();
    &route.destinations[index].cluster
}

fn matching<'a>(listener: &'a Listener, flow: &Flow<'_>) -> Option<&'a Arc<Route>> {
    let from = |one: &Match| one.source_subnet.is_none_or(|subnet| subnet.contains(&flow.source.ip()));
    first(
        listener,
        |one| is_of(one, flow.workload) && from(one) && one.hears(flow.sniffed),
        |subnet| subnet.contains(&flow.destination.ip()),
    )
}

/// The route of connections of `workload` to any address of `destination` that no rule's longer prefix holds, as far as
/// that can be told without the client's address.
pub(crate) fn statically<'a>(
    listener: &'a Listener,
    destination: IpNet,
    workload: &Workload,
) -> Option<&'a Arc<Route>> {
    first(listener, |one| is_of(one, workload), |subnet| subnet.contains(&destination))
}

/// The rule that Istio's filter chains would pick (istio-semantics: a match without subnets ends the list; of
/// the matches with subnets before it, the longest prefix wins, then the order). `admits` decides everything but the
/// destination, `holds` whether a subnet has it.
fn first(
    listener: &Listener,
    admits: impl Fn(&Match) -> bool,
    holds: impl Fn(&IpNet) -> bool,
) -> Option<&Arc<Route>> {
    let mut best: Option<(u8, &Arc<Route>)> = None;
    for rule in &listener.rules {
        let any = rule.matches.is_empty().then_some(0);
        let matched = rule.matches.iter().filter(|one| admits(one));
        for length in any.into_iter().chain(matched.filter_map(|one| longest_prefix(one, &holds))) {
            if best.is_none_or(|(longest, _)| longest < length) {
                best = Some((length, &rule.route));
            }
        }
        if any.is_some() || rule.matches.iter().any(|one| is_terminal(one) && admits(one)) {
            break;
        }
    }
    best.map(|(_, route)| route)
}

/// Whether a match ends the list for the flows it admits.
fn is_terminal(one: &Match) -> bool {
    one.destination_subnets.is_empty()
}

/// Whether the workload's namespace and labels fit.
fn is_of(one: &Match, workload: &Workload) -> bool {
    let labels = &workload.labels;
    one.source_namespace.as_ref().is_none_or(|namespace| *namespace == workload.namespace)
        && one.source_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Length of the longest of the match's prefixes that holds the destination; 0 where it names none.
fn longest_prefix(one: &Match, holds: impl Fn(&IpNet) -> bool) -> Option<u8> {
    if is_terminal(one) {
        return Some(0);
    }
    one.destination_subnets.iter().filter(|subnet| holds(subnet)).map(IpNet::prefix_len).max()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{ClusterName, Destination, Host, Map, Rule, Sniffed, SubnetListener};

    const DIALLED: &str = "10.0.0.5:80";

    /// Conditions as rows write them: `to NET`, `from NET`, `in NAMESPACE`, `label KEY=VALUE`, `any`.
    fn condition(text: &str) -> Match {
        let mut one = Match::default();
        for part in text.split(" and ") {
            match part.split_once(' ') {
                Some(("to", net)) => one.destination_subnets.push(net.parse().unwrap()),
                Some(("from", net)) => one.source_subnet = Some(net.parse().unwrap()),
                Some(("in", namespace)) => one.source_namespace = Some(namespace.to_owned()),
                Some(("label", label)) => {
                    let (key, value) = label.split_once('=').unwrap();
                    one.source_labels.insert(key.to_owned(), value.to_owned());
                }
                _ => assert_eq!(part, "any"),
            }
        }
        one
    }

    /// A rule `CONDITION or CONDITION`; its route has the rule's own text as its name. Empty: every flow.
    fn rule(text: &str) -> Rule {
        let matches = text.split(" or ").filter(|one| !one.is_empty()).map(condition).collect();
        let cluster = Arc::new(Cluster::passthrough(std::time::Duration::from_secs(1)));
        let destinations = vec![Destination { weight: 1, cluster }];
        Rule { matches, route: Arc::new(Route { name: text.to_owned(), destinations }) }
    }

    fn listener(rules: &[&str]) -> Arc<Listener> {
        let rules = rules.iter().map(|text| rule(text)).collect();
        Arc::new(Listener { name: String::new(), rules, ..Listener::default() })
    }

    /// Who dials: `default/client` with labels app=a and version=v1.
    fn client() -> Workload {
        let labels = [("app", "a"), ("version", "v1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        Workload {
            name: "client".to_owned(),
            namespace: "default".to_owned(),
            labels: BTreeMap::from(labels),
        }
    }

    /// The name of the route that a flow from 10.2.0.7 takes; `None` when it goes where it was going.
    fn selected(snapshot: &Snapshot, door: Door, destination: &str) -> Result<Option<String>, Error> {
        let workload = client();
        let source = "10.2.0.7:40000".parse().unwrap();
        let flow = Flow {
            door,
            workload: &workload,
            source,
            destination: destination.parse().unwrap(),
            sniffed: &Sniffed::Nothing,
        };
        Ok(select(snapshot, &flow)?.map(|route| route.name.clone()))
    }

    #[test]
    fn the_rule_that_istio_would_pick_is_picked() {
        for (rules, want) in [
            (&[""][..], Some("")),
            (&[], None),
            (&["in other"], None),
            (&["in default", ""], Some("in default")),
            (&["in other", "in default"], Some("in default")),
            (&["in other or in default"], Some("in other or in default")),
            (&["any", "in default"], Some("any")),
            (&["label app=a"], Some("label app=a")),
            (&["label app=a and label version=v1"], Some("label app=a and label version=v1")),
            (&["label app=a and label version=v2"], None),
            (&["label zone=x"], None),
            (&["from 10.2.0.0/16", ""], Some("from 10.2.0.0/16")),
            (&["from 10.3.0.0/16", ""], Some("")),
            (&["from ::/0", ""], Some("")),
            (&["to 10.0.0.0/8", ""], Some("to 10.0.0.0/8")),
            (&["to 11.0.0.0/8", ""], Some("")),
            // Among matches with subnets the longest prefix wins, then the order.
            (&["to 10.0.0.0/8", "to 10.0.0.5/32", ""], Some("to 10.0.0.5/32")),
            (&["to 10.0.0.5/32", "to 10.0.0.0/8", ""], Some("to 10.0.0.5/32")),
            (&["to 10.0.0.0/8 or to 10.0.0.0/24", "to 10.0.0.0/16"], Some("to 10.0.0.0/8 or to 10.0.0.0/24")),
            (&["to 10.0.0.0/8 and in default", "to 10.0.0.0/8"], Some("to 10.0.0.0/8 and in default")),
            (&["to 10.0.0.0/8 and in other", "to 10.0.0.0/8"], Some("to 10.0.0.0/8")),
            // A rule without subnets that admits the flow ends the list, and loses to a prefix before it.
            (&["in default", "to 10.0.0.5/32"], Some("in default")),
            (&["in other", "to 10.0.0.5/32"], Some("to 10.0.0.5/32")),
            (&["to 10.0.0.0/8", "in default", "to 10.0.0.5/32"], Some("to 10.0.0.0/8")),
        ] {
            let listeners = Map::from([(DIALLED.parse().unwrap(), listener(rules))]);
            let snapshot = Snapshot { listeners, ..Snapshot::default() };
            let got = selected(&snapshot, Door::Mesh, DIALLED).unwrap();
            assert_eq!(got.as_deref(), want, "{rules:?}");
        }
    }

    #[test]
    fn the_exact_address_claims_before_the_longest_prefix() {
        let range = |subnet: &str, port, name| SubnetListener {
            subnet: subnet.parse().unwrap(),
            port,
            listener: listener(&[name]),
        };
        let listeners = Map::from([(DIALLED.parse().unwrap(), listener(&[""]))]);
        let subnets = vec![range("10.0.0.0/16", 80, "in default"), range("0.0.0.0/0", 80, "any")];
        let snapshot = Snapshot { listeners, subnets, ..Snapshot::default() };
        for (destination, want) in [
            (DIALLED, Some("")),
            ("10.0.0.6:80", Some("in default")),
            ("10.1.0.6:80", Some("any")),
            ("10.0.0.5:81", None),
            ("[2001:db8::1]:80", None),
        ] {
            let got = selected(&snapshot, Door::Mesh, destination).unwrap();
            assert_eq!(got.as_deref(), want, "{destination}");
        }
    }

    #[test]
    fn a_gateway_refuses_what_no_rule_takes() {
        let bind = "0.0.0.0:31400".parse().unwrap();
        let gateways = Map::from([(bind, listener(&["from 10.2.0.0/16"]))]);
        let snapshot = Snapshot { gateways, ..Snapshot::default() };
        let got = selected(&snapshot, Door::Gateway(bind), "127.0.0.1:31400").unwrap();
        assert_eq!(got.as_deref(), Some("from 10.2.0.0/16"));
        let other = Map::from([(bind, listener(&["from 10.3.0.0/16"]))]);
        for gateways in [other, Map::new()] {
            let snapshot = Snapshot { gateways, ..Snapshot::default() };
            let error = selected(&snapshot, Door::Gateway(bind), "127.0.0.1:31400").unwrap_err();
            assert_eq!(error.flag().as_str(), "NR");
        }
    }

    #[test]
    fn a_draw_falls_into_the_share_of_its_cluster() {
        let arm = |weight, port| {
            let name = ClusterName::outbound(port, "", "a");
            let cluster = Cluster { name, ..Cluster::passthrough(std::time::Duration::from_secs(1)) };
            Destination { weight, cluster: Arc::new(cluster) }
        };
        let route =
            Route { name: String::new(), destinations: vec![arm(0, 1), arm(3, 2), arm(0, 3), arm(1, 4)] };
        for (point, want) in [(0, 2), (u64::MAX / 4 * 3 - 1, 2), (u64::MAX / 4 * 3 + 3, 4), (u64::MAX, 4)] {
            assert_eq!(draw(&route, point).name, ClusterName::outbound(want, "", "a"), "{point}");
        }
    }

    #[test]
    fn a_snapshot_of_names_claims_nothing() {
        let host = Host {
            namespace: "default".to_owned(),
            addresses: vec!["10.0.0.5".parse().unwrap()],
            exported: None,
        };
        let snapshot = Snapshot::with_hosts(BTreeMap::from([("a".to_owned(), host)]));
        assert_eq!(selected(&snapshot, Door::Mesh, DIALLED).unwrap(), None);
    }
}
