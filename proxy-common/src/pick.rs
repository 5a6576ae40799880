//! Drawing by weight, and the choice of one endpoint: pure arithmetic that the kernel runs and a host test can prove.
//!
//! Written for the verifier: loops have constant bounds, nothing panics, nothing is indexed. Slots come from
//! `proxy_traffic::table`.

use crate::direct::{Balancing, Slot};

/// Draws before the slots are gone through in order: the first, and four more past ejected endpoints.
pub const DRAWS: u32 = 5;
/// Places gone through in order when drawing found nobody. Tables hold all of up to so many endpoints in any row of so
/// many places, so a small cluster is never called dead while one of it lives.
pub const SCAN: u32 = 64;

/// Brings a uniform 64-bit `draw` into `0..total` without a division and without measurable bias
/// (multiply-shift; the bias is below `total / 2^64`). `total` 0 gives 0.
#[inline(always)]
#[must_use]
pub fn scale(draw: u64, total: u64) -> u64 {
    ((u128::from(draw) * u128::from(total)) >> 64) as u64
}

/// The index of the weight that `point` (from [`scale`] with the weights' sum) falls into; `None` when `point`
/// lies at or beyond the sum. A weight of 0 is never chosen.
#[must_use]
pub fn weighted(point: u64, weights: impl IntoIterator<Item = u64>) -> Option<usize> {
    let mut left = point;
    for (index, weight) in weights.into_iter().enumerate() {
        if left < weight {
            return Some(index);
        }
        left -= weight;
    }
    None
}

/// Brings a uniform 32-bit `draw` into `0..count` as [`scale`] does. `count` 0 gives 0.
#[inline(always)]
#[must_use]
pub const fn index(draw: u32, count: u32) -> u32 {
    ((draw as u64 * count as u64) >> 32) as u32
}

/// The number that a uniform `draw` takes from a column of an alias table, or from a place of a sequence.
#[inline(always)]
#[must_use]
pub const fn column(slot: Slot, draw: u32) -> u32 {
    if draw <= slot.threshold { slot.own } else { slot.alias }
}

