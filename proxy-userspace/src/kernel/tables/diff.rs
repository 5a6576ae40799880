//! Two snapshots → the places where they differ. Looking at what is the same costs a comparison of pointers. Pure.

use std::{cell::OnceCell, cmp::Ordering, collections::HashMap, net::SocketAddr, sync::Arc};

use ipnet::IpNet;
use proxy_traffic::{Listener, Snapshot, SubnetListener};

use super::plan::{Place, looks_at_others};

/// A place and what claims it from now on.
pub(super) type Change<'a> = (Place, Option<&'a Arc<Listener>>);

/// The ranges of a snapshot by port and subnet, the first where there are two.
#[derive(Debug)]
pub(super) struct Ranges<'a> {
    snapshot: &'a Snapshot,
    /// Made when somebody asks: most changes are to no range.
    by_place: OnceCell<HashMap<Place, &'a Arc<Listener>>>,
}

impl<'a> Ranges<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, by_place: OnceCell::new() }
    }

    fn by_place(&self) -> &HashMap<Place, &'a Arc<Listener>> {
        self.by_place.get_or_init(|| {
            let mut by_place = HashMap::with_capacity(self.snapshot.subnets.len());
            for SubnetListener { subnet, port, listener } in &self.snapshot.subnets {
                by_place.entry(Place::range(*subnet, *port)).or_insert(listener);
            }
            by_place
        })
    }

    /// What claims `place`.
    pub(super) fn listener(&self, place: Place) -> Option<&'a Arc<Listener>> {
        match place.exact {
            true => self.snapshot.listeners.get(&SocketAddr::new(place.net.addr(), place.port)),
            false => self.by_place().get(&place).copied(),
        }
    }

    /// Whether a range inside `place` has `net`, or is `net`.
    pub(super) fn is_taken(&self, place: Place, net: IpNet) -> bool {
        // The only prefix of the other family is the one that keeps it out; its listener may be shorter than ours.
        let shortest =
            if same_family(place.net, net) { place.net.prefix_len() + 1 } else { net.prefix_len() };
        (shortest..=net.prefix_len()).any(|length| {
            let above = IpNet::new(net.addr(), length).map(|above| Place::range(above, place.port));
            above.is_ok_and(|above| self.by_place().contains_key(&above))
        })
    }
}

fn same_family(one: IpNet, other: IpNet) -> bool {
    one.addr().is_ipv4() == other.addr().is_ipv4()
}

/// Everything that `new` claims.
pub(super) fn all<'a>(new: &'a Snapshot, ranges: &Ranges<'a>) -> Vec<Change<'a>> {
    let exact = new.listeners.iter().map(|(address, listener)| (Place::exact(*address), Some(listener)));
    exact.chain(ranges.by_place().iter().map(|(place, listener)| (*place, Some(*listener)))).collect()
}

/// What is not in `new` as it was in `old`.
pub(super) fn changes<'a>(old: &Snapshot, new: &'a Snapshot, ranges: &Ranges<'a>) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    exact(old.listeners.iter(), new.listeners.iter(), &mut changes);
    if !same_ranges(&old.subnets, &new.subnets) {
        between(&Ranges::of(old), ranges, &mut changes);
    }
    changes
}

/// Walks both in the order of their addresses.
fn exact<'a, 'b>(
    old: impl Iterator<Item = (&'b SocketAddr, &'b Arc<Listener>)>,
    new: impl Iterator<Item = (&'a SocketAddr, &'a Arc<Listener>)>,
    changes: &mut Vec<Change<'a>>,
) {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((before, _)), Some((now, _))) => before.cmp(now),
        };
        let before = if order.is_le() { old.next() } else { None };
        let now = if order.is_ge() { new.next() } else { None };
        match (before, now) {
            (Some((_, before)), Some((_, now))) if Arc::ptr_eq(before, now) => {}
            (_, Some((address, now))) => changes.push((Place::exact(*address), Some(now))),
            (Some((address, _)), None) => changes.push((Place::exact(*address), None)),
            (None, None) => return,
        }
    }
}

fn same_ranges(old: &[SubnetListener], new: &[SubnetListener]) -> bool {
    let same = |one: &SubnetListener, other: &SubnetListener| {
        Arc::ptr_eq(&one.listener, &other.listener) && one.subnet == other.subnet && one.port == other.port
    };
    old.len() == new.len() && old.iter().zip(new).all(|(one, other)| same(one, other))
}

