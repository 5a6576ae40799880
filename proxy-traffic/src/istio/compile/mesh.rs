//! Services → the listeners that capture workloads' connections.

use std::{
    collections::{BTreeMap, btree_map},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    Problems,
    cluster::Clusters,
    protocol::Protocol,
    registry::{Entry, Port, Registry},
    rules::{At, Bindings},
    verdict::{Draft, Mesh, Wishes},
};
use crate::{Destination, Host, Listener, Route, Rule, istio::names};

/// A listener for each port of each captured service; the oldest service wins an address that two claim.
pub(super) fn listeners(
    registry: &Registry<'_>,
    hosts: &BTreeMap<String, Host>,
    bindings: &Bindings<'_>,
    clusters: &mut Clusters<'_>,
    problems: &mut Problems,
) -> Mesh {
    let mut mesh = Mesh::default();
    for (host, entry) in registry.by_age().into_iter().filter(|(_, entry)| entry.is_captured()) {
        // A wildcard has addresses of its own and no name to dial.
        let addresses = hosts.get(host).map_or(&entry.addresses, |host| &host.addresses);
        for port in &entry.ports {
            mesh.drafts.push(draft(host, entry, port, bindings, clusters, problems));
            claim(addresses, entry, port.number, &mut mesh, problems);
            claim_subnets(entry, port.number, &mut mesh, problems);
        }
    }
    mesh.ranges.sort_by_key(|(subnet, port, _)| (std::cmp::Reverse(subnet.prefix_len()), *port, *subnet));
    report_unbound(registry, bindings, problems);
    mesh
}

/// Gives the last draft its addresses.
fn claim(addresses: &[IpAddr], entry: &Entry<'_>, port: u16, mesh: &mut Mesh, problems: &mut Problems) {
    let last = mesh.drafts.len() - 1;
    for address in addresses {
        if address.is_loopback() {
            let what = format!(
                "{address} never leaves its host, so nothing on it is captured; use another address, or none at all"
            );
            problems.warn(entry.source, "addresses", what);
            continue;
        }
        match mesh.exact.entry(SocketAddr::new(*address, port)) {
            btree_map::Entry::Vacant(place) => {
                place.insert(last);
            }
            btree_map::Entry::Occupied(place) => {
                let owner = &mesh.drafts[*place.get()].listener.name;
                let what = format!("{} belongs to {owner} already, which is older", place.key());
                problems.warn(entry.source, "addresses", what);
            }
        }
    }
}

/// Gives the last draft its ranges.
fn claim_subnets(entry: &Entry<'_>, port: u16, mesh: &mut Mesh, problems: &mut Problems) {
    let last = mesh.drafts.len() - 1;
    for subnet in entry.subnets.iter().copied() {
        if let Some((.., other)) = mesh.ranges.iter().find(|(net, one, _)| (*net, *one) == (subnet, port)) {
            let owner = &mesh.drafts[*other].listener.name;
            let what = format!("{subnet}:{port} belongs to {owner} already, which is older");
            problems.warn(entry.source, "addresses", what);
        } else {
            mesh.ranges.push((subnet, port, last));
        }
    }
}

/// The rules that hold at one port, in config order, and the service itself for what they leave over.
fn draft(
    host: &str,
    entry: &Entry<'_>,
    port: &Port<'_>,
    bindings: &Bindings<'_>,
    clusters: &mut Clusters<'_>,
    problems: &mut Problems,
) -> Draft {
    let at = At::Mesh(port.number);
    let mut rules = Vec::new();
    let mut wishes = entry.wishes.clone();
    let mut complete = false;
    let own = bindings.all.iter().filter(|(_, hosts)| hosts.iter().any(|one| names::overlap(one, host)));
    for (item, _) in own {
        if port.protocol == Protocol::Tcp {
            if complete && Bindings::applies(item, at) {
                let what = format!(
                    "are never reached at {host}:{}: an older rule takes every connection",
                    port.number
                );
                problems.warn(*item, "tcp", what);
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
            problems.warn(*item, "tcp", what);
        }
    }
    if !complete {
        let (cluster, _) = clusters.get(host, port.number, "", problems);
        let destinations = vec![Destination { weight: 1, cluster }];
        let route = Arc::new(Route { name: entry.service.host.clone(), destinations });
        rules.push(Rule { matches: Vec::new(), route });
    }
    let listener = Listener { name: format!("{host}:{}", port.number), rules, steer: None };
    Draft { listener, wishes }
}

/// Hosts of the mesh that no service has: their rules wait for one.
fn report_unbound(registry: &Registry<'_>, bindings: &Bindings<'_>, problems: &mut Problems) {
    for (item, hosts) in &bindings.all {
        let in_mesh =
            item.spec.gateways.is_empty() || item.spec.gateways.iter().any(|gateway| gateway == "mesh");
        for (index, host) in hosts.iter().enumerate().filter(|_| in_mesh && !item.spec.tcp.is_empty()) {
            if !registry.has(host) {
                let what = format!(
                    "no Service or ServiceEntry has the host {host}: its rules have no effect in the mesh"
                );
                problems.warn(*item, format!("hosts[{index}]"), what);
            }
        }
    }
}
