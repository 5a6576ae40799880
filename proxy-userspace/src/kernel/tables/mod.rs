//! Snapshot and workloads → the kernel's tables, writing only what changed.
//!
//! A change is worked out as a whole (`batch`), then put in force in the order in which things point at each other
//! (`commit`); what is gone leaves the maps after a while (`sweep`).

mod adopt;
mod batch;
mod clusters;
mod commit;
mod diff;
mod egress;
mod health;
mod look;
mod maps;
mod plan;
mod regions;
mod scopes;
mod slots;
mod sweep;
mod table;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use proxy_traffic::{Cluster, Egress, Snapshot, Workload};

pub use self::clusters::EndpointOf;
use self::{
    batch::HeldPlace,
    clusters::Clusters,
    diff::{Change, Ranges},
    maps::Maps,
    plan::{EntryKey, Place, SteeredKey},
    regions::Regions,
    scopes::{Enrolled, Scopes},
    sweep::Idle,
};
pub(super) use self::{
    maps::{Opened, Sizes},
    table::About,
};
use super::{accounts::Accounts, error::Error};

/// How much a sync wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Entries of listeners (`LISTENERS` and `RANGES`) that are new or different.
    pub inserted: usize,
    /// Entries of listeners that were taken out.
    pub removed: usize,
    /// Entries of `STEERED` and `STEERED_RANGES` that are new.
    pub steered: usize,
    /// Clusters that are new or different.
    pub clusters: usize,
    /// Endpoints that are new or different.
    pub endpoints: usize,
    /// Slots that were filled.
    pub slots: usize,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The map.
    pub table: &'static str,
    /// Its entries.
    pub used: u32,
    /// How many it has room for.
    pub size: u32,
}

/// The tables, and what they are made from.
pub(super) struct Tables {
    maps: Maps,
    pub(super) accounts: Accounts,
    accounts_about: About,
    regions: Regions,
    clusters: Clusters,
    scopes: Scopes,
    places: HashMap<Place, HeldPlace>,
    /// Those of them that stand for each class of workloads.
    scoped: HashSet<Place>,
    /// Who may reach what no listener takes.
    egress: Egress,
    /// Whether `WAYS` has those of TCP too.
    guards_packets: bool,
    /// What was synced last; `None`: the maps may hold anything.
    last: Option<Arc<Snapshot>>,
    /// What found no room, but may find it in a moment; or could not be written to its end.
    postponed: Option<Arc<Snapshot>>,
    /// Whether everybody is enrolled that an earlier daemon looked after.
    settled: bool,
    /// No longer wanted, but perhaps still asked for.
    lingering: HashMap<EntryKey, Instant>,
    steered_gone: HashMap<SteeredKey, Instant>,
    idle: Idle,
    /// Why the last sync failed.
    trouble: Option<String>,
}

impl Tables {
    /// Makes the tables those of `snapshot`.
    pub(super) fn sync(&mut self, snapshot: &Arc<Snapshot>, now: Instant) -> Result<Synced, Error> {
        self.egress.clone_from(&snapshot.egress);
        // What a policy spares is open before the policy holds, and as long as it does.
        let ways = egress::ways(snapshot, self.guards_packets);
        let opened = self.open_ways(&ways);
        let written = self.write(snapshot, now);
        // In any case: what is forbidden from now on does not wait for room in a table.
        let decided = self.write_workloads();
        let outcome = written.and_then(|synced| {
            opened.and(decided)?;
            self.close_ways(&ways)?;
            Ok(synced)
        });
        self.trouble = outcome.as_ref().err().map(ToString::to_string);
        outcome
    }

