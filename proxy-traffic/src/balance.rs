//! Cluster → endpoint, by the same arithmetic that the kernel runs.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use proxy_common::{direct::Slot, pick, v4_mapped};

use crate::{
    Balancing, Cluster, ClusterKind, Error, Flow,
    outlier::Health,
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

/// An endpoint of `cluster`, as its balancing says; those that are `full` are passed over as the ejected are. `draws`
/// gives uniform numbers.
///
/// # Errors
/// [`Error::NoCluster`] when host or subset do not exist, [`Error::NoHealthyUpstream`] when nobody is there.
pub fn pick(
    cluster: &Cluster,
    flow: &Flow<'_>,
    full: &HashSet<SocketAddr>,
    draws: impl FnMut() -> u32,
) -> Result<Picked, Error> {
    let mut address = flow.destination;
    cluster.port.into_iter().for_each(|port| address.set_port(port));
    let original = Picked { address, place: None };
    match &cluster.kind {
        ClusterKind::Missing(reason) => {
            Err(Error::NoCluster { name: cluster.name.clone(), reason: reason.clone() })
        }
        ClusterKind::OriginalDestination | ClusterKind::Named(_) => Ok(original),
        ClusterKind::Endpoints(_) if cluster.balancing == Balancing::OriginalDestination => Ok(original),
        ClusterKind::Endpoints(endpoints) => {
            let number = choose(cluster, flow, full, draws);
            let place = number.map(|number| number - 1);
            let found = place.and_then(|place| endpoints.get(place as usize));
            let picked = found.map(|endpoint| Picked { address: endpoint.address, place });
            picked.ok_or_else(|| Error::NoHealthyUpstream(cluster.name.clone()))
        }
    }
}

/// The number of the endpoint: its place plus 1.
fn choose(
    cluster: &Cluster,
    flow: &Flow<'_>,
    full: &HashSet<SocketAddr>,
    draws: impl FnMut() -> u32,
) -> Option<u32> {
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
        let is_well =
            |all: &Health| all.panic || endpoint.is_some_and(|one| !all.ejected.contains(&one.address));
        health.as_deref().is_none_or(is_well) && endpoint.is_none_or(|one| !full.contains(&one.address))
    };
    pick::endpoint(
        cluster.balancing as u8,
        table.slots.len() as u32,
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
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::{Door, Endpoint, OutlierDetection, Workload, outlier::Outcome};

    const RULES: OutlierDetection = OutlierDetection {
        consecutive: 1,
        interval: Duration::from_secs(10),
        base_ejection: Duration::from_secs(30),
        max_ejection_percent: 100,
        min_health_percent: 0,
    };

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 80))
    }

    /// A cluster of endpoints with these weights, from 10.0.0.1 on.
    fn cluster(balancing: Balancing, weights: &[u32]) -> Cluster {
        let endpoint = |(host, weight): (u8, &u32)| Endpoint {
            address: address(host),
            weight: *weight,
            workload: Arc::default(),
        };
        Cluster {
            kind: ClusterKind::Endpoints((1..).zip(weights).map(endpoint).collect()),
            balancing,
            outlier: Some(RULES),
            ..Cluster::passthrough(Duration::from_secs(1))
        }
    }

    /// A source of draws; the same every time.
    fn draws() -> impl FnMut() -> u32 {
        let mut state = 0;
        move || {
            state += 0x9e37_79b9_7f4a_7c15_u64 & 0xffff_ffff_ffff;
            pick::mix(state) as u32
        }
    }

    fn pick_from(cluster: &Cluster, source: &str, draws: impl FnMut() -> u32) -> Result<Picked, Error> {
        let (name, namespace, labels) = (String::new(), String::new(), BTreeMap::new());
        let workload = Workload { name, namespace, labels };
        let destination = address(99);
        let flow = Flow {
            door: Door::Mesh,
            workload: &workload,
            source: source.parse().unwrap(),
            destination,
            sniffed: &crate::Sniffed::Nothing,
        };
        pick(cluster, &flow, &HashSet::new(), draws)
    }

    /// How often each host is picked in `count` connections, as places.
    fn counts(cluster: &Cluster, count: usize) -> Vec<usize> {
        let mut draws = draws();
        let mut counts = vec![0; cluster.endpoints().len()];
        for source in 0..count {
            let from = format!("10.{}.{}.7:40000", source / 256, source % 256);
            let picked = pick_from(cluster, &from, &mut draws).unwrap();
            let place = picked.place.unwrap() as usize;
            assert_eq!(picked.address, cluster.endpoints()[place].address);
            counts[place] += 1;
        }
        counts
    }

    #[test]
    fn every_policy_keeps_to_the_weights() {
        for balancing in
            [Balancing::Random, Balancing::LeastRequest, Balancing::RoundRobin, Balancing::SourceHash]
        {
            let counts = counts(&cluster(balancing, &[1, 3]), 4000);
            // Six standard deviations of a fair draw; the round is exact.
            let slack = if balancing == Balancing::RoundRobin { 0 } else { 165 };
            assert!(counts[1].abs_diff(3000) <= slack, "{balancing:?}: {counts:?}");
        }
    }

    #[test]
    fn nobody_picks_the_ejected_until_all_are() {
        for balancing in
            [Balancing::Random, Balancing::LeastRequest, Balancing::RoundRobin, Balancing::SourceHash]
        {
            let cluster = cluster(balancing, &[1, 1, 1]);
            let eject = |host| {
                let outcome = Outcome::Failed { run: None };
                assert!(cluster.state.report(&cluster, address(host), outcome, Duration::ZERO));
            };
            eject(2);
            let spread = counts(&cluster, 900);
            assert!(spread[1] == 0 && spread[0].abs_diff(450) < 100, "{balancing:?}: {spread:?}");
            eject(1);
            assert_eq!(counts(&cluster, 50), [0, 0, 50], "{balancing:?}");
            eject(3);
            let error = pick_from(&cluster, "10.1.0.1:1", draws()).unwrap_err();
            assert_eq!(error.flag().as_str(), "UH", "{balancing:?}");
            // The rules went away, and with them what they found.
            let free = Cluster { outlier: None, ..cluster };
            assert!(pick_from(&free, "10.1.0.1:1", draws()).is_ok());
        }
    }

    #[test]
    fn in_panic_the_ejected_serve() {
        let mut cluster = cluster(Balancing::Random, &[1, 1]);
        cluster.outlier = Some(OutlierDetection { min_health_percent: 60, ..RULES });
        cluster.state.report(&cluster, address(1), Outcome::Failed { run: None }, Duration::ZERO);
        assert!(counts(&cluster, 100)[0] > 20);
    }

    #[test]
    fn least_request_spares_the_busy_also_after_a_reload() {
        let before = cluster(Balancing::LeastRequest, &[1, 1]);
        (0..10).for_each(|_| opened(&before, 0));
        let after =
            Cluster { state: Arc::clone(&before.state), ..cluster(Balancing::LeastRequest, &[1, 1, 1]) };
        let spread = counts(&after, 900);
        // It is taken only where both draws are its own: one in nine.
        assert!(spread[0].abs_diff(100) < 60, "{spread:?}");
        (0..10).for_each(|_| closed(&before, 0));
        assert!(counts(&after, 900)[0] > 200);
    }

    #[test]
    fn a_source_keeps_its_endpoint_whatever_its_port() {
        let cluster = cluster(Balancing::SourceHash, &[1, 1, 1, 1]);
        for host in 0..50 {
            let find = |port| pick_from(&cluster, &format!("10.2.0.{host}:{port}"), draws()).unwrap();
            assert_eq!(find(1), find(40_000));
        }
    }

    #[test]
    fn passthrough_goes_where_the_client_went() {
        let cluster = cluster(Balancing::OriginalDestination, &[1, 1]);
        let want = Picked { address: address(99), place: None };
        assert_eq!(pick_from(&cluster, "10.2.0.1:1", draws()).unwrap(), want);
    }

    #[test]
    fn nobody_and_nothing_have_their_flags() {
        let empty = cluster(Balancing::Random, &[]);
        assert_eq!(pick_from(&empty, "10.2.0.1:1", draws()).unwrap_err().flag().as_str(), "UH");
        let missing = Cluster { kind: ClusterKind::Missing(String::new()), ..empty };
        assert_eq!(pick_from(&missing, "10.2.0.1:1", draws()).unwrap_err().flag().as_str(), "NC");
    }
}
