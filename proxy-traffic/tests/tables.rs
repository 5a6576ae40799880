//! The tables and the choice of an endpoint against naive models: shares, reach, and what moves when somebody leaves.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use proptest::{collection, prelude::*, sample::subsequence};
use proxy_common::{direct::Slot, pick};
use proxy_traffic::{
    Balancing,
    table::{self, Member},
};

const DRAWN: [Balancing; 4] =
    [Balancing::Random, Balancing::RoundRobin, Balancing::LeastRequest, Balancing::SourceHash];

/// Numbers that are neither in order nor dense, as the kernel's are.
fn number(place: usize) -> u32 {
    (place as u32).wrapping_mul(7919) % 100_003 + 1
}

fn numbered(weights: &[u32]) -> Vec<(u32, u32)> {
    weights.iter().enumerate().map(|(place, weight)| (number(place), *weight)).collect()
}

fn equal(count: usize) -> Vec<(u32, u32)> {
    numbered(&vec![1; count])
}

/// How much of all pairs of draws each number has, in columns of 2^32.
fn shares(slots: &[Slot]) -> BTreeMap<u32, u128> {
    let mut shares = BTreeMap::new();
    for slot in slots {
        let own = u128::from(slot.threshold) + 1;
        *shares.entry(slot.own).or_default() += own;
        *shares.entry(slot.alias).or_default() += (1 << 32) - own;
    }
    shares
}

/// Each weight's share is exact to 2^-32.
fn is_exact(slots: &[Slot], weights: &[(u32, u64)]) {
    let sum: u128 = weights.iter().map(|(_, weight)| u128::from(*weight)).sum();
    let shares = shares(slots);
    for &(number, weight) in weights {
        let got = shares.get(&number).copied().unwrap_or_default();
        let (got, want) = (got * sum, (u128::from(weight) * slots.len() as u128) << 32);
        assert!(got.abs_diff(want) <= slots.len() as u128 * sum, "{number} in {weights:?}: {got} not {want}");
    }
}

/// One choice; `draws` yields what `next` says.
fn choose(
    balancing: Balancing,
    slots: &[Slot],
    ejected: &BTreeSet<u32>,
    next: impl FnMut() -> u32,
    turn: u32,
) -> Option<u32> {
    let count = slots.len() as u32;
    let slot = |place| slots.get(place as usize).copied();
    let usable = |number| !ejected.contains(&number);
    pick::endpoint(balancing as u8, count, next, slot, usable, |_| 0, turn)
}

/// A weak generator is enough here, and the same everywhere.
fn generator(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        pick::mix(state) as u32
    }
}

/// The draw that `pick::index` brings to `place`.
fn draw_of(place: u32, count: u32) -> u32 {
    (u64::from(place) << 32).div_ceil(count.into()) as u32
}

