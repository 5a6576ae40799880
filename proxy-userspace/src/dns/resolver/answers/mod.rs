//! Which of a resolver's records are an answer, and which of their addresses we may go to.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use hickory_proto::rr::{Name, RData, Record, RecordType, rdata::CNAME};
use proxy_common::egress::is_off_limits;
use proxy_traffic::Lookup;

/// The shortest and the longest time that an answer holds.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(3600);
/// How many addresses of a name are used.
const MOST: usize = 64;
/// How many names a name may stand for in turn.
const LONGEST_CHAIN: usize = 8;

/// What a name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// In the order of the answer, each once.
    pub(super) addresses: Vec<IpAddr>,
    /// For how long.
    pub(super) lifetime: Duration,
}

impl Default for Found {
    fn default() -> Self {
        Self { addresses: Vec::new(), lifetime: SHORTEST }
    }
}

impl Found {
    /// What both have.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.lifetime = match (self.addresses.is_empty(), other.addresses.is_empty()) {
            (true, _) => other.lifetime,
            (_, true) => self.lifetime,
            _ => self.lifetime.min(other.lifetime),
        };
        self.addresses.extend(other.addresses);
        self.addresses.truncate(MOST);
        self
    }
}

/// What `records` say of `name`, itself or by the names that it stands for. What they say of others is nothing to us.
pub(super) fn found(name: &Name, kind: RecordType, records: &[Record], lookup: &Lookup) -> Found {
    let mut owner = name;
    let mut seconds = u32::MAX;
    for _ in 0..=LONGEST_CHAIN {
        let alias = records.iter().find_map(|record| match &record.data {
            RData::CNAME(CNAME(target)) if record.name == *owner => Some((target, record.ttl)),
            _ => None,
        });
        let Some((target, ttl)) = alias else {
            return of_owner(owner, kind, seconds, records, lookup);
        };
        (owner, seconds) = (target, seconds.min(ttl));
    }
    Found::default()
}

fn of_owner(owner: &Name, kind: RecordType, seconds: u32, records: &[Record], lookup: &Lookup) -> Found {
    let mut seconds = seconds;
    let mut addresses = Vec::new();
    for record in records.iter().filter(|record| record.name == *owner && record.record_type() == kind) {
        let Some(address) = record.data.ip_addr().filter(|address| may_use(*address, lookup)) else {
            continue;
        };
        if addresses.len() < MOST && !addresses.contains(&address) {
            addresses.push(address);
            seconds = seconds.min(record.ttl);
        }
    }
    let lifetime = Duration::from_secs(seconds.into()).clamp(SHORTEST, LONGEST);
    if addresses.is_empty() { Found::default() } else { Found { addresses, lifetime } }
}

/// Whether an answer may send us to `address`: not into the machine, its surroundings or, for a name from outside, the network
/// inside, unless an entry names the address itself. "Any address" names none.
fn may_use(address: IpAddr, lookup: &Lookup) -> bool {
    let mut named = lookup.allowed.iter().filter(|range| range.prefix_len() > 0);
    if address.to_canonical() != address {
        return false;
    }
    named.any(|range| range.contains(&address))
        || !(is_off_limits(address) || (lookup.external && is_inside(address)))
}

/// Whether `address` belongs to a network of somebody's own, or to nobody.
fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_inside4(address),
        IpAddr::V6(address) => is_inside6(address),
    }
}

fn is_inside4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let shared = first == 100 && second & 0xc0 == 64;
    let assignments = (first, second, third) == (192, 0, 0);
    let benchmarks = first == 198 && second & 0xfe == 18;
    // 0/8 is this network; 240/4 is reserved, and the mesh's own addresses are of it.
    address.is_private() || shared || assignments || benchmarks || first == 0 || first >= 240
}

fn is_inside6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let own = segments[0] & 0xfe00 == 0xfc00 || segments[0] & 0xffc0 == 0xfec0;
    let given = segments[..3] == [0x2001, 2, 0];
    own || given || translated(segments).is_some_and(|v4| is_off_limits(v4.into()) || is_inside4(v4))
}

/// The IPv4 address that packets to an IPv6 one may be translated to: NAT64, 6to4, IPv4-compatible.
fn translated(segments: [u16; 8]) -> Option<Ipv4Addr> {
    let (high, low) = match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests;
