//! Clusters and endpoints under their numbers: what stands in `CLUSTERS` and `ENDPOINTS` for each. No system calls.
//!
//! A number belongs to a name (of an endpoint: cluster and address) as long as anything may still say it: a map, an
//! account, a connection. Nothing else ever gets it.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_common::{
    Destination,
    direct::{self, Slot},
};
use proxy_traffic::{Cluster, ClusterKind, ClusterName, Endpoint, LimitScope, WorkloadName, table};

use super::{health, maps::Maps, plan, regions::Region};

/// An endpoint, as events and accounts name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointOf {
    /// Number of its cluster.
    pub cluster: u32,
    /// Where it is.
    pub address: SocketAddr,
    /// Who it is.
    pub workload: Arc<WorkloadName>,
}

/// A cluster with a number.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// `None`: a daemon that is gone had it, and nobody has asked for it yet.
    pub(super) cluster: Option<Arc<Cluster>>,
    /// Every endpoint with a number, those that are gone too.
    pub(super) members: HashMap<SocketAddr, u32>,
    /// Listeners that reach it.
    pub(super) users: usize,
    pub(super) gone: Option<Instant>,
    pub(super) health: u64,
}

/// An endpoint with a number.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) about: Arc<EndpointOf>,
    pub(super) gone: Option<Instant>,
}

/// Everything that has a number.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    pub(super) by_number: HashMap<u32, Held>,
    pub(super) endpoints: HashMap<u32, Numbered>,
    names: HashMap<ClusterName, u32>,
    /// Of a daemon that is gone, by the hash of their names.
    pub(super) nameless: HashMap<u64, u32>,
    /// Those whose health may change.
    pub(super) watched: BTreeSet<u32>,
    /// The last ones given away.
    pub(super) last: Numbers,
}

/// How far numbers have been given away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) cluster: u32,
    pub(super) endpoint: u32,
}

/// What a cluster is to become.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) number: u32,
    pub(super) cluster: Arc<Cluster>,
    /// Its region is that of the cluster as it is, or a new one.
    pub(super) entry: direct::Cluster,
    pub(super) slots: Vec<Slot>,
    pub(super) endpoints: Vec<(u32, direct::Endpoint, Arc<WorkloadName>)>,
    health: u64,
}

impl Clusters {
    /// The number of `cluster`, if it has one.
    pub(super) fn number(&self, name: &ClusterName) -> Option<u32> {
        let nameless = || self.nameless.get(&plan::name_hash(name.as_str()));
        self.names.get(name).or_else(nameless).copied()
    }

    /// Whether `cluster` stands there as it is.
    pub(super) fn stands(&self, number: u32, cluster: &Arc<Cluster>) -> bool {
        let held = self.by_number.get(&number).filter(|held| held.gone.is_none());
        held.and_then(|held| held.cluster.as_ref()).is_some_and(|before| Arc::ptr_eq(before, cluster))
    }

    /// What `cluster` comes to, with new numbers from `next` on where it has none.
    pub(super) fn draft(&self, cluster: &Arc<Cluster>, next: &mut Numbers) -> Draft {
        let number = self.number(&cluster.name).unwrap_or_else(|| {
            next.cluster += 1;
            next.cluster
        });
        let health = health::of(cluster);
        let known = self.by_number.get(&number).map(|held| &held.members);
        let mut fresh = HashMap::new();
        let (mut members, mut endpoints) = (Vec::new(), Vec::new());
        for Endpoint { address, weight, workload } in endpoints_of(cluster) {
            let held = known.and_then(|members| members.get(address)).or_else(|| fresh.get(address)).copied();
            let endpoint = held.unwrap_or_else(|| {
                next.endpoint += 1;
                fresh.insert(*address, next.endpoint);
                next.endpoint
            });
            let ejected = health.ejected.contains(address);
            endpoints.push((endpoint, endpoint_entry(number, *address, ejected), workload.clone()));
            members.push(table::Member { number: endpoint, weight: *weight, key: table::key(*address) });
        }
        let slots = table::keyed(cluster.balancing, &members);
        let entry = cluster_entry(cluster, health.panic);
        Draft { number, cluster: cluster.clone(), entry, slots, endpoints, health: health.version }
    }

    /// Takes over what a draft says.
    pub(super) fn accept(&mut self, draft: &Draft, now: Instant) {
        let Draft { number, cluster, entry, endpoints, health, .. } = draft;
        let (number, health, cluster) = (*number, *health, cluster.clone());
        self.nameless.remove(&entry.name_hash);
        self.names.insert(cluster.name.clone(), number);
        match cluster.outlier {
            Some(_) => self.watched.insert(number),
            None => self.watched.remove(&number),
        };
        let held = self.by_number.entry(number).or_default();
        let wanted: BTreeSet<_> = endpoints.iter().map(|(endpoint, ..)| *endpoint).collect();
        for endpoint in held.members.values().filter(|endpoint| !wanted.contains(*endpoint)) {
            self.endpoints.entry(*endpoint).and_modify(|one| one.gone = one.gone.or(Some(now)));
        }
        for (endpoint, entry, workload) in endpoints {
            let (endpoint, workload) = (*endpoint, workload.clone());
            let address = SocketAddr::from(Destination { address: entry.address, port: entry.port });
            held.members.insert(address, endpoint);
            let about = Arc::new(EndpointOf { cluster: number, address, workload });
            self.endpoints.insert(endpoint, Numbered { about, gone: None });
        }
        *held = Held { cluster: Some(cluster), health, gone: None, ..std::mem::take(held) };
    }