    /// Why the tables are not those of the last snapshot; `None`: they are.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn write(&mut self, snapshot: &Arc<Snapshot>, now: Instant) -> Result<Synced, Error> {
        self.regions.tend(now);
        let ranges = Ranges::of(snapshot);
        let last = self.last.take();
        let whole = last.is_none();
        let changes = match &last {
            Some(last) => diff::changes(last, snapshot, &ranges),
            None => diff::all(snapshot, &ranges),
        };
        match self.draft(&changes, &ranges, whole) {
            Ok(batch) => {
                self.postponed = Some(snapshot.clone());
                let synced = self.commit(batch, whole, now)?;
                self.last = self.postponed.take();
                Ok(synced)
            }
            Err(error) => {
                self.last = last;
                self.postponed = self.may_find_room().then(|| snapshot.clone());
                Err(error)
            }
        }
    }

    /// Looks after a namespace: first what it is to find, then the entry by which it looks.
    pub(super) fn enroll(
        &mut self,
        cookie: u64,
        entry: proxy_common::Workload,
        workload: &Arc<Workload>,
        now: Instant,
    ) -> Result<(), Error> {
        let (scope, fresh) = self.scopes.join(workload);
        if fresh && let Err(error) = self.sync_scopes(now) {
            self.leave(scope, now);
            return Err(error);
        }
        let shown = if self.scoped.is_empty() { 0 } else { scope };
        let egress = self.egress.of(workload).verdict as u8;
        let shown = proxy_common::Workload { scope: shown, egress, ..entry };
        if let Err(error) = self.maps.workloads.put(cookie, shown) {
            self.leave(scope, now);
            return Err(error);
        }
        let enrolled = Enrolled { entry, workload: workload.clone(), scope };
        if let Some(before) = self.scopes.enrolled.insert(cookie, enrolled) {
            self.leave(before.scope, now);
        }
        Ok(())
    }

    /// Leaves a namespace alone; one that is not known is no error.
    pub(super) fn unenroll(&mut self, cookie: u64, now: Instant) -> Result<(), Error> {
        if let Some(before) = self.scopes.enrolled.get(&cookie) {
            let scope = before.scope;
            self.maps.workloads.remove(cookie)?;
            self.forget_own(|key| key.netns_cookie == cookie)?;
            self.scopes.enrolled.remove(&cookie);
            self.idle.look_again();
            self.leave(scope, now);
        }
        Ok(())
    }

    /// Everybody is enrolled: what an earlier daemon left and nobody has asked for goes.
    pub(super) fn settle(&mut self, now: Instant) -> Result<(), Error> {
        if std::mem::replace(&mut self.settled, true) {
            return Ok(());
        }
        let strangers =
            self.maps.workloads.held.keys().filter(|cookie| !self.scopes.enrolled.contains_key(cookie));
        for cookie in strangers.copied().collect::<Vec<_>>() {
            self.maps.workloads.remove(cookie)?;
            self.forget_own(|key| key.netns_cookie == cookie)?;
        }
        match self.last.take() {
            Some(last) => self.sync(&last, now).map(|_| ()),
            None => Ok(()),
        }
    }

    /// One of a class fewer. That entries of a class without members cannot be removed harms nobody; the next change
    /// tries again.
    fn leave(&mut self, scope: u32, now: Instant) {
        if self.scopes.leave(scope) {
            let _ = self.sync_scopes(now);
        }
    }

    /// Writes every listener that looks at who dials, for all classes that there are.
    fn sync_scopes(&mut self, now: Instant) -> Result<(), Error> {
        let Some(snapshot) = self.last.clone() else { return Ok(()) };
        let ranges = Ranges::of(&snapshot);
        let scoped = self.scoped.iter();
        let changes: Vec<Change<'_>> = scoped.map(|place| (*place, ranges.listener(*place))).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let batch = self.draft(&changes, &ranges, false)?;
        if let Err(error) = self.commit(batch, false, now) {
            (self.last, self.postponed) = (None, Some(snapshot.clone()));
            return Err(error);
        }
        Ok(())
    }

    /// The cluster with this number.
    pub(super) fn cluster(&self, number: u32) -> Option<&Arc<Cluster>> {
        self.clusters.by_number.get(&number)?.cluster.as_ref()
    }

    /// The endpoint with this number.
    pub(super) fn endpoint(&self, number: u32) -> Option<&Arc<EndpointOf>> {
        self.clusters.endpoints.get(&number).map(|one| &one.about)
    }

    /// How full the tables are.
    pub(super) fn fill(&self) -> Vec<Fill> {
        let fill = |about: About, used: usize| Fill {
            table: about.name,
            used: u32::try_from(used).unwrap_or(u32::MAX),
            size: about.size,
        };
        let maps = &self.maps;
        vec![
            fill(maps.workloads.about, maps.workloads.held.len()),
            fill(maps.listeners.about, maps.listeners.held.len()),
            fill(maps.ranges.about, maps.ranges.held.len()),
            fill(maps.own.about, maps.own.held.len()),
            fill(maps.ways.about, maps.ways.held.len()),
            fill(maps.slots_about(), self.regions.used() as usize),
            fill(maps.clusters.about, maps.clusters.held.len()),
            fill(maps.endpoints.about, maps.endpoints.held.len()),
            fill(self.accounts_about, self.accounts.seen()),
            fill(maps.steered.about, maps.steered.held.len()),
            fill(maps.steered_ranges.about, maps.steered_ranges.held.len()),
        ]
    }
}
