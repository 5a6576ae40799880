//! Putting a batch in force, in the order that leaves no connection unrouted: whatever something points at first.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use proxy_common::ListenerKey;

use super::{
    super::error::Error,
    Synced, Tables,
    batch::{Batch, HeldPlace, arms_region},
    clusters::region,
    plan::{EntryKey, Place, SteeredKey},
    regions::Region,
    slots::Given,
};

impl Tables {
    /// Puts `batch` in force. After an error whatever stands is right by itself; what is missing comes with the next
    /// change, which is then written as a whole.
    pub(super) fn commit(&mut self, mut batch: Batch, whole: bool, now: Instant) -> Result<Synced, Error> {
        let mut synced = Synced { slots: batch.slots, ..Synced::default() };
        let outcome = self.publish(&mut batch, whole, now, &mut synced);
        // Regions that nothing points at: none, unless a write failed.
        for region in batch.fresh {
            self.regions.release(region, now);
        }
        outcome.map(|()| synced)
    }

    fn publish(
        &mut self,
        batch: &mut Batch,
        whole: bool,
        now: Instant,
        synced: &mut Synced,
    ) -> Result<(), Error> {
        self.give_numbers(batch, now);
        for key in batch.steered() {
            self.steered_gone.remove(&key);
            synced.steered += usize::from(self.maps.put_steered(key)?);
        }
        self.publish_clusters(batch, now, synced)?;
        for (key, value) in std::mem::take(&mut batch.listeners) {
            self.lingering.remove(&key);
            let before = self.maps.listener(key).map(arms_region);
            synced.inserted += usize::from(self.maps.put_listener(key, value)?);
            self.replaced(&mut batch.fresh, before, arms_region(&value), now);
        }
        let gone = self.take_places(std::mem::take(&mut batch.places), whole, now);
        self.write_workloads()?;
        self.retire(gone, now, synced)
    }

    fn give_numbers(&mut self, batch: &Batch, now: Instant) {
        if batch.next != self.clusters.last {
            self.clusters.last = batch.next;
            let given = Given {
                clusters: batch.next.cluster,
                endpoints: batch.next.endpoint,
                ..self.maps.slots.given()
            };
            self.maps.slots.set_given(given);
        }
        for draft in batch.clusters.values() {
            self.clusters.accept(draft, now);
        }
    }

    fn publish_clusters(
        &mut self,
        batch: &mut Batch,
        now: Instant,
        synced: &mut Synced,
    ) -> Result<(), Error> {
        for (endpoint, entry, _) in batch.clusters.values().flat_map(|draft| &draft.endpoints) {
            synced.endpoints += usize::from(self.maps.endpoints.put(*endpoint, *entry)?);
        }
        for (number, draft) in std::mem::take(&mut batch.clusters) {
            let before = self.maps.clusters.held.get(&number).map(region);
            synced.clusters += usize::from(self.maps.clusters.put(number, draft.entry)?);
            self.replaced(&mut batch.fresh, before, region(&draft.entry), now);
        }
        Ok(())
    }

    /// `after` is pointed at from now on, in place of `before`.
    fn replaced(&mut self, fresh: &mut HashSet<Region>, before: Option<Region>, after: Region, now: Instant) {
        fresh.remove(&after);
        if let Some(before) = before.filter(|before| *before != after) {
            self.regions.release(before, now);
        }
    }

    /// Takes over who reaches which cluster; the keys that are no longer wanted come back.
    fn take_places(&mut self, places: Vec<(Place, Option<HeldPlace>)>, whole: bool, now: Instant) -> Gone {
        let mut gone = Gone::default();
        if whole {
            self.places = HashMap::new();
            self.scoped = HashSet::new();
            self.clusters.by_number.values_mut().for_each(|held| held.users = 0);
            gone.keys = self.maps.listener_keys().collect();
            gone.steered = self.maps.steered_keys().collect();
        }
        for (place, held) in places {
            for number in held.iter().flat_map(|held| &held.clusters) {
                self.clusters.hold(*number);
            }
            if let Some(held) = &held {
                gone.wanted.extend(&held.keys);
                gone.wanted_steered.extend(&held.steered);
            }
            match held.as_ref().is_some_and(|held| held.scoped) {
                true => self.scoped.insert(place),
                false => self.scoped.remove(&place),
            };
            let before = match held {
                Some(held) => self.places.insert(place, held),
                None => self.places.remove(&place),
            };
            if let Some(before) = before {
                before.clusters.iter().for_each(|number| self.clusters.let_go(*number, now));
                gone.keys.extend(before.keys);
                gone.steered.extend(before.steered);
            }
        }
        if whole {
            let numbers: Vec<_> = self.clusters.by_number.keys().copied().collect();
            numbers.into_iter().for_each(|number| self.clusters.end_if_unused(number, now));
        }
        gone
    }

    /// Takes out what nothing claims any more. What a daemon that is gone wrote stays until everybody is enrolled again.
    fn retire(&mut self, mut gone: Gone, now: Instant, synced: &mut Synced) -> Result<(), Error> {
        if !self.settled {
            return Ok(());
        }
        gone.keys.retain(|key| !gone.wanted.contains(key));
        let shifted: HashSet<_> = gone.wanted.iter().map(|key| for_everybody(*key)).collect();
        for key in gone.keys {
            // A program that has looked for its workload's own listener in vain is about to look here.
            if key.key.scope == [0; 4] && shifted.contains(&key) {
                self.lingering.entry(key).or_insert(now);
            } else {
                synced.removed += usize::from(self.remove_listener(key, now)?);
            }
        }
        gone.steered.retain(|key| !gone.wanted_steered.contains(key));
        for key in gone.steered {
            self.steered_gone.entry(key).or_insert(now);
        }
        Ok(())
    }

    pub(super) fn remove_listener(&mut self, key: EntryKey, now: Instant) -> Result<bool, Error> {
        let removed = self.maps.remove_listener(key)?;
        if let Some(listener) = removed {
            self.regions.release(arms_region(&listener), now);
        }
        Ok(removed.is_some())
    }
}

/// Keys that were in use, and those that are.
#[derive(Debug, Default)]
struct Gone {
    keys: Vec<EntryKey>,
    steered: Vec<SteeredKey>,
    wanted: HashSet<EntryKey>,
    wanted_steered: HashSet<SteeredKey>,
}

/// The same key under scope 0.
fn for_everybody(key: EntryKey) -> EntryKey {
    EntryKey { key: ListenerKey { scope: [0; 4], ..key.key }, ..key }
}
