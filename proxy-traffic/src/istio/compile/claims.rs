//! Which service has which addresses: the oldest one wins what two claim.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry as Place},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Problems, anywhere, entry::Entry, registry::Registry, tallies::Tallies};
use crate::{Host, Map};

/// Every address.
pub(super) const ANY: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// Who has what. Each port of each captured service has a number, the oldest service's the lowest.
#[derive(Default)]
pub(super) struct Claims {
    /// The number of a service's first port.
    first: BTreeMap<String, usize>,
    pub(super) ports: Vec<Held>,
    /// Every range, longest prefix first, then by port; with the number of the port that has it.
    pub(super) ranges: Vec<(IpNet, u16, usize)>,
}

/// What one port of a service has; nothing, if others were older.
pub(super) struct Held {
    /// The listener's name: host and port.
    pub(super) name: String,
    pub(super) exact: Vec<SocketAddr>,
    pub(super) ranges: Vec<IpNet>,
}

impl Claims {
    /// Gives every captured service what it claims.
    pub(super) fn new(
        registry: &Registry,
        hosts: &Map<String, Host>,
        tallies: &Tallies,
        problems: &mut Problems,
    ) -> Self {
        let mut claims = Self::default();
        let (mut exact, mut ranges) = (BTreeMap::new(), BTreeMap::new());
        for (host, entry) in registry.by_age().into_iter().filter(|(_, entry)| entry.is_captured()) {
            // A wildcard has addresses of its own and no name to dial.
            let addresses = hosts.get(host).map_or(&entry.addresses, |host| &host.addresses);
            claims.first.insert(host.to_owned(), claims.ports.len());
            for port in &entry.ports {
                let name = format!("{host}:{}", port.number);
                claims.ports.push(Held { name, exact: Vec::new(), ranges: Vec::new() });
                claims.claim(addresses, entry, port.number, &mut exact, problems);
                claims.claim_ranges(entry, port.number, &mut ranges, problems);
            }
        }
        for port in tallies.ports() {
            let name = anywhere::pseudonym(port);
            claims.first.insert(name.clone(), claims.ports.len());
            claims.ports.push(Held { name, exact: Vec::new(), ranges: Vec::new() });
            for any in ANY {
                let hosts = tallies.hosts(port).filter_map(|host| registry.get(host));
                claims.claim_any(any, port, hosts, &mut ranges, problems);
            }
        }
        for (address, number) in exact {
            claims.ports[number].exact.push(address);
        }
        claims.ranges = ranges.into_iter().map(|((subnet, port), number)| (subnet, port, number)).collect();
        claims.ranges.sort_by_key(|(subnet, port, _)| (Reverse(subnet.prefix_len()), *port, *subnet));
        for (subnet, _, number) in &claims.ranges {
            claims.ports[*number].ranges.push(*subnet);
        }
        claims
    }

    /// The number of a host's first port, if it is captured.
    pub(super) fn first(&self, host: &str) -> Option<usize> {
        self.first.get(host).copied()
    }

    /// Gives the last port its addresses.
    fn claim(
        &self,
        addresses: &[IpAddr],
        entry: &Entry,
        port: u16,
        exact: &mut BTreeMap<SocketAddr, usize>,
        problems: &mut Problems,
    ) {
        for address in addresses {
            if address.is_loopback() {
                let what = format!(
                    "{address} never leaves its host, so nothing on it is captured; use another address, or none at all"
                );
                problems.warn(&entry.source, "addresses", what);
                continue;
            }
            match exact.entry(SocketAddr::new(*address, port)) {
                Place::Vacant(place) => drop(place.insert(self.ports.len() - 1)),
                Place::Occupied(place) => {
                    let owner = &self.ports[*place.get()].name;
                    let what = format!("{} belongs to {owner} already, which is older", place.key());
                    problems.warn(&entry.source, "addresses", what);
                }
            }
        }
    }

    /// Gives the last port all addresses, on behalf of `hosts`. Who wrote the range down himself meant it so.
    fn claim_any<'e>(
        &self,
        any: IpNet,
        port: u16,
        hosts: impl Iterator<Item = &'e Arc<Entry>>,
        ranges: &mut BTreeMap<(IpNet, u16), usize>,
        problems: &mut Problems,
    ) {
        match ranges.entry((any, port)) {
            Place::Vacant(place) => drop(place.insert(self.ports.len() - 1)),
            Place::Occupied(place) => {
                let owner = &self.ports[*place.get()].name;
                let what = format!(
                    "without any, it is told apart by name, but {any}:{port} belongs to {owner}, which takes all names"
                );
                hosts.for_each(|entry| problems.warn(&entry.source, "addresses", what.clone()));
            }
        }
    }

    /// Gives the last port its ranges.
    fn claim_ranges(
        &self,
        entry: &Entry,
        port: u16,
        ranges: &mut BTreeMap<(IpNet, u16), usize>,
        problems: &mut Problems,
    ) {
        for subnet in entry.subnets.iter().copied() {
            match ranges.entry((subnet, port)) {
                Place::Vacant(place) => drop(place.insert(self.ports.len() - 1)),
                Place::Occupied(place) => {
                    let owner = &self.ports[*place.get()].name;
                    let what = format!("{subnet}:{port} belongs to {owner} already, which is older");
                    problems.warn(&entry.source, "addresses", what);
                }
            }
        }
    }
}

impl Held {
    /// Its addresses, and then its ranges.
    pub(super) fn nets(&self) -> impl Iterator<Item = IpNet> {
        self.exact.iter().map(|address| address.ip().into()).chain(self.ranges.iter().copied())
    }
}
