//! Selectors and those they select, from either side: who serves a service, and whose service a workload is.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    entry::Origin,
    workload::{Rank, Workload},
};
use crate::istio::resource::{Labels, selects};

/// All that may serve and all that select, by namespace: selectors do not reach further.
#[derive(Default)]
pub(super) struct Workloads(BTreeMap<String, Room>);

/// One namespace.
#[derive(Default)]
struct Room {
    all: Members,
    by_label: ByLabel<Members>,
    /// Selectors by the first of their labels.
    selectors: ByLabel<Vec<Selector>>,
    /// Those that select everybody.
    undemanding: Vec<Selector>,
}

type Members = BTreeMap<Rank, Arc<Workload>>;

/// What stands at a label's name and value.
type ByLabel<T> = BTreeMap<String, BTreeMap<String, T>>;

/// A resource that selects for a host.
struct Selector {
    host: String,
    origin: Origin,
}

impl Workloads {
    /// Those of `namespace` that serve who selects like this, Pods first, each kind in config order.
    pub(super) fn serving(
        &self,
        namespace: &str,
        selector: &Labels,
        unready_too: bool,
    ) -> Vec<Arc<Workload>> {
        let Some(room) = self.0.get(namespace) else { return Vec::new() };
        let nobody = Members::new();
        let having = selector.iter().map(|(name, value)| at(&room.by_label, name, value).unwrap_or(&nobody));
        // Of the sets that all of them are in, the smallest.
        let few = having.min_by_key(|members| members.len()).unwrap_or(&room.all);
        few.values().filter(|workload| workload.serves(selector, unready_too)).cloned().collect()
    }

    /// The hosts that workloads of `namespace` with these labels serve, or would if they were ready.
    pub(super) fn served<'a>(&'a self, namespace: &str, labels: &'a Labels) -> impl Iterator<Item = &'a str> {
        let room = self.0.get(namespace);
        let choosy =
            labels.iter().filter_map(move |(name, value)| at(&room?.selectors, name, value)).flatten();
        let all = room.into_iter().flat_map(|room| &room.undemanding).chain(choosy);
        all.filter(|one| one.origin.selector().is_some_and(|selector| selects(selector, labels)))
            .map(|one| one.host.as_str())
    }

    /// The workload of that resource.
    pub(super) fn get(&self, rank: &Rank) -> Option<&Arc<Workload>> {
        self.0.get(rank.namespace())?.all.get(rank)
    }

    /// Takes in a workload that has an address.
    pub(super) fn add(&mut self, rank: Rank, workload: Workload) {
        let room = self.room(rank.namespace());
        let workload = Arc::new(workload);
        for (name, value) in workload.labels() {
            entry(&mut room.by_label, name, value).insert(rank.clone(), workload.clone());
        }
        room.all.insert(rank, workload);
    }

    /// Lets one go, if it is there.
    pub(super) fn remove(&mut self, rank: &Rank) {
        let Some(room) = self.0.get_mut(rank.namespace()) else { return };
        let Some(workload) = room.all.remove(rank) else { return };
        for (name, value) in workload.labels() {
            let members = entry(&mut room.by_label, name, value);
            members.remove(rank);
            if members.is_empty() {
                forget(&mut room.by_label, name, value);
            }
        }
    }

    /// Remembers whom `origin` selects, for `host`.
    pub(super) fn watch(&mut self, host: &str, origin: &Origin) {
        let Some(selector) = origin.selector() else { return };
        let room = self.room(origin.namespace());
        let list = match selector.iter().next() {
            Some((name, value)) => entry(&mut room.selectors, name, value),
            None => &mut room.undemanding,
        };
        list.push(Selector { host: host.to_owned(), origin: origin.clone() });
    }

    /// Forgets what [`Self::watch`] was told.
    pub(super) fn unwatch(&mut self, host: &str, origin: &Origin) {
        let Some(selector) = origin.selector() else { return };
        let room = self.room(origin.namespace());
        let other = |one: &Selector| one.host != host || !one.origin.is(origin);
        let Some((name, value)) = selector.iter().next() else { return room.undemanding.retain(other) };
        let list = entry(&mut room.selectors, name, value);
        list.retain(other);
        if list.is_empty() {
            forget(&mut room.selectors, name, value);
        }
    }

    fn room(&mut self, namespace: &str) -> &mut Room {
        self.0.entry(namespace.to_owned()).or_default()
    }
}

fn at<'a, T>(index: &'a ByLabel<T>, name: &str, value: &str) -> Option<&'a T> {
    index.get(name)?.get(value)
}

fn entry<'a, T: Default>(index: &'a mut ByLabel<T>, name: &str, value: &str) -> &'a mut T {
    index.entry(name.to_owned()).or_default().entry(value.to_owned()).or_default()
}

fn forget<T>(index: &mut ByLabel<T>, name: &str, value: &str) {
    let Some(values) = index.get_mut(name) else { return };
    values.remove(value);
    if values.is_empty() {
        index.remove(name);
    }
}
