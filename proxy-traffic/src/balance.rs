//! Cluster → endpoint.

use std::net::SocketAddr;

use proxy_common::pick;

use crate::{Cluster, ClusterKind, Endpoint, Error, Flow};

/// Who serves this connection.
#[derive(Clone, Copy, Debug)]
pub struct Picked<'a> {
    /// Where to connect.
    pub address: SocketAddr,
    /// The endpoint; `None` for the original destination.
    pub endpoint: Option<&'a Endpoint>,
}

/// The next endpoint of `cluster`: round robin, each endpoint as often as its weight says.
///
/// # Errors
/// [`Error::NoCluster`] when host or subset do not exist, [`Error::NoHealthyUpstream`] when nobody is there.
pub fn pick<'a>(cluster: &'a Cluster, flow: &Flow<'_>) -> Result<Picked<'a>, Error> {
    match &cluster.kind {
        ClusterKind::OriginalDestination => Ok(Picked { address: flow.destination, endpoint: None }),
        ClusterKind::Missing(reason) => {
            Err(Error::NoCluster { name: cluster.name.clone(), reason: reason.clone() })
        }
        ClusterKind::Endpoints(endpoints) => round_robin(endpoints, cluster.state.advance())
            .map(|endpoint| Picked { address: endpoint.address, endpoint: Some(endpoint) })
            .ok_or_else(|| Error::NoHealthyUpstream(cluster.name.clone())),
    }
}

/// The endpoint at place `turn` of an endless round in which each appears `weight` times in a row.
fn round_robin(endpoints: &[Endpoint], turn: usize) -> Option<&Endpoint> {
    let weights = || endpoints.iter().map(|endpoint| u64::from(endpoint.weight));
    let round: u64 = weights().sum();
    let point = (turn as u64).checked_rem(round)?;
    pick::weighted(point, weights()).map(|index| &endpoints[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_visits_each_endpoint_as_often_as_its_weight() {
        let endpoint = |port, weight| Endpoint {
            address: SocketAddr::from(([10, 0, 0, 1], port)),
            weight,
            workload: Default::default(),
        };
        let endpoints = [endpoint(1, 1), endpoint(2, 3)];
        let ports = (0..8).filter_map(|turn| round_robin(&endpoints, turn)).map(|e| e.address.port());
        assert_eq!(ports.collect::<Vec<_>>(), [1, 2, 2, 2, 1, 2, 2, 2]);
        assert!(round_robin(&[], 7).is_none());
    }
}
