//! Taking over the maps of a daemon that is gone: from what they hold to what it knew.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use proxy_common::{Destination, Verdict};
use proxy_traffic::{Egress, WorkloadName};

use super::{
    super::{accounts::Accounts, error::Error},
    Tables,
    batch::arms_region,
    clusters::{Clusters, EndpointOf, Held, Numbered, Numbers, region},
    maps::{MAX_ENDPOINTS, Maps, Opened, Sizes},
    regions::{Region, Regions},
    scopes::Scopes,
    sweep::Idle,
    table::About,
};

impl Tables {
    /// Takes the maps with what they hold: nothing, or the tables of an earlier daemon, which stay in force.
    pub(in crate::kernel) fn open(opened: Opened, sizes: Sizes, now: Instant) -> Result<Self, Error> {
        let (mut maps, accounts) = Maps::open(opened, sizes)?;
        let clusters = known(&maps);
        let regions = Regions::adopt(maps.slots.size(), taken(&maps), maps.slots.given().touched, now);
        let mut given = maps.slots.given();
        (given.clusters, given.endpoints) = (clusters.last.cluster, clusters.last.endpoint);
        maps.slots.set_given(given);
        let settled = maps.workloads.held.is_empty() && maps.listener_keys().next().is_none();
        Ok(Self {
            maps,
            accounts: Accounts::new(accounts),
            accounts_about: About { name: "ACCOUNTS", size: sizes.endpoints, flag: MAX_ENDPOINTS },
            regions,
            clusters,
            scopes: Scopes::default(),
            places: HashMap::new(),
            scoped: HashSet::new(),
            egress: Egress::default(),
            guards_packets: false,
            last: None,
            postponed: None,
            settled,
            lingering: HashMap::new(),
            steered_gone: HashMap::new(),
            idle: Idle::default(),
            trouble: None,
        })
    }
}

/// What has a number, as far as the maps tell: of clusters the hash of the name.
fn known(maps: &Maps) -> Clusters {
    let mut clusters = Clusters::default();
    for (number, entry) in &maps.clusters.held {
        clusters.nameless.insert(entry.name_hash, *number);
        clusters.by_number.insert(*number, Held::default());
    }
    let unknown = Arc::new(WorkloadName::default());
    for (number, entry) in &maps.endpoints.held {
        let address = SocketAddr::from(Destination { address: entry.address, port: entry.port });
        let about = EndpointOf { cluster: entry.cluster, address, workload: unknown.clone() };
        clusters.endpoints.insert(*number, Numbered { about: Arc::new(about), gone: None });
        if let Some(held) = clusters.by_number.get_mut(&entry.cluster) {
            held.members.insert(address, *number);
        }
    }
    let given = maps.slots.given();
    let most =
        |numbers: &mut dyn Iterator<Item = &u32>, given: u32| numbers.copied().max().unwrap_or(0).max(given);
    clusters.last = Numbers {
        cluster: most(&mut maps.clusters.held.keys(), given.clusters),
        endpoint: most(&mut maps.endpoints.held.keys(), given.endpoints),
    };
    clusters
}

/// The regions that something points at.
fn taken(maps: &Maps) -> Vec<Region> {
    let listeners = maps.listeners.held.values().chain(maps.ranges.held.values());
    let direct = listeners.filter(|listener| listener.verdict == Verdict::Direct as u32).map(arms_region);
    direct.chain(maps.clusters.held.values().map(region)).collect()
}
