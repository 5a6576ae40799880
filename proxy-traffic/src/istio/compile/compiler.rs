//! Resources → [`Snapshot`], again and again: what a change does not touch stays as it was.
//!
//! The work is cut into units (see [`Unit`]): the entry, policy and listeners of each host, the edge, each cluster. A
//! unit is done again when something changed that it looks at: its own host, a rule for it, or a host that it asked for.
//! What is left for every change is to pass over pointers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use super::{
    Problems, Settings, anywhere,
    claims::Claims,
    cluster::{Clusters, Pool},
    egress, gateway,
    ledger::{Ledger, Unit},
    mesh,
    policy::{Policies, Rules},
    registry::{Registry, Touched},
    rules::Bindings,
    tallies::Tallies,
    units::Units,
    verdict::{Draft, Edge, Mesh},
    vip,
    workload::Rank,
};
use crate::{
    Egress, Host, Listener, Lookup, Map, Snapshot,
    istio::{Problem, Resources, names, order},
};

/// Compiles one version of the resources after the other.
#[derive(Default)]
pub struct Compiler {
    settings: Settings,
    /// Whether anything was compiled yet.
    begun: bool,
    known: Resources,
    registry: Registry,
    rules: Rules,
    bindings: Bindings,
    units: Units,
    pool: Pool,
    hosts: Map<String, Host>,
    gateways: Map<SocketAddr, Arc<Listener>>,
    mesh: Mesh,
    tallies: Tallies,
    lookups: Map<String, Lookup>,
    egress: Egress,
    ledger: Ledger,
}

/// What is not as it was.
#[derive(Default)]
struct Changes {
    /// Hosts whose services or workloads changed.
    touched: Touched,
    /// Hosts, also wildcards, whose DestinationRules changed.
    ruled: BTreeSet<String>,
    /// Hosts, also wildcards, whose VirtualServices changed.
    bound: BTreeSet<String>,
    gateways: bool,
    /// ServiceEntries changed.
    entries: bool,
    /// Ports at any address, of which somebody changed.
    anywhere: BTreeSet<u16>,
    /// Sidecars or the mesh's own settings.
    egress: bool,
    /// A host came or went.
    peopled: bool,
    /// Somebody claims other addresses than before, or with another right.
    moved: bool,
}

impl Compiler {
    /// Nothing compiled yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Turns `resources` into the rules that are in force, and says what could not be used.
    ///
    /// `previous` supplies the addresses that hosts were given and the running side of clusters of the same name.
    /// Listeners and clusters that say the same as in `previous` are the same in memory: pointers tell what changed.
    /// The result is the same whatever was compiled before; it is there sooner if `previous` came from here, and its
    /// problems are the same list while they do not change.
    pub fn compile(
        &mut self,
        resources: &Resources,
        previous: &Snapshot,
        settings: &Settings,
    ) -> (Snapshot, Arc<[Problem]>) {
        let settings = &*egress::settings(resources, settings);
        if !self.follows(previous, settings) {
            *self = Self::after(previous, settings);
        }
        let mut changes = self.take_in(resources);
        self.registry.settle(&changes.touched, settings, &mut self.ledger);
        self.compare(&mut changes);
        self.count(&mut changes);
        self.place(&changes);
        let units = self.affected(&changes);
        self.report_idle(&changes);
        let (drafts, changed) = self.redo(units);
        let claims = changes.moved.then(|| self.claims());
        let edge = Edge { gateways: &self.gateways, changed };
        self.mesh.settle(claims, drafts, &edge, settings);
        self.pool.sweep(&mut self.ledger);
        self.police(&changes, resources, settings);
        self.begun = true;
        let snapshot = Snapshot {
            generation: previous.generation,
            listeners: self.mesh.listeners.clone(),
            subnets: self.mesh.subnets.clone(),
            gateways: self.gateways.clone(),
            clusters: self.pool.made().clone(),
            hosts: self.hosts.clone(),
            http_ports: self.tallies.http_ports(),
            lookups: self.lookups.clone(),
            datagrams: self.tallies.datagrams(),
            egress: self.egress.clone(),
        };
        (snapshot, self.ledger.all())
    }

