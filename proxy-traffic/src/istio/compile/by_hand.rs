//! One host of a ServiceEntry: who serves it, where its connections go, and what its datagrams may reach.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;

use super::{
    claims::ANY,
    entry::{Entry, Instance, Origin, Passing, Port, Resolved, instances},
    protocol::Protocol,
    resolution::{self, Resolution},
    selection::Workloads,
    verdict::Wishes,
    workload::Workload,
};
use crate::{
    Service,
    istio::{
        resource::{Item, ServiceEntry},
        scalar::TargetPort,
    },
};

/// What `item` makes of `host`, one of its own.
pub(super) fn of_service_entry(
    item: &Arc<Item<ServiceEntry>>,
    host: &str,
    workloads: &Workloads,
    resolved: &Resolved,
) -> Entry {
    let (spec, namespace) = (&item.spec, item.key.namespace.as_str());
    let host = host.to_ascii_lowercase();
    let (resolution, exported) = (Resolution::of(spec), resolution::exported(item));
    let mut serving = serving(item, &host, resolved);
    if let Some(selector) = &spec.workload_selector {
        serving.extend(workloads.serving(namespace, &selector.labels, false));
    }
    let (mut ports, mut datagrams) = (Vec::new(), BTreeSet::new());
    for port in &spec.ports {
        let protocol = Protocol::of_entry(&port.protocol, &port.name);
        let Some(number) = port.number.map(|number| number.0) else { continue };
        let target = port.target_port.map(|target| TargetPort::Number(target.0));
        let instances = instances(&serving, number, &port.name, target.as_ref());
        if protocol == Protocol::Datagram {
            // Who may see it is not asked of datagrams, but whether anybody may.
            if exported.as_ref().is_none_or(|namespaces| !namespaces.is_empty()) {
                datagrams.extend(ways(spec, resolution, number, &instances));
            }
            continue;
        }
        let other = port.target_port.map(|target| target.0).filter(|target| *target != number);
        ports.push(Port { number, protocol, instances, passing: passing(resolution, protocol, other) });
    }
    let ranges = spec.addresses.iter().filter(|subnet| subnet.single().is_none());
    Entry {
        service: Service { name: host.clone(), host, namespace: namespace.to_owned() },
        addresses: spec.addresses.iter().filter_map(|subnet| subnet.single()).collect(),
        subnets: ranges.map(|subnet| subnet.0).collect(),
        headless: false,
        selectorless: false,
        wishes: Wishes::of(item),
        resolution,
        exported,
        datagrams,
        ports,
        source: Origin::Entry(item.clone()),
    }
}

/// The endpoints that the entry writes down; for those that are names, what the names were found to be.
fn serving(item: &Arc<Item<ServiceEntry>>, host: &str, resolved: &Resolved) -> Vec<Arc<Workload>> {
    let resolution = Resolution::of(&item.spec);
    let found = |name: &str| {
        let all = resolved.get(name).map_or(&[][..], |addresses| addresses);
        let some = if resolution == Resolution::DnsRoundRobin { all.len().min(1) } else { all.len() };
        all[..some].to_vec()
    };
    let mut serving = Vec::new();
    if item.spec.endpoints.is_empty() {
        let names = resolution::names(&item.spec, host);
        let addresses = names.iter().flat_map(|name| found(name));
        serving.extend(addresses.map(|address| Workload::of_name(item, address)));
    }
    for (index, endpoint) in item.spec.endpoints.iter().enumerate() {
        match endpoint.address.parse() {
            Ok(address) => serving.push(Workload::inline(item, index, address)),
            Err(_) if resolution.looks_up() => {
                let addresses = found(&endpoint.address.to_ascii_lowercase()).into_iter();
                serving.extend(addresses.map(|address| Workload::inline(item, index, address)));
            }
            Err(_) => {}
        }
    }
    serving.into_iter().map(Arc::new).collect()
}

/// Where connections go of a port whose endpoints nobody knows. `target` is another port than the client's.
fn passing(resolution: Resolution, protocol: Protocol, target: Option<u16>) -> Option<Passing> {
    match (resolution, protocol) {
        (Resolution::None, Protocol::Http | Protocol::Tls) | (Resolution::Dynamic, _) => {
            Some(Passing::Name(target))
        }
        (Resolution::None, _) => Some(Passing::Address(target)),
        _ => None,
    }
}

/// Where datagrams to a port may go: to the entry's own addresses and its endpoints, or anywhere where it has neither and looks
/// nothing up.
fn ways(
    spec: &ServiceEntry,
    resolution: Resolution,
    port: u16,
    instances: &[Instance],
) -> BTreeSet<(IpNet, u16)> {
    let own = spec.addresses.iter().map(|net| (net.0, port));
    let serving = instances.iter().map(|one| (one.address.ip().into(), one.address.port()));
    let mut ways: BTreeSet<_> = own.chain(serving).collect();
    if ways.is_empty() && resolution == Resolution::None {
        ways.extend(ANY.map(|any| (any, port)));
    }
    ways
}
