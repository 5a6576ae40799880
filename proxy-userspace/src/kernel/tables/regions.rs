//! Which slots are whose: an allocator of regions of one flat array. Pure; time is an argument.
//!
//! A region that was let go may still be read by a program that is on its way, so it rests for a while before anybody
//! gets it again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

/// How long a region rests. Programs run for microseconds; a second is what a busy machine may make of them.
pub(super) const REST: Duration = Duration::from_secs(1);

/// Some slots in a row; none at all has base 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Region {
    pub(super) base: u32,
    pub(super) count: u32,
}

impl Region {
    fn end(self) -> u32 {
        self.base + self.count
    }
}

/// The slots that nobody uses. Slot 0 is never given away.
#[derive(Debug)]
pub(super) struct Regions {
    /// Base → count. Neighbours are one.
    free: BTreeMap<u32, u32>,
    /// The same by (count, base): the smallest that fits is taken.
    by_count: BTreeSet<(u32, u32)>,
    resting: VecDeque<(Instant, Region)>,
    used: u32,
}

impl Regions {
    /// All of an array of `size` slots.
    pub(super) fn new(size: u32) -> Self {
        let (free, by_count) = (BTreeMap::new(), BTreeSet::new());
        let mut regions = Self { free, by_count, resting: VecDeque::new(), used: 0 };
        regions.insert(Region { base: 1, count: size.saturating_sub(1) });
        regions
    }

    /// An array that others have used: `taken` stays, the rest of the first `touched` slots rests from `now` on.
    pub(super) fn adopt(
        size: u32,
        taken: impl IntoIterator<Item = Region>,
        touched: u32,
        now: Instant,
    ) -> Self {
        let mut regions = Self::new(size);
        let mut taken: Vec<_> = taken.into_iter().filter(|one| one.count > 0 && one.end() <= size).collect();
        taken.sort_unstable();
        let mut at = 1;
        for region in taken.iter().copied().chain([Region { base: touched.min(size), count: 0 }]) {
            if region.base > at {
                let gap = Region { base: at, count: region.base - at };
                regions.take(gap);
                regions.release(gap, now);
            }
            if region.end() > at {
                regions.take(Region { base: region.base.max(at), count: region.end() - region.base.max(at) });
                at = region.end();
            }
        }
        regions
    }

    /// `count` slots in a row; `None` when there are none now.
    pub(super) fn allocate(&mut self, count: u32) -> Option<Region> {
        if count == 0 {
            return Some(Region::default());
        }
        let (_, base) = *self.by_count.range((count, 0)..).next()?;
        let region = Region { base, count };
        self.take(region);
        Some(region)
    }

    /// `region` was published: it rests from `now` on.
    pub(super) fn release(&mut self, region: Region, now: Instant) {
        if region.count > 0 {
            self.resting.push_back((now, region));
        }
    }

    /// `region` was never published: others may have it at once.
    pub(super) fn give_back(&mut self, region: Region) {
        if region.count > 0 {
            self.used -= region.count;
            self.insert(region);
        }
    }

    /// Takes back what has rested for long enough.
    pub(super) fn tend(&mut self, now: Instant) {
        while let Some((since, region)) = self.resting.front().copied()
            && now.saturating_duration_since(since) >= REST
        {
            self.resting.pop_front();
            self.give_back(region);
        }
    }

    /// Whether anything rests: what is full now may not be so in a moment.
    pub(super) fn is_resting(&self) -> bool {
        !self.resting.is_empty()
    }

    /// Slots that are given away or rest, and slot 0.
    pub(super) fn used(&self) -> u32 {
        self.used + 1
    }

    /// Cuts `region` out of the free region that holds it.
    fn take(&mut self, region: Region) {
        let Some((&base, &count)) = self.free.range(..=region.base).next_back() else { return };
        self.remove(base, count);
        let (head, tail) = (region.base - base, (base + count).saturating_sub(region.end()));
        for part in [Region { base, count: head }, Region { base: region.end(), count: tail }] {
            if part.count > 0 {
                self.free.insert(part.base, part.count);
                self.by_count.insert((part.count, part.base));
            }
        }
        self.used += region.count;
    }

