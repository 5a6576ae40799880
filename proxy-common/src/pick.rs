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

/// The number of the endpoint for one connection; `None`: nobody usable was found (UH).
///
/// `balancing` is a [`Balancing`] other than `OriginalDestination`, `count` the number of slots. `panic`: health does
/// not count. `draws` gives uniform numbers, `slot` the slot at a place below `count`, `usable` whether an endpoint
/// is not ejected, `active` its open connections. `hash_or_cursor` is the [`source_hash`] for `SourceHash`, the next
/// place of the round for `RoundRobin` (it may run on past the round's end), and of no matter otherwise.
///
/// An ejected endpoint's share goes to the others by their weights: at random, of a hash by hashing again, so that a
/// source keeps its substitute.
#[inline(always)]
#[allow(
    clippy::too_many_arguments,
    reason = "closures over maps are what the kernel side has; it is inlined"
)]
#[must_use]
pub fn endpoint(
    balancing: u8,
    count: u32,
    panic: bool,
    mut draws: impl FnMut() -> u32,
    slot: impl Fn(u32) -> Option<Slot>,
    usable: impl Fn(u32) -> bool,
    active: impl Fn(u32) -> u64,
    hash_or_cursor: u32,
) -> Option<u32> {
    // Without slots of its own it would read somebody else's.
    if count == 0 {
        return None;
    }
    let hashed = balancing == Balancing::SourceHash as u8;
    let in_turn = balancing == Balancing::RoundRobin as u8;
    let mut hash = hash_or_cursor;
    let mut place = 0;
    // Least request: the first of two candidates; endpoints count from 1.
    let mut first = 0;
    let mut attempt = 0;
    while attempt < DRAWS {
        place = if in_turn && attempt == 0 {
            // A remainder: a round must be exact. `None`: there are no slots.
            hash_or_cursor.checked_rem(count)?
        } else if hashed {
            index(hash, count)
        } else {
            index(draws(), count)
        };
        hash = mix(hash as u64 + 1) as u32;
        let at = slot(place)?;
        // A place of a sequence is one endpoint's own: no second draw.
        let number = if hashed || in_turn { at.own } else { column(at, draws()) };
        if panic || usable(number) {
            if balancing != Balancing::LeastRequest as u8 {
                return Some(number);
            }
            if first != 0 {
                return Some(if active(number) < active(first) { number } else { first });
            }
            first = number;
        }
        attempt += 1;
    }
    if first != 0 {
        return Some(first);
    }
    scan(hashed || in_turn, count, place, slot, usable)
}

/// The next usable endpoint from `begin` on.
#[inline(always)]
fn scan(
    sequence: bool,
    count: u32,
    begin: u32,
    slot: impl Fn(u32) -> Option<Slot>,
    usable: impl Fn(u32) -> bool,
) -> Option<u32> {
    let mut seen = 0;
    while seen < SCAN && seen < count {
        // A remainder, not a wrap by comparison: after that the verifier would know of each place how it was come to,
        // and follow every way by itself (a million steps; this takes twenty thousand).
        let place = (begin as u64 + seen as u64).checked_rem(count as u64)?;
        let at = slot(place as u32)?;
        // Of an alias table each endpoint owns a column; a sequence lists them all, over and over, as aliases.
        let number = if sequence { at.alias } else { at.own };
        if usable(number) {
            return Some(number);
        }
        seen += 1;
    }
    None
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
            let found = endpoint(balancing, 0, true, || 7, |_| None, |_| true, |_| 0, 7);
            assert_eq!(found, None);
        }
    }

    #[test]
    fn who_has_no_slots_reads_nobody_elses() {
        let others = Slot { threshold: u32::MAX, own: 7, alias: 7, padding: 0 };
        for balancing in 0..4 {
            let got = endpoint(balancing, 0, true, || 1, |_| Some(others), |_| true, |_| 0, 5);
            assert_eq!(got, None, "{balancing}");
        }
    }
}
