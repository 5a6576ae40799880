//! Every service by its host, kept up to date: what is not touched by a change stays as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use super::{
    Problems, Settings,
    entry::{Entry, Origin, Resolved, Sources},
    ledger::{Ledger, Unit},
    resolution,
    selection::Workloads,
    workload::{Rank, Workload},
};
use crate::{
    Lookup,
    istio::{
        names,
        order::Edit,
        resource::{Item, Service, ServiceEntry},
    },
};

/// Every service by its full host name.
#[derive(Default)]
pub(super) struct Registry {
    entries: BTreeMap<String, Arc<Entry>>,
    sources: BTreeMap<String, Sources>,
    workloads: Workloads,
    /// The hosts that a name stands for endpoints of.
    names: BTreeMap<String, BTreeSet<String>>,
    resolved: Resolved,
}

/// What changed: hosts with what they were before.
pub(super) type Touched = BTreeMap<String, Option<Arc<Entry>>>;

impl Registry {
    /// The service of that full name.
    pub(super) fn get(&self, host: &str) -> Option<&Arc<Entry>> {
        self.entries.get(host)
    }

    /// Whether some service's host and `host`, which may be a wildcard, have a name in common.
    pub(super) fn has(&self, host: &str) -> bool {
        self.overlapping(host).next().is_some()
    }

    /// Every service whose host and `host`, which may be a wildcard, have a name in common.
    pub(super) fn overlapping<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a str> {
        // A name is only covered by itself and by wildcards, which stand together.
        let wildcards = (Bound::Included("*"), Bound::Excluded("+"));
        let (narrow, wide) = if host.starts_with('*') {
            (None, self.entries.range::<str, _>((Bound::Unbounded, Bound::Unbounded)))
        } else {
            (self.entries.get_key_value(host), self.entries.range::<str, _>(wildcards))
        };
        let wide = wide.filter(move |(known, _)| names::overlap(host, known));
        narrow.into_iter().chain(wide).map(|(known, _)| known.as_str())
    }

    /// Every service by host.
    pub(super) fn by_host(&self) -> impl Iterator<Item = (&str, &Arc<Entry>)> {
        self.entries.iter().map(|(host, entry)| (host.as_str(), entry))
    }

    /// Every service, the oldest first.
    pub(super) fn by_age(&self) -> Vec<(&str, &Arc<Entry>)> {
        let mut entries: Vec<_> = self.by_host().collect();
        entries.sort_by_key(|(host, entry)| (entry.source.order(), *host));
        entries
    }

    /// Takes in changed Services; their hosts go to `touched`.
    pub(super) fn edit_services(&mut self, edits: Vec<Edit<Service>>, domain: &str, touched: &mut Touched) {
        let host = |item: &Item<Service>| names::service(&item.key.name, &item.key.namespace, domain);
        for (before, after) in edits {
            if let Some(item) = before {
                let host = host(&item);
                self.sources(&host, touched).services.retain(|other| !Arc::ptr_eq(other, &item));
                self.workloads.unwatch(&host, &Origin::Service(item));
            }
            if let Some(item) = after {
                let host = host(&item);
                let services = &mut self.sources(&host, touched).services;
                let place = services.partition_point(|other| other.order() < item.order());
                services.insert(place, item.clone());
                self.workloads.watch(&host, &Origin::Service(item));
            }
        }
    }

    /// Takes in changed ServiceEntries; their hosts go to `touched`.
    pub(super) fn edit_entries(&mut self, edits: Vec<Edit<ServiceEntry>>, touched: &mut Touched) {
        for (before, after) in edits {
            for (item, host, _) in before.iter().flat_map(hosts) {
                self.sources(&host, touched).entries.retain(|(other, _)| !Arc::ptr_eq(other, item));
                self.workloads.unwatch(&host, &Origin::Entry(item.clone()));
                self.follow_names(&host, item);
            }
            for (item, host, index) in after.iter().flat_map(hosts) {
                let entries = &mut self.sources(&host, touched).entries;
                let order = (item.order(), index);
                let place = entries.partition_point(|(other, index)| (other.order(), *index) < order);
                entries.insert(place, (item.clone(), index));
                self.workloads.watch(&host, &Origin::Entry(item.clone()));
                self.follow_names(&host, item);
            }
        }
    }

