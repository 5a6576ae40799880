//! Listener → entries: which keys it has in `LISTENERS` and `RANGES`, for which workloads, and what becomes of a
//! connection there. Pure.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};
use proxy_common::{Destination, ListenerKey, Subnet, v4_mapped};
use proxy_traffic::{Listener, Workload, datapath};

pub(super) use proxy_traffic::datapath::Decision;

/// What a listener claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    /// One whole address, or a range.
    pub(super) net: IpNet,
    pub(super) port: u16,
    /// Whether it is one of the snapshot's listeners on exact addresses, which come before all ranges.
    pub(super) exact: bool,
}

/// A key of `LISTENERS` (all bits) or of `RANGES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EntryKey {
    pub(super) exact: bool,
    pub(super) bits: u32,
    pub(super) key: ListenerKey,
}

/// A key of `STEERED` or `STEERED_RANGES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum SteeredKey {
    Exact(Destination),
    Range(u32, Subnet),
}

/// A class of workloads: those that no rule can tell apart.
pub(super) type Scope = (u32, Arc<Workload>);

/// What one listener comes to.
#[derive(Debug, Default)]
pub(super) struct Entries<'a> {
    pub(super) entries: Vec<(EntryKey, Decision<'a>)>,
    pub(super) steered: Vec<SteeredKey>,
}

impl Place {
    pub(super) fn exact(address: SocketAddr) -> Self {
        Self { net: address.ip().into(), port: address.port(), exact: true }
    }

    pub(super) fn range(subnet: IpNet, port: u16) -> Self {
        Self { net: subnet.trunc(), port, exact: false }
    }

    fn key(&self, net: IpNet, scope: u32) -> EntryKey {
        let key = ListenerKey {
            scope: scope.to_be_bytes(),
            port: self.port.to_be_bytes(),
            address: v4_mapped(net.addr()),
        };
        let bits = Subnet::new(net.addr(), net.prefix_len(), self.port).0 - 16 + ListenerKey::HEAD_BITS;
        EntryKey { exact: self.exact, bits, key }
    }

    fn steered(&self, net: IpNet) -> SteeredKey {
        let (bits, subnet) = Subnet::new(net.addr(), net.prefix_len(), self.port);
        match self.exact {
            true => SteeredKey::Exact(Destination { address: subnet.address, port: subnet.port }),
            false => SteeredKey::Range(bits, subnet),
        }
    }
}

/// The entries of `listener` at `place` for each of `scopes`. `is_taken` says whether a longer range on the same port
/// has a prefix, or is just that prefix.
pub(super) fn entries<'a>(
    place: Place,
    listener: &'a Listener,
    scopes: &[Scope],
    is_taken: impl Fn(IpNet) -> bool,
) -> Entries<'a> {
    let nets = match place.exact {
        true => vec![place.net],
        false => prefixes(place, listener, is_taken),
    };
    let everybody = [(0, Arc::new(nobody()))];
    let scopes = if datapath::depends_on_workload(listener) { scopes } else { &everybody };
    let mut all = Entries::default();
    for net in nets {
        for (scope, workload) in scopes {
            // What stands for addresses of the other family only keeps them out.
            let decision = match place.net.contains(&net) {
                true => datapath::decide(listener, net, workload),
                false => Decision::Pass,
            };
            let steered = place.steered(net);
            if matches!(decision, Decision::Steer(_)) && all.steered.last() != Some(&steered) {
                all.steered.push(steered);
            }
            all.entries.push((place.key(net, *scope), decision));
        }
    }
    all
}

/// Whether the entries of a range depend on which other ranges there are.
pub(super) fn looks_at_others(place: Place, listener: &Listener) -> bool {
    !place.exact && prefixes(place, listener, |_| false).len() > 1
}

fn prefixes(place: Place, listener: &Listener, is_taken: impl Fn(IpNet) -> bool) -> Vec<IpNet> {
    let mut all: Vec<_> = datapath::prefixes(listener, place.net).iter().map(IpNet::trunc).collect();
    // In the maps IPv4 is a part of IPv6; in Istio's words it is not.
    if holds_v4(place.net) {
        all.push(Ipv4Net::default().into());
    }
    all.sort();
    all.dedup();
    all.retain(|net| *net == place.net || !is_taken(*net));
    all
}

/// Whether a range of IPv6 has all v4-mapped addresses in it.
fn holds_v4(net: IpNet) -> bool {
    let mapped = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
    matches!(net, IpNet::V6(net) if net.prefix_len() < 96 && net.contains(&mapped))
}

/// A workload of whom nothing is known; asked for where nothing needs to be.
fn nobody() -> Workload {
    Workload { name: String::new(), namespace: String::new(), labels: Default::default() }
}

/// The same for workloads that no rule can tell apart, and after every start: so that a daemon that takes the maps over
/// finds each class of workloads under the number it had. Never 0.
pub(super) fn scope_number(workload: &Workload) -> u32 {
    let labels = workload.labels.iter().flat_map(|(key, value)| [key, value]);
    let words = [&workload.namespace].into_iter().chain(labels);
    let hash = words.fold(0, |hash, word| mix(hash, word));
    // Numbers at the very end would leave no way to probe on.
    ((hash >> 33) as u32).max(1)
}

/// By which a daemon that starts knows a cluster again.
pub(super) fn name_hash(name: &str) -> u64 {
    mix(0, name)
}