    fn remove(&mut self, base: u32, count: u32) {
        self.free.remove(&base);
        self.by_count.remove(&(count, base));
    }

    fn insert(&mut self, mut region: Region) {
        if let Some((&base, &count)) = self.free.range(..region.base).next_back()
            && base + count == region.base
        {
            self.remove(base, count);
            region = Region { base, count: count + region.count };
        }
        if let Some(&count) = self.free.get(&region.end()) {
            self.remove(region.end(), count);
            region.count += count;
        }
        if region.count > 0 {
            self.free.insert(region.base, region.count);
            self.by_count.insert((region.count, region.base));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn what_was_let_go_rests_for_a_second_and_is_one_piece_again() {
        let start = Instant::now();
        let mut regions = Regions::new(11);
        let [first, second] = [4, 6].map(|count| regions.allocate(count).unwrap());
        assert_eq!((first.base, second.base, regions.allocate(1)), (1, 5, None));
        assert_eq!(regions.allocate(0), Some(Region::default()));
        regions.release(second, start);
        regions.release(first, start);
        regions.tend(start + REST / 2);
        assert_eq!(regions.allocate(1), None);
        regions.tend(start + REST);
        assert_eq!(regions.allocate(10), Some(Region { base: 1, count: 10 }));
    }

    #[test]
    fn adopted_regions_stay_and_what_lies_between_them_rests() {
        let now = Instant::now();
        let region = |base, count| Region { base, count };
        let mut regions = Regions::adopt(20, [region(9, 2), region(3, 2)], 13, now);
        // 1, 2, 5 to 8, 11, 12 rest; 13 to 19 were never used.
        assert_eq!(
            (regions.used(), regions.allocate(8), regions.allocate(7)),
            (13, None, Some(region(13, 7)))
        );
        regions.tend(now + REST);
        assert_eq!(
            [4, 2, 2, 1].map(|count| regions.allocate(count)),
            [Some(region(5, 4)), Some(region(1, 2)), Some(region(11, 2)), None]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_two_regions_overlap_and_no_slot_is_lost(
            steps in vec((1u32..40, any::<prop::sample::Index>(), any::<bool>()), 1..200),
        ) {
            const SIZE: u32 = 256;
            let mut now = Instant::now();
            let mut regions = Regions::new(SIZE);
            let (mut held, mut resting) = (Vec::<Region>::new(), Vec::<(Instant, Region)>::new());
            for (count, which, let_go) in steps {
                now += REST / 4;
                regions.tend(now);
                resting.retain(|(since, _)| now - *since < REST);
                if let_go && !held.is_empty() {
                    let region = held.swap_remove(which.index(held.len()));
                    regions.release(region, now);
                    resting.push((now, region));
                } else if let Some(region) = regions.allocate(count) {
                    prop_assert!(region.count == count && region.base > 0 && region.end() <= SIZE);
                    held.push(region);
                }
                let mut all: Vec<_> = held.iter().copied().chain(resting.iter().map(|(_, one)| *one)).collect();
                all.sort_unstable();
                prop_assert!(all.windows(2).all(|two| two[0].end() <= two[1].base));
                prop_assert_eq!(regions.used(), 1 + all.iter().map(|one| one.count).sum::<u32>());
                let free: u32 = regions.free.values().sum();
                prop_assert_eq!(regions.used() + free, SIZE);
            }
            let adopted = Regions::adopt(SIZE, held.iter().copied(), SIZE, now);
            prop_assert_eq!(adopted.used() + adopted.free.values().sum::<u32>(), SIZE);
            held.drain(..).for_each(|region| regions.release(region, now));
            regions.tend(now + REST);
            prop_assert_eq!(regions.allocate(SIZE - 1), Some(Region { base: 1, count: SIZE - 1 }));
        }
    }
}