/// What `consistentHash.useSourceIp` makes of an address (v4-mapped): equal on every node and on both datapaths.
#[inline(always)]
#[must_use]
pub fn source_hash(address: &[u8; 16]) -> u32 {
    // FNV-1a, whose high bits alone would be poor: see `mix`.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < 16 {
        hash = (hash ^ address[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    mix(hash) as u32
}

/// Spreads every bit of `value` over all bits of the result (MurmurHash3's last step).
#[inline(always)]
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let mut mixed = value;
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

/// The search for one connection's endpoint. The caller goes round: the kernel runs each step as a function of its own,
/// so that the verifier looks at it once and not at every way that leads there.
///
/// An ejected endpoint's share goes to the others by their weights: at random, of a hash by hashing again, so that a
/// source keeps its substitute.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    balancing: u32,
    count: u32,
    /// The source's hash, or the next place of the round.
    hash: u32,
    /// Where was drawn last.
    place: u32,
    /// Who was found; of two for least request. 0: nobody, as endpoints count from 1.
    first: u32,
    second: u32,
}

impl Search {
    /// `balancing` is a [`Balancing`] other than `OriginalDestination`, `count` the number of slots. `hash_or_cursor` is
    /// the [`source_hash`] for `SourceHash`, the next place of the round for `RoundRobin` (it may run on past the
    /// round's end), and of no matter otherwise.
    #[inline(always)]
    #[must_use]
    pub const fn new(balancing: u8, count: u32, hash_or_cursor: u32) -> Self {
        Self { balancing: balancing as u32, count, hash: hash_or_cursor, place: 0, first: 0, second: 0 }
    }

    #[inline(always)]
    const fn is(&self, balancing: Balancing) -> bool {
        self.balancing == balancing as u32
    }

    /// A place of a sequence is one endpoint's own; else slots are an alias table.
    #[inline(always)]
    const fn is_sequence(&self) -> bool {
        self.is(Balancing::SourceHash) || self.is(Balancing::RoundRobin)
    }

    /// Draws for the time `attempt`, from 0; to be called until it says so, at most [`DRAWS`] times. `draws` gives
    /// uniform numbers, `slot` the slot at a place below the count, `usable` whether an endpoint may be taken.
    #[inline(always)]
    pub fn draw(
        &mut self,
        attempt: u32,
        mut draws: impl FnMut() -> u32,
        slot: impl Fn(u32) -> Option<Slot>,
        usable: impl FnOnce(u32) -> bool,
    ) -> bool {
        // Without slots of its own it would read somebody else's.
        if self.count == 0 {
            return true;
        }
        let place = if self.is(Balancing::RoundRobin) && attempt == 0 {
            // A remainder: a round must be exact.
            self.hash.checked_rem(self.count).unwrap_or(0)
        } else if self.is(Balancing::SourceHash) {
            index(self.hash, self.count)
        } else {
            index(draws(), self.count)
        };
        self.place = place;
        self.hash = mix(self.hash as u64 + 1) as u32;
        let Some(at) = slot(place) else { return true };
        let number = if self.is_sequence() { at.own } else { column(at, draws()) };
        if !usable(number) {
            return false;
        }
        if self.first != 0 {
            self.second = number;
            return true;
        }
        self.first = number;
        !self.is(Balancing::LeastRequest)
    }

    /// Whether drawing found nobody.
    #[inline(always)]
    #[must_use]
    pub const fn is_vain(&self) -> bool {
        self.first == 0 && self.count != 0
    }

    /// Looks at the place `seen` after the last draw, from 0; to be called until it says so, at most [`SCAN`] times.
    #[inline(always)]
    pub fn look(
        &mut self,
        seen: u32,
        slot: impl Fn(u32) -> Option<Slot>,
        usable: impl FnOnce(u32) -> bool,
    ) -> bool {
        if seen >= self.count {
            return true;
        }
        let place = (self.place as u64 + seen as u64).checked_rem(self.count as u64);
        let Some(at) = slot(place.unwrap_or(0) as u32) else { return true };
        // Of an alias table each endpoint owns a column; a sequence lists them all, over and over, as aliases.
        let number = if self.is_sequence() { at.alias } else { at.own };
        if usable(number) {
            self.first = number;
        }
        self.first != 0
    }

    /// Forgets whom drawing found, who was taken by somebody else meanwhile.
    #[inline(always)]
    pub const fn again(&mut self) {
        (self.first, self.second) = (0, 0);
    }

    /// Who was found. `active` are the open connections of an endpoint.
    #[inline(always)]
    #[must_use]
    pub fn found(&self, active: impl Fn(u32) -> u64) -> Option<u32> {
        let differ = self.second != 0 && self.second != self.first;
        if differ && active(self.second) < active(self.first) {
            Some(self.second)
        } else if self.first != 0 {
            Some(self.first)
        } else {
            None
        }
    }
}

/// The number of the endpoint for one connection; `None`: nobody usable was found (UH). See [`Search`].
#[must_use]
pub fn endpoint(
    balancing: u8,
    count: u32,
    mut draws: impl FnMut() -> u32,
    slot: impl Fn(u32) -> Option<Slot>,
    usable: impl Fn(u32) -> bool,
    active: impl Fn(u32) -> u64,
    hash_or_cursor: u32,
) -> Option<u32> {
    let mut search = Search::new(balancing, count, hash_or_cursor);
    let _ = (0..DRAWS).any(|attempt| search.draw(attempt, &mut draws, &slot, &usable));
    if search.is_vain() {
        let _ = (0..SCAN).any(|seen| search.look(seen, &slot, &usable));
    }
    search.found(active)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_of_the_sum_belongs_to_exactly_its_weight() {
        let weights = [0, 80, 0, 20, 0];
        let mut drawn = [0u64; 5];
        for point in 0..100 {
            drawn[weighted(point, weights).unwrap()] += 1;
        }
        assert_eq!(drawn, weights);
        assert_eq!(weighted(100, weights), None);
    }

    #[test]
    fn scale_and_index_cover_the_range_and_never_leave_it() {
        for total in [1, 3, 100, u64::MAX] {
            assert_eq!(scale(0, total), 0);
            assert_eq!(scale(u64::MAX, total), total - 1);
        }
        for count in [1, 3, 100, u32::MAX] {
            assert_eq!((index(0, count), index(u32::MAX, count)), (0, count - 1));
        }
        assert_eq!((scale(u64::MAX, 0), index(u32::MAX, 0)), (0, 0));
    }

    #[test]
    fn a_column_is_its_owners_up_to_and_with_the_threshold() {
        let slot = Slot { threshold: 7, own: 1, alias: 2, padding: 0 };
        assert_eq!([0, 7, 8, u32::MAX].map(|draw| column(slot, draw)), [1, 1, 2, 2]);
        let whole = Slot { threshold: u32::MAX, own: 1, alias: 1, padding: 0 };
        assert_eq!(column(whole, u32::MAX), 1);
    }

    #[test]
    fn neighbouring_addresses_are_spread_evenly() {
        let mut drawn = [0; 16];
        for last in 0..=u8::MAX {
            for third in 0..16 {
                let mut address = [0; 16];
                address[10..].copy_from_slice(&[0xff, 0xff, 10, 0, third, last]);
                drawn[index(source_hash(&address), 16) as usize] += 1;
            }
        }
        // 4096 over 16 boxes: 256 each, five standard deviations are 78.
        assert!(drawn.iter().all(|count| (178..=334).contains(count)), "{drawn:?}");
    }

    #[test]
    fn without_slots_there_is_nobody() {
        for balancing in 0..=4 {
            let found = endpoint(balancing, 0, || 7, |_| None, |_| true, |_| 0, 7);
            assert_eq!(found, None);
        }
    }

    #[test]
    fn who_has_no_slots_reads_nobody_elses() {
        let others = Slot { threshold: u32::MAX, own: 7, alias: 7, padding: 0 };
        for balancing in 0..4 {
            let got = endpoint(balancing, 0, || 1, |_| Some(others), |_| true, |_| 0, 5);
            assert_eq!(got, None, "{balancing}");
        }
    }
}