    /// One listener more reaches it.
    pub(super) fn hold(&mut self, number: u32) {
        if let Some(held) = self.by_number.get_mut(&number) {
            held.users += 1;
            held.gone = None;
        }
    }

    /// One listener fewer; the last one's leaving is the end.
    pub(super) fn let_go(&mut self, number: u32, now: Instant) {
        if let Some(held) = self.by_number.get_mut(&number) {
            held.users = held.users.saturating_sub(1);
        }
        self.end_if_unused(number, now);
    }

    pub(super) fn end_if_unused(&mut self, number: u32, now: Instant) {
        if let Some(held) = self.by_number.get_mut(&number).filter(|held| held.users == 0) {
            held.gone = held.gone.or(Some(now));
        }
    }

    /// Endpoints and clusters that have been gone for `grace`.
    pub(super) fn over(&self, now: Instant, grace: Duration) -> (Vec<u32>, Vec<u32>) {
        let over =
            |gone: Option<Instant>| gone.is_some_and(|since| now.saturating_duration_since(since) >= grace);
        let clusters = self.by_number.iter().filter(|(_, held)| over(held.gone)).map(|(number, _)| *number);
        let clusters: Vec<_> = clusters.collect();
        let of_gone =
            |about: &EndpointOf| self.by_number.get(&about.cluster).is_none_or(|held| over(held.gone));
        let endpoints = self.endpoints.iter().filter(|(_, one)| over(one.gone) || of_gone(&one.about));
        (endpoints.map(|(number, _)| *number).collect(), clusters)
    }

    /// Whether anything that is gone stands in the maps still.
    pub(super) fn is_anything_in(&self, maps: &Maps) -> bool {
        let gone_cluster = |number: &u32| self.by_number.get(number).is_some_and(|held| held.gone.is_some());
        let gone_endpoint = |number: &u32| self.endpoints.get(number).is_some_and(|one| one.gone.is_some());
        maps.clusters.held.keys().any(gone_cluster) || maps.endpoints.held.keys().any(gone_endpoint)
    }

    pub(super) fn forget_endpoint(&mut self, number: u32) {
        let Some(Numbered { about, .. }) = self.endpoints.remove(&number) else { return };
        if let Some(held) = self.by_number.get_mut(&about.cluster)
            && held.members.get(&about.address) == Some(&number)
        {
            held.members.remove(&about.address);
        }
    }

    pub(super) fn forget_cluster(&mut self, number: u32) {
        let Some(held) = self.by_number.remove(&number) else { return };
        if let Some(cluster) = held.cluster
            && self.names.get(&cluster.name) == Some(&number)
        {
            self.names.remove(&cluster.name);
        }
        self.nameless.retain(|_, nameless| *nameless != number);
        self.watched.remove(&number);
    }
}

/// What stands in `ENDPOINTS`.
pub(super) fn endpoint_entry(cluster: u32, address: SocketAddr, ejected: bool) -> direct::Endpoint {
    let Destination { address, port } = address.into();
    direct::Endpoint { address, port, ejected: ejected.into(), padding: 0, cluster }
}

/// Where a cluster's slots are.
pub(super) fn region(entry: &direct::Cluster) -> Region {
    Region { base: entry.base, count: entry.count }
}

fn endpoints_of(cluster: &Cluster) -> &[Endpoint] {
    match &cluster.kind {
        ClusterKind::Endpoints(all) => all,
        ClusterKind::OriginalDestination | ClusterKind::Named(_) | ClusterKind::Missing(_) => &[],
    }
}

/// What stands in `CLUSTERS`, but for the region.
fn cluster_entry(cluster: &Cluster, panic: bool) -> direct::Cluster {
    type Entry = direct::Cluster;
    let missing = matches!(cluster.kind, ClusterKind::Missing(_));
    let flags = [
        (panic, Entry::PANIC),
        (missing, Entry::MISSING),
        (cluster.outlier.is_some(), Entry::OUTLIER),
        (cluster.keepalive.is_some(), Entry::KEEPALIVE),
    ];
    let keepalive = cluster.keepalive.unwrap_or_default();
    let original = cluster.kind == ClusterKind::OriginalDestination;
    let balancing = if original { direct::Balancing::OriginalDestination } else { cluster.balancing };
    Entry {
        name_hash: plan::name_hash(cluster.name.as_str()),
        max_connections: cluster.limit.map_or(Entry::UNLIMITED, |limit| limit.max_connections),
        connect_timeout_ms: u32::try_from(cluster.connect_timeout.as_millis()).unwrap_or(u32::MAX),
        keepalive_idle_s: keepalive.time.map_or(0, seconds),
        keepalive_interval_s: keepalive.interval.map_or(0, seconds),
        keepalive_probes: keepalive.probes.unwrap_or_default(),
        balancing: balancing as u8,
        limit_scope: cluster.limit.map_or_else(LimitScope::default, |limit| limit.scope) as u8,
        flags: flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag),
        ..Entry::default()
    }
}

/// Whole seconds, at least one: the kernel takes no part of one, and 0 would mean the system's.
fn seconds(duration: Duration) -> u32 {
    let part = u64::from(duration.subsec_nanos() > 0);
    u32::try_from(duration.as_secs() + part).unwrap_or(u32::MAX).max(1)
}
