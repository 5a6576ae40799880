//! Cluster → endpoint, by the same arithmetic that the kernel runs.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use proxy_common::{direct::Slot, pick, v4_mapped};

use crate::{
    Balancing, Cluster, ClusterKind, Error, Flow,
    table::{self, Member},
};

/// Who serves this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Where to connect.
    pub address: SocketAddr,
    /// Its place in the cluster's list; `None` for the original destination.
    pub place: Option<u32>,
}

/// What picking needs of a compiled cluster, made when it is first asked for. A clone starts anew: its endpoints may
/// become others.
#[derive(Debug, Default)]
pub struct Table(OnceLock<Ready>);

impl Clone for Table {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[derive(Debug)]
struct Ready {
    slots: Vec<Slot>,
    /// In the endpoints' order; empty unless balancing asks.
    loads: Vec<Arc<AtomicU64>>,
}

/// An endpoint of `cluster`, as its balancing says. `draws` gives uniform numbers.
///
/// # Errors
/// [`Error::NoCluster`] when host or subset do not exist, [`Error::NoHealthyUpstream`] when nobody is there.
pub fn pick(cluster: &Cluster, flow: &Flow<'_>, draws: impl FnMut() -> u32) -> Result<Picked, Error> {
    let original = Picked { address: flow.destination, place: None };
    match &cluster.kind {
        ClusterKind::Missing(reason) => {
            Err(Error::NoCluster { name: cluster.name.clone(), reason: reason.clone() })
        }
        ClusterKind::OriginalDestination => Ok(original),
        ClusterKind::Endpoints(_) if cluster.balancing == Balancing::OriginalDestination => Ok(original),
        ClusterKind::Endpoints(endpoints) => {
            let number = choose(cluster, flow, draws);
            let place = number.map(|number| number - 1);
            let found = place.and_then(|place| endpoints.get(place as usize));
            let picked = found.map(|endpoint| Picked { address: endpoint.address, place });
            picked.ok_or_else(|| Error::NoHealthyUpstream(cluster.name.clone()))
        }
    }
}

/// The number of the endpoint: its place plus 1.
fn choose(cluster: &Cluster, flow: &Flow<'_>, draws: impl FnMut() -> u32) -> Option<u32> {
    let table = ready(cluster);
    let turn = match cluster.balancing {
        Balancing::RoundRobin => cluster.state.advance(),
        Balancing::SourceHash => pick::source_hash(&v4_mapped(flow.source.ip())),
        _ => 0,
    };
    let health = cluster.outlier.and_then(|_| cluster.state.unhealthy());
    let endpoints = cluster.endpoints();
    let usable = |number: u32| {
        let endpoint = endpoints.get(number as usize - 1);
        health.as_ref().is_none_or(|all| endpoint.is_some_and(|one| !all.ejected.contains(&one.address)))
    };
    pick::endpoint(
        cluster.balancing as u8,
        table.slots.len() as u32,
        health.as_ref().is_some_and(|all| all.panic),
        draws,
        |place| table.slots.get(place as usize).copied(),
        usable,
        |number| load(cluster, number - 1).map_or(0, |load| load.load(Ordering::Relaxed)),
        turn,
    )
}

/// One more connection to the endpoint at `place`.
pub fn opened(cluster: &Cluster, place: u32) {
    if let Some(load) = load(cluster, place) {
        load.fetch_add(1, Ordering::Relaxed);
    }
}

/// One connection fewer.
pub fn closed(cluster: &Cluster, place: u32) {
    if let Some(load) = load(cluster, place) {
        load.fetch_sub(1, Ordering::Relaxed);
    }
}

fn load(cluster: &Cluster, place: u32) -> Option<&AtomicU64> {
    ready(cluster).loads.get(place as usize).map(|load| &**load)
}

fn ready(cluster: &Cluster) -> &Ready {
    cluster.table.0.get_or_init(|| {
        let addresses = || cluster.endpoints().iter().map(|endpoint| endpoint.address);
        let member = |(number, endpoint): (u32, &crate::Endpoint)| Member {
            number,
            weight: endpoint.weight,
            key: table::key(endpoint.address),
        };
        let members: Vec<_> = (1..).zip(cluster.endpoints()).map(member).collect();
        let loads = match cluster.balancing {
            Balancing::LeastRequest => cluster.state.loads(addresses()),
            _ => Vec::new(),
        };
        Ready { slots: table::keyed(cluster.balancing, &members), loads }
    })
}

#[cfg(test)]
mod tests;