proptest! {
    #[test]
    fn shares_of_an_alias_table_are_the_weights(weights in collection::vec(0..=u32::MAX, 1..200)) {
        let wide: Vec<_> = numbered(&weights).iter().map(|&(number, weight)| (number, weight.into())).collect();
        let slots = table::slots(Balancing::Random, &numbered(&weights));
        is_exact(&slots, &wide);
        prop_assert_eq!(slots, table::arms(&wide));
    }

    #[test]
    fn shares_of_arms_are_the_weights(weights in collection::vec(any::<u64>(), 1..20)) {
        let arms: Vec<_> = weights.iter().enumerate().map(|(at, weight)| (number(at), *weight)).collect();
        is_exact(&table::arms(&arms), &arms);
    }

    #[test]
    fn a_round_has_each_as_often_as_its_weight(weights in collection::vec(1..30u32, 1..40), factor in 1..1000u32) {
        let scaled: Vec<_> = weights.iter().map(|weight| weight * factor).collect();
        let slots = table::slots(Balancing::RoundRobin, &numbered(&scaled));
        let mut counts = BTreeMap::<u32, usize>::new();
        for turn in 0..slots.len() as u32 {
            let number = choose(Balancing::RoundRobin, &slots, &BTreeSet::new(), || 0, turn + 7).unwrap();
            *counts.entry(number).or_default() += 1;
        }
        for (number, weight) in numbered(&weights) {
            let got = counts[&number] * weights.iter().sum::<u32>() as usize;
            prop_assert_eq!(got, weight as usize * slots.len());
        }
    }

    #[test]
    fn a_round_is_bounded_and_forgets_nobody(weights in collection::vec(1..=u32::MAX, 1..300)) {
        let slots = table::slots(Balancing::RoundRobin, &numbered(&weights));
        prop_assert!(slots.len() <= 4096);
        let found: BTreeSet<_> = slots.iter().map(|slot| slot.own).collect();
        prop_assert_eq!(found.len(), weights.len());
    }

    #[test]
    fn the_ejected_are_passed_over_while_anybody_is_in_reach(
        weights in collection::vec(1..50u32, 1..=64usize),
        keep in any::<prop::sample::Selector>(),
        more in any::<u64>(),
        seed in any::<u64>(),
    ) {
        let endpoints = numbered(&weights);
        // One stays; of the others a random part goes.
        let kept = keep.select(&endpoints).0;
        let gone = |&(at, number): &(usize, u32)| number != kept && more >> (at % 64) & 1 == 1;
        let ejected = endpoints.iter().map(|one| one.0).enumerate().filter(gone).map(|one| one.1).collect();
        for balancing in DRAWN {
            let slots = table::slots(balancing, &endpoints);
            let mut next = generator(seed);
            for turn in 0..200 {
                let turn = pick::mix(seed ^ turn) as u32;
                let found = choose(balancing, &slots, &ejected, &mut next, turn).unwrap();
                prop_assert!(!ejected.contains(&found), "{:?}", balancing);
            }
        }
    }

    #[test]
    fn every_usable_endpoint_is_reached(weights in collection::vec(1..50u32, 1..=64usize), more in any::<u64>()) {
        let endpoints = numbered(&weights);
        let gone = |&(at, _): &(usize, u32)| at > 0 && more >> at & 1 == 1;
        let ejected: BTreeSet<_> =
            endpoints.iter().map(|one| one.0).enumerate().filter(gone).map(|one| one.1).collect();
        for balancing in DRAWN {
            let slots = table::slots(balancing, &endpoints);
            let count = slots.len() as u32;
            let found: BTreeSet<_> = (0..count).filter_map(|place| {
                // Draws come in pairs: a place, then the column's owner.
                let owner = Cell::new(true);
                let draw = || if owner.replace(!owner.get()) { draw_of(place, count) } else { 0 };
                let turn = if balancing == Balancing::SourceHash { draw_of(place, count) } else { place };
                choose(balancing, &slots, &ejected, draw, turn)
            }).collect();
            let want: BTreeSet<_> = endpoints.iter().map(|one| one.0).filter(|one| !ejected.contains(one)).collect();
            prop_assert_eq!(found, want, "{:?}", balancing);
        }
    }

    #[test]
    fn when_all_are_ejected_only_panic_finds_somebody(count in 1..200usize, seed in any::<u64>()) {
        let endpoints = equal(count);
        for balancing in DRAWN {
            let slots = table::slots(balancing, &endpoints);
            let find = |panic| {
                let slot = |place| slots.get(place as usize).copied();
                let length = slots.len() as u32;
                pick::endpoint(balancing as u8, length, generator(seed), slot, |_| panic, |_| 0, seed as u32)
            };
            prop_assert_eq!(find(false), None);
            prop_assert!(find(true).is_some());
        }
    }

    #[test]
    fn least_request_takes_the_idler_of_two(count in 2..50usize, seed in any::<u64>()) {
        let endpoints = equal(count);
        let slots = table::slots(Balancing::LeastRequest, &endpoints);
        let load = |number: u32| u64::from(number) % 17;
        let drawn = Cell::new(0u32);
        let mut next = generator(seed);
        let slot = |place| slots.get(place as usize).copied();
        let draws = || {
            drawn.set(drawn.get() + 1);
            next()
        };
        let length = slots.len() as u32;
        let found = pick::endpoint(Balancing::LeastRequest as u8, length, draws, slot, |_| true, load, 0);
        prop_assert_eq!(drawn.get(), 4);
        let mut again = generator(seed);
        let mut candidate = || {
            let place = pick::index(again(), length);
            pick::column(slots[place as usize], again())
        };
        let (one, other) = (candidate(), candidate());
        prop_assert_eq!(found.map(load), Some(load(one).min(load(other))));
    }

}

proptest! {
    // These tables are large.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_maglev_table_gives_each_its_share(weights in collection::vec(1..20u32, 1..150usize)) {
        let slots = table::slots(Balancing::SourceHash, &numbered(&weights));
        let mut counts = BTreeMap::<u32, u64>::new();
        for slot in &slots {
            *counts.entry(slot.own).or_default() += 1;
        }
        let sum: u64 = weights.iter().copied().map(u64::from).sum();
        for (number, weight) in numbered(&weights) {
            let want = u64::from(weight) * slots.len() as u64 / sum;
            // One for the place that everybody has first, one for where the last round ended, one for rounding.
            let slack = 3 + want / 20;
            prop_assert!(counts[&number].abs_diff(want) <= slack, "{} of {want}", counts[&number]);
        }
    }

    #[test]
    fn who_leaves_a_maglev_table_moves_few_others(
        remain in subsequence((0..100usize).collect::<Vec<_>>(), 18..99),
        leaves in any::<prop::sample::Index>(),
    ) {
        let table = |places: &[usize]| {
            let endpoints: Vec<_> = places.iter().map(|place| (number(*place), 1)).collect();
            table::slots(Balancing::SourceHash, &endpoints)
        };
        let gone = leaves.index(remain.len());
        let mut after = remain.clone();
        after.remove(gone);
        let (before, after) = (table(&remain), table(&after));
        prop_assert_eq!(before.len(), after.len());
        let others = before.iter().zip(&after).filter(|(old, _)| old.own != number(remain[gone]));
        let moved = others.filter(|(old, new)| old.own != new.own).count();
        prop_assert!(moved * 100 <= before.len() * 5, "{moved} of {}", before.len());
    }
}

