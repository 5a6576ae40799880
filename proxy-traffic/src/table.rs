//! Weights → slots: the tables that `proxy_common::pick` draws from, on both datapaths.
//!
//! Built where there is time, so that drawing needs none: alias tables (Vose, in integers, exact to 2^-32), one
//! interleaved round, Maglev tables. A weight of 0 has no place anywhere.

use std::{cmp::Reverse, net::SocketAddr};

use proxy_common::{
    direct::{Balancing, Slot},
    pick, v4_mapped,
};

/// A round has at most so many places, or one for each endpoint if those are more.
const LONGEST_ROUND: u64 = 4096;
/// Sizes of Maglev tables, and up to how many endpoints each serves: primes, at least a hundred places for each. Few
/// sizes, because going from one to another moves everybody.
const MAGLEV: [(u32, usize); 4] = [(251, 2), (1601, 16), (12809, 128), (65537, usize::MAX)];

/// One endpoint of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What drawing it gives; not 0.
    pub number: u32,
    /// Relative share.
    pub weight: u32,
    /// What its places in a Maglev table depend on, see [`key`].
    pub key: u64,
}

/// The slots of a cluster whose endpoints are `(number, weight)`. Prefer [`keyed`], where numbers need not be the
/// same after a restart.
#[must_use]
pub fn slots(balancing: Balancing, endpoints: &[(u32, u32)]) -> Vec<Slot> {
    let member = |&(number, weight): &(u32, u32)| Member { number, weight, key: number.into() };
    keyed(balancing, &endpoints.iter().map(member).collect::<Vec<_>>())
}

/// The slots of a cluster; none for the original destination.
#[must_use]
pub fn keyed(balancing: Balancing, members: &[Member]) -> Vec<Slot> {
    let members: Vec<_> = members.iter().filter(|one| one.weight > 0).copied().collect();
    match balancing {
        Balancing::Random | Balancing::LeastRequest => {
            let weights: Vec<_> = members.iter().map(|one| (one.number, one.weight.into())).collect();
            alias(&weights)
        }
        Balancing::RoundRobin => sequence(&round(&members), &members),
        Balancing::SourceHash => sequence(&maglev(&members), &members),
        Balancing::OriginalDestination => Vec::new(),
    }
}

/// The arms of a route whose clusters are `(number, weight)`.
#[must_use]
pub fn arms(clusters: &[(u32, u64)]) -> Vec<Slot> {
    let weights: Vec<_> = clusters.iter().filter(|(_, weight)| *weight > 0).copied().collect();
    alias(&weights)
}

/// The key of the endpoint at `address`: the same on every node and after every start.
#[must_use]
pub fn key(address: SocketAddr) -> u64 {
    let octets = u128::from_be_bytes(v4_mapped(address.ip()));
    let high = pick::mix((octets >> 64) as u64);
    pick::mix(high ^ octets as u64) ^ u64::from(address.port())
}

/// One column for each, in order: `own` is its owner, `alias` whoever takes the rest.
fn alias(weights: &[(u32, u64)]) -> Vec<Slot> {
    let columns = weights.len() as u128;
    // A column is as high as the weights' sum; an owner's pile is as high as its weight times the columns.
    let height: u128 = weights.iter().map(|&(_, weight)| u128::from(weight)).sum();
    let mut piles: Vec<_> = weights.iter().map(|&(_, weight)| u128::from(weight) * columns).collect();
    let whole =
        |&(number, _): &(u32, u64)| Slot { threshold: u32::MAX, own: number, alias: number, padding: 0 };
    let mut slots: Vec<_> = weights.iter().map(whole).collect();
    let (mut low, mut high): (Vec<_>, Vec<_>) = (0..weights.len()).partition(|&at| piles[at] < height);
    while let (Some(&giver), Some(taker)) = (high.last(), low.pop()) {
        slots[taker].threshold = threshold(piles[taker], height);
        slots[taker].alias = weights[giver].0;
        piles[giver] -= height - piles[taker];
        if piles[giver] < height {
            high.pop();
            low.push(giver);
        }
    }
    slots
}

