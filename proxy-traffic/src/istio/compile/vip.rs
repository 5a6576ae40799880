//! Which addresses each host has: its own, else one out of 240.240.0.0/16 that stays with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use super::{
    Problems,
    entry::Entry,
    registry::{Registry, Touched},
};
use crate::{Host, Map};

/// First two octets of every address that we give.
const PREFIX: [u8; 2] = [240, 240];
/// How many addresses there are to give: neither the first nor the last of the range.
const ROOM: u64 = 0xfffe;

/// Makes `hosts` every host that can be dialled. A host keeps what it had there; new ones start looking at a place that
/// only their name decides, so that the order in which resources appear does not matter much either.
pub(super) fn allocate(registry: &Registry, hosts: &mut Map<String, Host>, problems: &mut Problems) {
    let mut taken: BTreeSet<IpAddr> =
        registry.by_host().flat_map(|(_, entry)| &entry.addresses).copied().collect();
    let mut wanted = BTreeMap::new();
    let mut waiting = Vec::new();
    for (name, entry) in registry.by_host().filter(|(name, _)| !is_wildcard(name)) {
        if let Some(addresses) = own(entry) {
            wanted.insert(name.to_owned(), host(entry, addresses));
        } else if let Some(address) = kept(name, hosts).filter(|address| taken.insert(*address)) {
            wanted.insert(name.to_owned(), host(entry, vec![address]));
        } else {
            waiting.push((name, entry));
        }
    }
    for (name, entry) in waiting {
        let Some(address) = free(name, &taken) else {
            problems.warn(&entry.source, "", format!("no address is left in 240.240.0.0/16 for {name}"));
            continue;
        };
        taken.insert(address);
        wanted.insert(name.to_owned(), host(entry, vec![address]));
    }
    wanted.retain(|_, host| !host.addresses.is_empty());
    hosts.assign(wanted, |one, other| one == other);
}

/// As [`allocate`] where nobody's claims changed: what is left are hosts that stand for their workloads.
pub(super) fn follow(registry: &Registry, touched: &Touched, hosts: &mut Map<String, Host>) {
    for name in touched.keys() {
        let Some(entry) = registry.get(name).filter(|entry| entry.headless && !is_wildcard(name)) else {
            continue;
        };
        let now = Some(host(entry, own(entry).unwrap_or_default())).filter(|one| !one.addresses.is_empty());
        if hosts.get(name) != now.as_ref() {
            match now {
                Some(host) => drop(hosts.insert(name.clone(), host)),
                None => drop(hosts.remove(name)),
            }
        }
    }
}

/// A name that nobody can dial.
fn is_wildcard(name: &str) -> bool {
    name.starts_with('*')
}

fn host(entry: &Entry, addresses: Vec<IpAddr>) -> Host {
    let exported = entry.exported.clone();
    Host { namespace: entry.service.namespace.clone(), addresses, exported }
}

/// The addresses of a host that needs none of ours; they may be none.
fn own(entry: &Entry) -> Option<Vec<IpAddr>> {
    if entry.headless {
        let instances = entry.ports.iter().flat_map(|port| &port.instances);
        let unique: BTreeSet<_> = instances.map(|instance| instance.address.ip()).collect();
        return Some(unique.into_iter().collect());
    }
    let has_some = !entry.addresses.is_empty() || !entry.subnets.is_empty();
    let needs_none =
        has_some || !entry.is_captured() || !entry.resolution.has_endpoints() || entry.ports.is_empty();
    needs_none.then(|| entry.addresses.clone())
}

/// What `host` had, if it was ours to give.
fn kept(host: &str, hosts: &Map<String, Host>) -> Option<IpAddr> {
    let [address @ IpAddr::V4(v4)] = hosts.get(host)?.addresses[..] else { return None };
    let [a, b, c, d] = v4.octets();
    let place = u16::from_be_bytes([c, d]);
    ([a, b] == PREFIX && place != 0 && place != u16::MAX).then_some(address)
}

/// The first free address from the place that `host` hashes to.
fn free(host: &str, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let start = hash(host) % ROOM;
    let places = (0..ROOM).map(|step| (start + step) % ROOM + 1);
    let mut addresses = places.map(|place| {
        let [c, d] = (place as u16).to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(PREFIX[0], PREFIX[1], c, d))
    });
    addresses.find(|address| !taken.contains(address))
}

/// FNV-1a: the same in every build, which the standard library's hasher does not promise.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