#[test]
fn equal_endpoints_take_turns_in_order() {
    let slots = table::slots(Balancing::RoundRobin, &equal(3));
    let turns =
        (0..7).map(|turn| choose(Balancing::RoundRobin, &slots, &BTreeSet::new(), || 0, turn).unwrap());
    let [a, b, c] = [0, 1, 2].map(number);
    assert_eq!(turns.collect::<Vec<_>>(), [a, b, c, a, b, c, a]);
}

#[test]
fn heavy_ones_are_spread_over_the_round() {
    let slots = table::slots(Balancing::RoundRobin, &numbered(&[5, 1, 2]));
    let [a, b, c] = [0, 1, 2].map(number);
    assert_eq!(slots.iter().map(|slot| slot.own).collect::<Vec<_>>(), [a, c, a, a, b, a, c, a]);
}

#[test]
fn a_round_of_more_than_its_longest_still_has_everybody() {
    assert_eq!(table::slots(Balancing::RoundRobin, &equal(5000)).len(), 5000);
    let uneven: Vec<_> = (0..5000).map(|place| (number(place), place as u32 + 1)).collect();
    assert_eq!(table::slots(Balancing::RoundRobin, &uneven).len(), 5000);
}

#[test]
fn a_source_keeps_its_endpoint_and_its_substitute() {
    let slots = table::slots(Balancing::SourceHash, &equal(10));
    for source in 0..1000u32 {
        let hash = pick::source_hash(&u128::from(source).to_be_bytes());
        let first = choose(Balancing::SourceHash, &slots, &BTreeSet::new(), || 0, hash).unwrap();
        let substitute = |ejected: &[u32]| {
            let ejected = ejected.iter().copied().collect();
            let found =
                [1, 2].map(|seed| choose(Balancing::SourceHash, &slots, &ejected, generator(seed), hash));
            assert_eq!(found[0], found[1]);
            found[0].unwrap()
        };
        let second = substitute(&[first]);
        let third = (0..10).map(number).find(|other| *other != first && *other != second).unwrap();
        // Somebody else's ejection is no concern of this source.
        assert_eq!((substitute(&[third]), substitute(&[first, third])), (first, second));
    }
}

#[test]
fn a_maglev_table_has_a_prime_size_of_a_hundred_places_each() {
    for members in [1, 2, 3, 16, 17, 128, 129, 600] {
        let size = table::slots(Balancing::SourceHash, &equal(members)).len();
        assert!(
            (2..size).take_while(|part| part * part <= size).all(|part| !size.is_multiple_of(part)),
            "{size}"
        );
        assert!((251..=65537).contains(&size) && size >= 100 * members, "{size} for {members}");
    }
}

#[test]
fn the_order_and_the_numbers_of_members_do_not_matter_to_a_source() {
    let member = |place: usize, number| {
        let address = format!("10.0.0.{place}:80").parse().unwrap();
        Member { number, weight: 1, key: table::key(address) }
    };
    let forward: Vec<_> = (0..20).map(|place| member(place, place as u32 + 1)).collect();
    let backward: Vec<_> = (0..20).rev().map(|place| member(place, 100 - place as u32)).collect();
    let [forward, backward] =
        [forward, backward].map(|members| table::keyed(Balancing::SourceHash, &members));
    assert!(forward.iter().zip(&backward).all(|(one, other)| one.own - 1 == 100 - other.own));
}

#[test]
fn whoever_weighs_nothing_has_no_place() {
    for balancing in DRAWN {
        assert!(table::slots(balancing, &[(1, 0)]).is_empty());
        let slots = table::slots(balancing, &[(1, 0), (2, 5)]);
        assert!(slots.iter().all(|slot| (slot.own, slot.alias) == (2, 2)), "{balancing:?}");
    }
    assert!(table::slots(Balancing::OriginalDestination, &equal(3)).is_empty());
    assert!(table::arms(&[(1, 0)]).is_empty() && table::arms(&[(1, 0), (2, 1)]).len() == 1);
}
