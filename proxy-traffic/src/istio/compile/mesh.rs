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
};
use crate::{Destination, Host, Listener, Route, Rule, SubnetListener, istio::names};

/// Listeners by address, and by range.
type Listeners = (BTreeMap<SocketAddr, Arc<Listener>>, Vec<SubnetListener>);

/// A listener for each port of each captured service; the oldest service wins an address that two claim.
pub(super) fn listeners(
    registry: &Registry<'_>,
    hosts: &BTreeMap<String, Host>,
    bindings: &Bindings<'_>,
    clusters: &mut Clusters<'_>,
    problems: &mut Problems,
) -> Listeners {
    let (mut listeners, mut subnets) = (BTreeMap::new(), Vec::new());
    for (host, entry) in registry.by_age().into_iter().filter(|(_, entry)| entry.is_captured()) {
        // A wildcard has addresses of its own and no name to dial.
        let addresses = hosts.get(host).map_or(&entry.addresses, |host| &host.addresses);
        for port in &entry.ports {
            let listener = Arc::new(listener(host, entry, port, bindings, clusters, problems));
            claim(addresses, entry, port.number, &listener, &mut listeners, problems);
            claim_subnets(entry, port.number, &listener, &mut subnets, problems);
        }
    }
    let order = |one: &SubnetListener| (std::cmp::Reverse(one.subnet.prefix_len()), one.port, one.subnet);
    subnets.sort_by_key(order);
    report_unbound(registry, bindings, problems);
    (listeners, subnets)
}

fn claim(
    addresses: &[IpAddr],
    entry: &Entry<'_>,
    port: u16,
    listener: &Arc<Listener>,
    listeners: &mut BTreeMap<SocketAddr, Arc<Listener>>,
    problems: &mut Problems,
) {
    for address in addresses {
        if address.is_loopback() {
            let what = format!(
                "{address} never leaves its host, so nothing on it is captured; use another address, or none at all"
            );
            problems.warn(entry.source, "addresses", what);
            continue;
        }
        match listeners.entry(SocketAddr::new(*address, port)) {
            btree_map::Entry::Vacant(place) => {
                place.insert(listener.clone());
            }
            btree_map::Entry::Occupied(place) => {
                let what = format!("{} belongs to {} already, which is older", place.key(), place.get().name);
                problems.warn(entry.source, "addresses", what);
            }
        }
    }
}

fn claim_subnets(
    entry: &Entry<'_>,
    port: u16,
    listener: &Arc<Listener>,
    subnets: &mut Vec<SubnetListener>,
    problems: &mut Problems,
) {
    for subnet in entry.subnets.iter().copied() {
        if let Some(other) = subnets.iter().find(|other| (other.subnet, other.port) == (subnet, port)) {
            let what = format!("{subnet}:{port} belongs to {} already, which is older", other.listener.name);
            problems.warn(entry.source, "addresses", what);
        } else {
            subnets.push(SubnetListener { subnet, port, listener: listener.clone() });
        }
    }
}

/// The rules that hold at one port, in config order, and the service itself for what they leave over.
fn listener(
    host: &str,
    entry: &Entry<'_>,
    port: &Port<'_>,
    bindings: &Bindings<'_>,
    clusters: &mut Clusters<'_>,
    problems: &mut Problems,
) -> Listener {
    let at = At::Mesh(port.number);
    let mut rules = Vec::new();
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
            complete = complete || bindings.compile(item, at, &mut rules, clusters, problems);
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
    Listener { name: format!("{host}:{}", port.number), rules, steer: None }
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