    /// Whether `previous` is what was compiled here the last time.
    fn follows(&self, previous: &Snapshot, settings: &Settings) -> bool {
        self.begun
            && self.settings == *settings
            && self.hosts.is_same(&previous.hosts)
            && self.gateways.is_same(&previous.gateways)
            && self.pool.made().is_same(&previous.clusters)
            && self.mesh.listeners.is_same(&previous.listeners)
    }

    /// Starts from somebody else's snapshot.
    fn after(previous: &Snapshot, settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            pool: Pool::after(&previous.clusters),
            hosts: previous.hosts.clone(),
            gateways: previous.gateways.clone(),
            mesh: Mesh::after(previous),
            ..Self::default()
        }
    }

    /// Finds out what changed since the last time.
    fn take_in(&mut self, resources: &Resources) -> Changes {
        let Self { known, registry, rules, settings, ledger, .. } = self;
        let domain = &settings.cluster_domain;
        let mut changes = Changes::default();
        if known.clashes != resources.clashes {
            known.clashes.clone_from(&resources.clashes);
            ledger.set(Unit::Clashes, Problems(known.clashes.clone()));
        }
        let touched = &mut changes.touched;
        registry.edit_services(order::follow(&mut known.services, &resources.services), domain, touched);
        let edits = order::follow(&mut known.service_entries, &resources.service_entries);
        changes.entries = !edits.is_empty();
        registry.edit_entries(edits, touched);
        registry.edit_names(&resources.resolved, touched);
        let pods = order::follow(&mut known.pods, &resources.pods).into_iter();
        let pods = pods.map(|(before, after)| (before.map(Rank::Pod), after.map(Rank::Pod)));
        let entries = order::follow(&mut known.workload_entries, &resources.workload_entries).into_iter();
        let entries = entries.map(|(before, after)| (before.map(Rank::Entry), after.map(Rank::Entry)));
        registry.edit_workloads(pods.chain(entries), touched);
        let edits = order::follow(&mut known.destination_rules, &resources.destination_rules);
        rules.edit(edits, domain, &mut changes.ruled);
        changes.gateways = !order::follow(&mut known.gateways, &resources.gateways).is_empty();
        let sidecars = !order::follow(&mut known.sidecars, &resources.sidecars).is_empty();
        changes.egress =
            !order::follow(&mut known.config_maps, &resources.config_maps).is_empty() || sidecars;
        let edits = order::follow(&mut known.virtual_services, &resources.virtual_services);
        if !edits.is_empty() {
            let edited = edits.into_iter().flat_map(|(before, after)| before.into_iter().chain(after));
            changes.bound.extend(edited.flat_map(|item| Bindings::hosts(&item, settings)));
            self.bindings = Bindings::new(&known.virtual_services, settings);
        }
        changes
    }

    /// Compares the hosts that were touched with what they were.
    fn compare(&self, changes: &mut Changes) {
        let now = |host: &String| self.registry.get(host);
        let is_new = |(host, before): (&String, &Option<_>)| now(host).is_some() != before.is_some();
        changes.peopled = !self.begun || changes.touched.iter().any(is_new);
        let is_moved = |(host, before): (&String, &Option<Arc<_>>)| {
            !now(host).zip(before.as_ref()).is_some_and(|(now, before)| now.claims_like(before))
        };
        changes.moved = changes.peopled || changes.touched.iter().any(is_moved);
    }

    /// Keeps up to date what all hosts together come to.
    fn count(&mut self, changes: &mut Changes) {
        for (host, before) in &changes.touched {
            let after = self.registry.get(host);
            let ports = self.tallies.edit(host, before.as_deref(), after.map(|entry| &**entry));
            changes.anywhere.extend(ports);
        }
        if changes.entries {
            self.lookups.assign(self.registry.lookups(), |one, other| one == other);
        }
    }

    /// Gives hosts their addresses.
    fn place(&mut self, changes: &Changes) {
        if changes.moved {
            let mut problems = Problems::default();
            vip::allocate(&self.registry, &mut self.hosts, &mut problems);
            self.ledger.set(Unit::Addresses, problems);
        } else {
            vip::follow(&self.registry, &changes.touched, &mut self.hosts);
        }
    }

    /// Everything that looks at what changed; the policies are looked at here.
    fn affected(&mut self, changes: &Changes) -> BTreeSet<Unit> {
        let mut hosts: BTreeSet<&str> = changes.touched.keys().map(String::as_str).collect();
        for pattern in &changes.ruled {
            let covered = self.registry.overlapping(pattern).filter(|host| names::covers(pattern, host));
            hosts.extend(covered);
        }
        let mut units = BTreeSet::new();
        for host in &hosts {
            let mut problems = Problems::default();
            Policies::new(&self.rules, &self.registry).report(host, &mut problems);
            self.ledger.set(Unit::Policy((*host).to_owned()), problems);
            units.insert(Unit::Listeners((*host).to_owned()));
            units.extend(self.units.using(host).cloned());
        }
        for pattern in &changes.bound {
            for host in self.registry.overlapping(pattern) {
                let ports = self.registry.get(host).into_iter().flat_map(|entry| entry.anywhere());
                units.extend(ports.map(|port| Unit::Anywhere(port.number)));
                units.insert(Unit::Listeners(host.to_owned()));
            }
        }
        units.extend(changes.anywhere.iter().map(|port| Unit::Anywhere(*port)));
        if changes.gateways || !changes.bound.is_empty() || !self.begun {
            units.insert(Unit::Gateways);
        }
        units
    }

    /// Reports rules that are for nobody.
    fn report_idle(&mut self, changes: &Changes) {
        if changes.peopled || !changes.ruled.is_empty() {
            let mut problems = Problems::default();
            self.rules.report_idle(&self.registry, &self.settings, &mut problems);
            self.ledger.set(Unit::IdleRules, problems);
        }
        if changes.peopled || !changes.bound.is_empty() {
            let mut problems = Problems::default();
            mesh::report_idle(&self.registry, &self.bindings, &mut problems);
            self.ledger.set(Unit::IdleBindings, problems);
        }
    }

    /// Does `units` again: new listeners of hosts, and whether the edge changed.
    fn redo(&mut self, units: BTreeSet<Unit>) -> (BTreeMap<String, Vec<Draft>>, bool) {
        let Self { registry, rules, bindings, settings, pool, ledger, tallies, .. } = self;
        for unit in &units {
            pool.release(&self.units.take(unit));
        }
        let before = self.gateways.clone();
        let mut clusters = Clusters::new(registry, Policies::new(rules, registry), settings, pool, ledger);
        let (mut drafts, mut found) = (BTreeMap::new(), Vec::new());
        for unit in units {
            let mut problems = Problems::default();
            match &unit {
                Unit::Listeners(host) => {
                    let new = mesh::drafts(host, bindings, &mut clusters, &mut problems);
                    drafts.insert(host.clone(), new);
                }
                Unit::Anywhere(port) => {
                    if tallies.ports().any(|one| one == *port) {
                        let hosts = tallies.hosts(*port);
                        let new = anywhere::draft(*port, hosts, bindings, &mut clusters, &mut problems);
                        drafts.insert(anywhere::pseudonym(*port), vec![new]);
                    }
                }
                _ => gateway::follow(
                    &self.known.gateways,
                    &mut self.gateways,
                    settings,
                    bindings,
                    &mut clusters,
                    &mut problems,
                ),
            }
            self.units.set(unit.clone(), clusters.asked());
            found.push((unit, problems));
        }
        found.into_iter().for_each(|(unit, problems)| ledger.set(unit, problems));
        (drafts, !self.gateways.is_same(&before))
    }

    /// Says who may leave.
    fn police(&mut self, changes: &Changes, resources: &Resources, settings: &Settings) {
        if changes.egress || !self.begun {
            let mut problems = Problems::default();
            self.egress = egress::policies(resources, settings, &mut problems);
            self.ledger.set(Unit::Egress, problems);
        }
    }

    fn claims(&mut self) -> Claims {
        let mut problems = Problems::default();
        let claims = Claims::new(&self.registry, &self.hosts, &self.tallies, &mut problems);
        self.ledger.set(Unit::Claims, problems);
        claims
    }
}
