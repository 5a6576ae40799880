//! Services → the listeners that capture workloads' connections.

use std::sync::Arc;

use super::{
    Problems,
    anywhere::exported,
    cluster::Clusters,
    entry::{Entry, Port},
    protocol::Protocol,
    registry::Registry,
    rules::{At, Bindings},
    verdict::{Draft, Wishes},
};
use crate::{Destination, Listener, Route, Rule};

/// A listener for each port of `host`, if it is captured.
pub(super) fn drafts(
    host: &str,
    bindings: &Bindings,
    clusters: &mut Clusters<'_>,
    problems: &mut Problems,
) -> Vec<Draft> {
    let Some(entry) = clusters.registry.get(host).filter(|entry| entry.is_captured()) else {
        return Vec::new();
    };
    entry.ports.iter().map(|port| draft(host, entry, port, bindings, clusters, problems)).collect()
}

/// The rules that hold at one port, in config order, and the service itself for what they leave over.
fn draft(
    host: &str,
    entry: &Entry,
    port: &Port,
    bindings: &Bindings,
    clusters: &mut Clusters<'_>,
    problems: &mut Problems,
) -> Draft {
    let mut wishes = entry.wishes.clone();
    let rules = rules(host, entry, port, bindings, clusters, problems, &mut wishes);
    let listener = Listener { name: format!("{host}:{}", port.number), rules, ..Listener::default() };
    Draft { listener, wishes }
}

/// The rules alone, where others have a say in the rest.
pub(super) fn rules(
    host: &str,
    entry: &Entry,
    port: &Port,
    bindings: &Bindings,
    clusters: &mut Clusters<'_>,
    problems: &mut Problems,
    wishes: &mut Wishes,
) -> Vec<Rule> {
    let at = At::Mesh(port.number);
    let mut rules = Vec::new();
    let mut complete = false;
    for item in bindings.on(host) {
        if port.protocol == Protocol::Tcp {
            if complete && Bindings::applies(item, at) {
                let what = format!(
                    "are never reached at {host}:{}: an older rule takes every connection",
                    port.number
                );
                problems.warn(item, "tcp", what);
            }
            let before = rules.len();
            complete = complete || bindings.compile(item, at, &mut rules, clusters, problems);
            if rules.len() > before {
                wishes.join(Wishes::of(item));
            }
        } else if Bindings::applies(item, at) {
            let what = format!(
                "do not apply to port {} of {host}, which is named for {:?}; name it tcp or tcp-…",
                port.number, port.protocol
            );
            problems.warn(item, "tcp", what);
        }
    }
    if !complete {
        let (cluster, _) = clusters.get(host, port.number, "");
        let destinations = vec![Destination { weight: 1, cluster }];
        let route = Arc::new(Route { name: entry.service.host.clone(), destinations });
        rules.push(Rule { matches: Vec::new(), route });
    }
    exported(entry, rules)
}

/// Hosts of the mesh that no service has: their rules wait for one.
pub(super) fn report_idle(registry: &Registry, bindings: &Bindings, problems: &mut Problems) {
    for (item, hosts) in bindings.all() {
        let in_mesh =
            item.spec.gateways.is_empty() || item.spec.gateways.iter().any(|gateway| gateway == "mesh");
        for (index, host) in hosts.iter().enumerate().filter(|_| in_mesh && !item.spec.tcp.is_empty()) {
            if !registry.has(host) {
                let what = format!(
                    "no Service or ServiceEntry has the host {host}: its rules have no effect in the mesh"
                );
                problems.warn(item, format!("hosts[{index}]"), what);
            }
        }
    }
}
