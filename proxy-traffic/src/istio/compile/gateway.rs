//! Gateways → what this process itself listens on.

use std::{
    collections::{BTreeMap, btree_map},
    net::SocketAddr,
    sync::Arc,
};

use super::{
    Problems, Settings,
    cluster::Clusters,
    rules::{At, Bindings, gateway_path},
    verdict::reused,
};
use crate::{
    Listener, Map,
    istio::{
        names,
        resource::{Gateway, Item, Server, selects},
    },
};

/// Makes `listeners` one for each TCP server that a VirtualService is bound to; without one nobody listens.
pub(super) fn follow(
    gateways: &[Arc<Item<Gateway>>],
    listeners: &mut Map<SocketAddr, Arc<Listener>>,
    settings: &Settings,
    bindings: &Bindings,
    clusters: &mut Clusters<'_>,
    problems: &mut Problems,
) {
    let previous = listeners;
    let mut listeners = BTreeMap::new();
    for item in gateways {
        if !selects(&item.spec.selector, &settings.gateway_labels) {
            let labels: Vec<_> =
                settings.gateway_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            problems.warn(
                &**item,
                "selector",
                format!("selects another gateway; this one is {}", labels.join(", ")),
            );
            continue;
        }
        for (index, server) in item.spec.servers.iter().enumerate() {
            let Some(port) = server.tcp_port() else { continue };
            let Some(listener) = listener(item, server, port, bindings, clusters, problems) else { continue };
            let address = SocketAddr::new(server.bind_address().unwrap_or(settings.gateway_address), port);
            match listeners.entry(address) {
                btree_map::Entry::Vacant(place) => {
                    place.insert(reused(previous.get(&address), listener));
                }
                btree_map::Entry::Occupied(place) => {
                    let what =
                        format!("{address} belongs to {} already, which comes first", place.get().name);
                    problems.warn(&**item, format!("servers[{index}].port"), what);
                }
            }
        }
    }
    report_unbound(gateways, bindings, problems);
    previous.assign(listeners, Arc::ptr_eq);
}

/// The rules bound to one server: the first that takes every connection hides all others.
fn listener(
    item: &Item<Gateway>,
    server: &Server,
    port: u16,
    bindings: &Bindings,
    clusters: &mut Clusters<'_>,
    problems: &mut Problems,
) -> Option<Listener> {
    let path = item.path();
    let at = At::Gateway(&path, port);
    let mut rules = Vec::new();
    let mut winner = None;
    for (bound, hosts) in bindings.all() {
        let admitted = hosts.iter().any(|host| admits(item, server, &bound.key.namespace, host));
        if !admitted || !Bindings::applies(bound, at) {
            continue;
        }
        if let Some(winner) = &winner {
            let what = format!("are never reached at gateway {path}:{port}: {winner} takes every connection");
            problems.warn(bound, "tcp", what);
        } else if bindings.compile(bound, at, &mut rules, clusters, problems) {
            winner = Some(bound.key.to_string());
        }
    }
    (!rules.is_empty()).then(|| Listener {
        name: format!("gateway {path}:{port}"),
        rules,
        ..Listener::default()
    })
}

/// Whether one of the server's hosts (`namespace/host`) lets a VirtualService's host in.
fn admits(item: &Item<Gateway>, server: &Server, namespace: &str, host: &str) -> bool {
    server.hosts.iter().any(|admitted| {
        let (from, name) = admitted.split_once('/').unwrap_or(("*", admitted));
        let near = from == "*" || from == namespace || from == "." && item.key.namespace == namespace;
        near && names::overlap(&name.to_ascii_lowercase(), host)
    })
}

/// VirtualServices that name a gateway that is not there, or that no TCP server of it lets in.
fn report_unbound(gateways: &[Arc<Item<Gateway>>], bindings: &Bindings, problems: &mut Problems) {
    let gateways: BTreeMap<_, _> = gateways.iter().map(|item| (item.path(), &**item)).collect();
    for (bound, hosts) in bindings.all().filter(|(bound, _)| !bound.spec.tcp.is_empty()) {
        for (field, name) in named_gateways(bound) {
            let namespace = bound.key.namespace.as_str();
            let Some(path) = gateway_path(name, namespace) else { continue };
            let Some(gateway) = gateways.get(&path) else {
                problems.warn(bound, field, format!("there is no Gateway {path}"));
                continue;
            };
            let mut servers = gateway.spec.servers.iter().filter(|server| server.tcp_port().is_some());
            if !servers.any(|server| hosts.iter().any(|host| admits(gateway, server, namespace, host))) {
                let what = format!("no TCP server of Gateway {path} has {}", bound.spec.hosts.join(", "));
                problems.warn(bound, "hosts", what);
            }
        }
    }
}

/// Every gateway that a VirtualService names, with the field that names it.
fn named_gateways(bound: &Item<crate::istio::resource::VirtualService>) -> Vec<(String, &str)> {
    let top = bound.spec.gateways.iter().enumerate();
    let mut named: Vec<_> = top.map(|(index, name)| (format!("gateways[{index}]"), name.as_str())).collect();
    for (rule, tcp) in bound.spec.tcp.iter().enumerate() {
        for (number, one) in tcp.r#match.iter().enumerate() {
            let own = one.gateways.iter().enumerate();
            named.extend(own.map(|(index, name)| {
                (format!("tcp[{rule}].match[{number}].gateways[{index}]"), name.as_str())
            }));
        }
    }
    named
}