    /// Takes in what names were found to be; the hosts that they stand for go to `touched`.
    pub(super) fn edit_names(&mut self, resolved: &Resolved, touched: &mut Touched) {
        for (name, older, newer) in self.resolved.changes(resolved) {
            if older != newer {
                let hosts = self.names.get(name).into_iter().flatten();
                hosts.for_each(|host| touch(&self.entries, host, touched));
            }
        }
        self.resolved = resolved.clone();
    }

    /// The names that have to be looked up, and how.
    pub(super) fn lookups(&self) -> BTreeMap<String, Lookup> {
        let mut lookups: BTreeMap<String, Lookup> = BTreeMap::new();
        for (name, hosts) in &self.names {
            let sources = hosts.iter().filter_map(|host| Some((host, self.sources.get(host)?)));
            let entries =
                sources.flat_map(|(host, sources)| sources.entries.iter().map(move |one| (host, one)));
            for (host, (item, _)) in entries {
                if resolution::names(&item.spec, host).contains(name) {
                    let lookup = resolution::lookup(item);
                    let known = lookups.entry(name.clone()).or_default();
                    known.external |= lookup.external;
                    known.allowed.extend(lookup.allowed);
                    known.allowed.sort_unstable();
                    known.allowed.dedup();
                }
            }
        }
        lookups
    }

    /// `item` came to stand for `host`, or does so no more.
    fn follow_names(&mut self, host: &str, item: &Item<ServiceEntry>) {
        let sources = self.sources.get(host).into_iter().flat_map(|sources| &sources.entries);
        let standing: BTreeSet<_> =
            sources.flat_map(|(item, _)| resolution::names(&item.spec, host)).collect();
        for name in resolution::names(&item.spec, host) {
            let is_standing = standing.contains(&name);
            let hosts = self.names.entry(name.clone()).or_default();
            if is_standing {
                hosts.insert(host.to_owned());
            } else {
                hosts.remove(host);
            }
            if hosts.is_empty() {
                self.names.remove(&name);
            }
        }
    }

    /// Takes in changed workloads; the hosts that they serve go to `touched`.
    pub(super) fn edit_workloads(
        &mut self,
        edits: impl Iterator<Item = (Option<Rank>, Option<Rank>)>,
        touched: &mut Touched,
    ) {
        for (before, after) in edits {
            if let Some(rank) = before {
                self.touch_served(&rank, touched);
                self.workloads.remove(&rank);
            }
            if let Some(rank) = after {
                if let Some(workload) = Workload::new(&rank) {
                    self.workloads.add(rank.clone(), workload);
                }
                self.touch_served(&rank, touched);
            }
        }
    }

    /// Makes the entries of what was touched anew.
    pub(super) fn settle(&mut self, touched: &Touched, settings: &Settings, ledger: &mut Ledger) {
        for host in touched.keys() {
            let mut problems = Problems::default();
            let sources = self.sources.get(host);
            let made = sources
                .and_then(|all| Entry::new(all, &self.workloads, &self.resolved, settings, &mut problems));
            match made {
                Some(entry) => drop(self.entries.insert(host.clone(), Arc::new(entry))),
                None => {
                    self.entries.remove(host);
                    self.sources.remove(host);
                }
            }
            ledger.set(Unit::Service(host.clone()), problems);
        }
    }

    fn sources(&mut self, host: &str, touched: &mut Touched) -> &mut Sources {
        touch(&self.entries, host, touched);
        self.sources.entry(host.to_owned()).or_default()
    }

    fn touch_served(&self, rank: &Rank, touched: &mut Touched) {
        let Some(workload) = self.workloads.get(rank) else { return };
        for host in self.workloads.served(rank.namespace(), workload.labels()) {
            touch(&self.entries, host, touched);
        }
    }
}

fn touch(entries: &BTreeMap<String, Arc<Entry>>, host: &str, touched: &mut Touched) {
    if !touched.contains_key(host) {
        touched.insert(host.to_owned(), entries.get(host).cloned());
    }
}

/// The hosts of a ServiceEntry as the registry writes them, each with its place.
fn hosts(item: &Arc<Item<ServiceEntry>>) -> impl Iterator<Item = (&Arc<Item<ServiceEntry>>, String, usize)> {
    let hosts = item.spec.hosts.iter().enumerate();
    hosts.map(move |(index, host)| (item, host.to_ascii_lowercase(), index))
}
