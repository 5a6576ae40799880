//! What one change comes to, worked out before anything is published: regions are filled, numbers drawn, and whether
//! there is room for all of it is known.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use proxy_common::{
    Verdict,
    direct::{self, Slot},
};
use proxy_traffic::{Cluster, ClusterName, Route, datapath, table};

use super::{
    super::error::Error,
    Tables,
    clusters::{Draft, Numbers, region},
    diff::{Change, Ranges},
    plan::{self, Decision, EntryKey, Place, SteeredKey},
    regions::Region,
};

/// A listener as it stands in the maps.
#[derive(Debug, Default)]
pub(super) struct HeldPlace {
    pub(super) keys: Vec<EntryKey>,
    pub(super) steered: Vec<SteeredKey>,
    /// The clusters that it reaches.
    pub(super) clusters: Vec<u32>,
    /// Whether it stands for each scope of workloads.
    pub(super) scoped: bool,
}

/// Everything that is to be written for one change.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) next: Numbers,
    pub(super) clusters: BTreeMap<u32, Draft>,
    /// Their numbers.
    names: HashMap<ClusterName, u32>,
    pub(super) listeners: Vec<(EntryKey, direct::Listener)>,
    /// `None`: nothing claims it any more.
    pub(super) places: Vec<(Place, Option<HeldPlace>)>,
    /// Regions that were filled and that nothing points at yet.
    pub(super) fresh: HashSet<Region>,
    /// How many slots that took.
    pub(super) slots: usize,
}

impl Tables {
    /// Works it out. Nothing is in force yet, and after an error nothing has changed.
    pub(super) fn draft(
        &mut self,
        changes: &[Change<'_>],
        ranges: &Ranges<'_>,
        whole: bool,
    ) -> Result<Batch, Error> {
        let mut batch = Batch { next: self.clusters.last, ..Batch::default() };
        let drafted = changes
            .iter()
            .try_for_each(|change| self.draft_place(&mut batch, *change, ranges, whole))
            .and_then(|()| self.check_room(&batch));
        match drafted {
            Ok(()) => Ok(batch),
            Err(error) => {
                batch.fresh.into_iter().for_each(|region| self.regions.give_back(region));
                Err(error)
            }
        }
    }

    fn draft_place(
        &mut self,
        batch: &mut Batch,
        (place, listener): Change<'_>,
        ranges: &Ranges<'_>,
        whole: bool,
    ) -> Result<(), Error> {
        let Some(listener) = listener else {
            batch.places.push((place, None));
            return Ok(());
        };
        let scopes = self.scopes.all();
        let planned = plan::entries(place, listener, &scopes, |net| ranges.is_taken(place, net));
        let scoped = datapath::depends_on_workload(listener);
        let mut held = HeldPlace { steered: planned.steered, scoped, ..HeldPlace::default() };
        for (key, decision) in planned.entries {
            let mut value = direct::Listener { bits: key.bits, ..Default::default() };
            value.verdict = match decision {
                Decision::Pass => Verdict::Pass,
                Decision::Steer(_) => Verdict::Steer,
                Decision::Direct(route) => {
                    let arms = self.draft_route(batch, &mut held, route, whole)?;
                    let current = self.maps.listener(key).map(arms_region);
                    let region = self.region_for(batch, current, &table::arms(&arms))?;
                    (value.base, value.count) = (region.base, region.count);
                    Verdict::Direct
                }
            } as u32;
            batch.listeners.push((key, value));
            held.keys.push(key);
        }
        batch.places.push((place, Some(held)));
        Ok(())
    }

    /// The route's clusters by number, drafted where they are not as they stand.
    fn draft_route(
        &mut self,
        batch: &mut Batch,
        held: &mut HeldPlace,
        route: &Route,
        whole: bool,
    ) -> Result<Vec<(u32, u64)>, Error> {
        let mut arms = Vec::with_capacity(route.destinations.len());
        for arm in &route.destinations {
            let cluster = &arm.cluster;
            let drafted = batch.names.get(&cluster.name).copied();
            let stands = || {
                self.clusters
                    .number(&cluster.name)
                    .filter(|number| !whole && self.clusters.stands(*number, cluster))
            };
            let number = match drafted.or_else(stands) {
                Some(number) => number,
                None => self.draft_cluster(batch, cluster)?,
            };
            held.clusters.push(number);
            arms.push((number, arm.weight));
        }
        Ok(arms)
    }

    fn draft_cluster(&mut self, batch: &mut Batch, cluster: &Arc<Cluster>) -> Result<u32, Error> {
        let mut draft = self.clusters.draft(cluster, &mut batch.next);
        let number = draft.number;
        let current = self.maps.clusters.held.get(&number).map(region);
        let region = self.region_for(batch, current, &draft.slots)?;
        (draft.entry.base, draft.entry.count) = (region.base, region.count);
        batch.names.insert(cluster.name.clone(), number);
        batch.clusters.insert(number, draft);
        Ok(number)
    }

    /// A region with these slots: the one in force if it has them already.
    fn region_for(
        &mut self,
        batch: &mut Batch,
        current: Option<Region>,
        slots: &[Slot],
    ) -> Result<Region, Error> {
        if let Some(region) = current.filter(|region| self.maps.slots.holds(*region, slots)) {
            return Ok(region);
        }
        let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        let region = self.regions.allocate(count).ok_or_else(|| self.maps.slots_about().full())?;
        self.maps.slots.write(region, slots);
        if region.count > 0 {
            batch.fresh.insert(region);
        }
        batch.slots += slots.len();
        Ok(region)
    }

    fn check_room(&self, batch: &Batch) -> Result<(), Error> {
        let maps = &self.maps;
        let fresh = batch.listeners.iter().map(|(key, _)| *key).filter(|key| maps.listener(*key).is_none());
        let (exact, ranges): (HashSet<_>, HashSet<_>) = fresh.partition(|key| key.exact);
        maps.listeners.room_for(exact.len())?;
        maps.ranges.room_for(ranges.len())?;
        let fresh = batch.clusters.keys().filter(|number| !maps.clusters.held.contains_key(number));
        maps.clusters.room_for(fresh.count())?;
        let endpoints: HashSet<_> =
            batch.clusters.values().flat_map(|draft| &draft.endpoints).map(|(number, ..)| *number).collect();
        let fresh = endpoints.iter().filter(|number| !maps.endpoints.held.contains_key(number));
        maps.endpoints.room_for(fresh.count())?;
        let steered: HashSet<_> = batch.steered().filter(|key| !maps.is_steered(*key)).collect();
        let (exact, ranges): (Vec<_>, Vec<_>) =
            steered.into_iter().partition(|key| matches!(key, SteeredKey::Exact(_)));
        maps.steered.room_for(exact.len())?;
        maps.steered_ranges.room_for(ranges.len())
    }
}

impl Batch {
    /// What is steered for somebody.
    pub(super) fn steered(&self) -> impl Iterator<Item = SteeredKey> {
        self.places.iter().filter_map(|(_, held)| held.as_ref()).flat_map(|held| &held.steered).copied()
    }
}

/// Where a listener's arms are.
pub(super) fn arms_region(listener: &direct::Listener) -> Region {
    Region { base: listener.base, count: listener.count }
}