/// FNV-1a, then spread over all bits.
fn mix(seed: u64, text: &str) -> u64 {
    let start = seed ^ 0xcbf2_9ce4_8422_2325;
    // A byte that no text has ends each word.
    let bytes = text.bytes().chain([0xff]);
    let hash = bytes.fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    proxy_common::pick::mix(hash)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proxy_traffic::{Cluster, Match, Route, Rule, SteerReason};

    use super::*;

    /// Rules as rows write them: `app=web` for a label, `10.1.0.0/16` for a destination, nothing for everybody.
    fn listener(rules: &[&str]) -> Listener {
        let rule = |text: &&str| {
            let mut one = Match::default();
            match text.split_once('=') {
                Some((key, value)) => drop(one.source_labels.insert(key.to_owned(), value.to_owned())),
                None => one.destination_subnets.extend(text.parse::<IpNet>()),
            }
            let matches = if text.is_empty() { vec![] } else { vec![one] };
            let cluster = Arc::new(Cluster::passthrough(Duration::from_secs(1)));
            let destinations = vec![proxy_traffic::Destination { weight: 1, cluster }];
            Rule { matches, route: Arc::new(Route { name: (*text).to_owned(), destinations }) }
        };
        Listener { name: String::new(), rules: rules.iter().map(rule).collect(), ..Listener::default() }
    }

    fn scope(number: u32, app: &str) -> Scope {
        let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        (number, Arc::new(Workload { name: String::new(), namespace: "default".to_owned(), labels }))
    }

    /// `SCOPE ADDRESS/BITS DECISION` of each entry; ranges count the bits of IPv6.
    fn rows(place: Place, listener: &Listener, taken: &[&str]) -> Vec<String> {
        let scopes = [scope(3, "web"), scope(4, "api")];
        let taken: Vec<IpNet> = taken.iter().map(|net| net.parse().unwrap()).collect();
        let planned = entries(place, listener, &scopes, |net| taken.contains(&net));
        let row = |(at, decision): &(EntryKey, Decision<'_>)| {
            assert_eq!((at.exact, at.key.port), (place.exact, place.port.to_be_bytes()));
            let decision = match decision {
                Decision::Pass => "pass".to_owned(),
                Decision::Direct(route) => format!("to {:?}", route.name),
                Decision::Steer(_) => "steer".to_owned(),
            };
            let address = std::net::Ipv6Addr::from(at.key.address).to_canonical();
            let bits = at.bits - ListenerKey::HEAD_BITS;
            format!("{} {address}/{bits} {decision}", u32::from_be_bytes(at.key.scope))
        };
        planned.entries.iter().map(row).collect()
    }

    #[test]
    fn each_listener_stands_where_its_rules_differ_and_for_whom_they_do() {
        for (net, exact, rules, taken, want) in [
            ("10.0.0.1/32", true, &[""][..], &[][..], &["0 10.0.0.1/128 to \"\""][..]),
            ("fd00::1/128", true, &[], &[], &["0 fd00::1/128 pass"]),
            ("10.0.0.1/32", true, &["10.0.0.0/8"], &[], &["0 10.0.0.1/128 to \"10.0.0.0/8\""]),
            (
                "10.0.0.1/32",
                true,
                &["app=web", ""],
                &[],
                &["3 10.0.0.1/128 to \"app=web\"", "4 10.0.0.1/128 to \"\""],
            ),
            ("10.0.0.9/8", false, &[""], &[], &["0 10.0.0.0/104 to \"\""]),
            (
                "10.0.0.0/8",
                false,
                &["10.1.0.0/16"],
                &[],
                &["0 10.0.0.0/104 pass", "0 10.1.0.0/112 to \"10.1.0.0/16\""],
            ),
            (
                "10.0.0.0/8",
                false,
                &["10.1.0.0/16", "app=web"],
                &["10.1.0.0/16"],
                &["3 10.0.0.0/104 to \"app=web\"", "4 10.0.0.0/104 pass"],
            ),
            ("::/0", false, &[""], &[], &["0 0.0.0.0/96 pass", "0 ::/0 to \"\""]),
            ("::/0", false, &[""], &["0.0.0.0/0"], &["0 ::/0 to \"\""]),
            ("fd00::/8", false, &[""], &[], &["0 fd00::/8 to \"\""]),
        ] {
            let place = Place { exact, ..Place::range(net.parse().unwrap(), 80) };
            assert_eq!(rows(place, &listener(rules), taken), want, "{net} {rules:?}");
        }
    }

    #[test]
    fn what_is_steered_for_anybody_is_delivered_to_the_daemon() {
        let place = Place::range("10.0.0.0/8".parse().unwrap(), 80);
        let steered = Listener { steer: Some(SteerReason::Setting), ..listener(&["10.1.0.0/16", "app=web"]) };
        let planned = entries(place, &steered, &[], |_| false);
        let want = ["10.0.0.0", "10.1.0.0"].map(|address| address.parse::<Ipv4Addr>().unwrap());
        let keys = planned.steered.iter().map(|key| match key {
            SteeredKey::Range(_, subnet) => Ipv4Addr::from(std::array::from_fn(|at| subnet.address[12 + at])),
            SteeredKey::Exact(_) => panic!("a range"),
        });
        assert_eq!(keys.collect::<Vec<_>>(), want);
        assert!(entries(place, &listener(&[""]), &[], |_| false).steered.is_empty());
    }

    #[test]
    fn a_class_has_its_number_and_a_cluster_its_hash_after_every_start() {
        // Written down, because a daemon that takes maps over must come to what the one before it came to.
        let numbers = ["web", "api"].map(|app| scope_number(&scope(0, app).1));
        assert_eq!(numbers, [964_629_951, 392_220_696]);
        assert_eq!(name_hash("outbound|80||one"), 360_704_516_877_001_351);
    }
}