/// What changed, and every range whose entries depend on which others there are.
fn between<'a>(old: &Ranges<'_>, new: &Ranges<'a>, changes: &mut Vec<Change<'a>>) {
    for (place, listener) in new.by_place() {
        let same = old.by_place().get(place).is_some_and(|before| Arc::ptr_eq(before, listener));
        if !same || looks_at_others(*place, listener) {
            changes.push((*place, Some(*listener)));
        }
    }
    let gone = old.by_place().keys().filter(|place| !new.by_place().contains_key(place));
    changes.extend(gone.map(|place| (*place, None)));
}

#[cfg(test)]
mod tests {
    use proxy_traffic::{Match, Route, Rule};

    use super::*;

    fn listener(subnet: &str) -> Arc<Listener> {
        let one = Match { destination_subnets: subnet.parse().into_iter().collect(), ..Match::default() };
        let route = Arc::new(Route { name: String::new(), destinations: Vec::new() });
        Arc::new(Listener {
            name: String::new(),
            rules: vec![Rule { matches: vec![one], route }],
            ..Listener::default()
        })
    }

    fn snapshot(exact: &[(&str, &Arc<Listener>)], ranges: &[(&str, &Arc<Listener>)]) -> Snapshot {
        let listeners = exact.iter().map(|(at, one)| (at.parse().unwrap(), (*one).clone())).collect();
        let range = |(subnet, one): &(&str, &Arc<Listener>)| SubnetListener {
            subnet: subnet.parse().unwrap(),
            port: 80,
            listener: (*one).clone(),
        };
        Snapshot { listeners, subnets: ranges.iter().map(range).collect(), ..Snapshot::default() }
    }

    #[test]
    fn only_what_points_elsewhere_has_changed() {
        let [a, b, wide] = ["", "", "10.1.0.0/16"].map(listener);
        let (one, two, three) = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80");
        let (big, small, other) = ("10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8");
        let old = snapshot(&[(one, &a), (two, &a)], &[(small, &a), (big, &wide)]);
        for (new, want) in [
            (old.clone(), &[][..]),
            (snapshot(&[(one, &a), (two, &b)], &[(small, &a), (big, &wide)]), &["10.0.0.2/32 comes"][..]),
            (
                snapshot(&[(two, &a), (three, &a)], &[(small, &a), (big, &wide)]),
                &["10.0.0.1/32 goes", "10.0.0.3/32 comes"],
            ),
            // The wide range is worked out anew: it looks at which others there are.
            (
                snapshot(&[(one, &a), (two, &a)], &[(big, &wide), (other, &a)]),
                &["10.0.0.0/8 comes", "10.1.0.0/16 goes", "11.0.0.0/8 comes"],
            ),
            (
                snapshot(&[], &[]),
                &["10.0.0.0/8 goes", "10.0.0.1/32 goes", "10.0.0.2/32 goes", "10.1.0.0/16 goes"],
            ),
        ] {
            let ranges = Ranges::of(&new);
            let changes = changes(&old, &new, &ranges);
            let row = |(place, listener): &Change<'_>| {
                format!("{} {}", place.net, if listener.is_some() { "comes" } else { "goes" })
            };
            let mut rows: Vec<_> = changes.iter().map(row).collect();
            rows.sort();
            assert_eq!(rows, want);
        }
    }

    #[test]
    fn a_part_of_a_range_is_taken_by_the_longer_range_around_it() {
        let one = listener("");
        let new = snapshot(
            &[],
            &[("10.1.0.0/16", &one), ("10.0.0.0/8", &one), ("0.0.0.0/0", &one), ("::/0", &one)],
        );
        let ranges = Ranges::of(&new);
        for (place, net, want) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/8", "10.1.2.0/24", true),
            ("10.0.0.0/8", "10.2.0.0/16", false),
            ("10.1.0.0/16", "10.1.2.0/24", false),
            ("0.0.0.0/0", "10.2.0.0/16", true),
            ("::/0", "0.0.0.0/0", true),
        ] {
            let place = Place::range(place.parse().unwrap(), 80);
            assert_eq!(ranges.is_taken(place, net.parse().unwrap()), want, "{place:?} {net}");
            assert!(!ranges.is_taken(Place { port: 81, ..place }, net.parse().unwrap()));
        }
    }
}