/// The threshold for `part` of `whole`, rounded; never nobody.
fn threshold(part: u128, whole: u128) -> u32 {
    // Parts fit 96 bits for any number of u64 weights that fits memory; shifting by 32 loses none.
    let scaled = ((part << 32) + whole / 2) / whole;
    u32::try_from(scaled.max(1) - 1).unwrap_or(u32::MAX)
}

/// Places of a sequence. Their aliases list the members over and over, for whoever scans past ejected ones.
fn sequence(places: &[u32], members: &[Member]) -> Vec<Slot> {
    let slot =
        |(&own, member): (&u32, &Member)| Slot { threshold: u32::MAX, own, alias: member.number, padding: 0 };
    places.iter().zip(members.iter().cycle()).map(slot).collect()
}

/// One round: each as often as its weight says, as evenly spread as can be.
fn round(members: &[Member]) -> Vec<u32> {
    let mut places: Vec<_> = times(members)
        .zip(members)
        .enumerate()
        .flat_map(|(order, (times, member))| {
            // The middle of each of its equal parts of the round.
            (0..times).map(move |turn| (((2 * turn + 1) << 32) / times, order, member.number))
        })
        .collect();
    places.sort_unstable();
    places.into_iter().map(|(_, _, number)| number).collect()
}

/// How often each has its turn in one round.
fn times(members: &[Member]) -> impl Iterator<Item = u64> {
    let sum: u64 = members.iter().map(|one| u64::from(one.weight)).sum();
    let divisor = members.iter().fold(0, |divisor, one| gcd(divisor, one.weight.into())).max(1);
    let fits = sum / divisor <= LONGEST_ROUND;
    // Everybody has one place at least; the rest is shared.
    let room = LONGEST_ROUND.saturating_sub(members.len() as u64);
    members.iter().map(move |one| {
        let weight = u64::from(one.weight);
        if fits { weight / divisor } else { (weight * room / sum).max(1) }
    })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Maglev (Eisenbud et al. 2016, section 3.4): everybody in turn takes the first free place of an order of its own,
/// by weight, until none is free.
fn maglev(members: &[Member]) -> Vec<u32> {
    let Some(heaviest) = members.iter().map(|one| one.weight).max() else { return Vec::new() };
    let size = maglev_size(members.len());
    let mut places = vec![0; size as usize];
    let mut takers: Vec<_> = members.iter().map(|one| Taker::new(one, size, heaviest)).collect();
    // The same members make the same table, in whatever order they come.
    takers.sort_unstable_by_key(|taker| Reverse(taker.key));
    let mut free = size;
    loop {
        for taker in &mut takers {
            taker.credit += u64::from(taker.weight);
            if taker.credit < u64::from(heaviest) {
                continue;
            }
            taker.credit -= u64::from(heaviest);
            *taker.next_free(&mut places) = taker.number;
            free -= 1;
            if free == 0 {
                return places;
            }
        }
    }
}

fn maglev_size(members: usize) -> u32 {
    MAGLEV.iter().find(|(_, most)| members <= *most).map_or(65537, |(size, _)| *size)
}

/// Somebody who takes places.
struct Taker {
    number: u32,
    key: u64,
    weight: u32,
    /// It may take a place when this reaches the heaviest weight.
    credit: u64,
    next: u32,
    step: u32,
}

impl Taker {
    fn new(member: &Member, size: u32, heaviest: u32) -> Self {
        let hash = pick::mix(member.key);
        let next = pick::index(hash as u32, size);
        // The size is prime: every step from 1 on comes by all places.
        let step = 1 + pick::index((hash >> 32) as u32, size - 1);
        let Member { number, weight, key } = *member;
        // Everybody takes one in the first round.
        Self { number, key, weight, credit: u64::from(heaviest - weight), next, step }
    }

    /// Its next place that nobody has; there is one.
    fn next_free<'a>(&mut self, places: &'a mut [u32]) -> &'a mut u32 {
        let size = places.len() as u32;
        loop {
            let at = self.next;
            self.next = (at + self.step) % size;
            if places[at as usize] == 0 {
                return &mut places[at as usize];
            }
        }
    }
}
