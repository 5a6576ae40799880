//! Listener → verdict: what the kernel does with a workload's connections, decided before there are any.

use std::{fmt, net::SocketAddr, sync::Arc};

use ipnet::IpNet;

use crate::{Cluster, ClusterKind, Listener, Route, SteerReason, Workload, route};

/// What the kernel does.
#[derive(Clone, Debug)]
pub enum Decision<'a> {
    /// It connects untouched: no rule holds for this workload.
    Pass,
    /// It routes by itself.
    Direct(&'a Arc<Route>),
    /// It gives the connection to the daemon.
    Steer(SteerReason),
}

/// What the kernel does with connections of `workload` to `destination`: one address, or those of a prefix that no
/// longer one of [`prefixes`] holds.
#[must_use]
pub fn decide<'a>(listener: &'a Listener, destination: IpNet, workload: &Workload) -> Decision<'a> {
    if let Some(reason) = &listener.steer {
        return Decision::Steer(reason.clone());
    }
    let Some(route) = route::statically(listener, destination, workload) else { return Decision::Pass };
    let mut endpoints = route.destinations.iter().flat_map(|arm| addresses(&arm.cluster));
    match endpoints.find(|endpoint| endpoint.is_ipv4() != destination.addr().is_ipv4()) {
        Some(other) => Decision::Steer(SteerReason::Family(other)),
        None => Decision::Direct(route),
    }
}

/// Whether the answer of [`decide`] may differ from workload to workload.
#[must_use]
pub fn depends_on_workload(listener: &Listener) -> bool {
    let mut matches = listener.rules.iter().flat_map(|rule| &rule.matches);
    listener.steer.is_none()
        && matches.any(|one| one.source_namespace.is_some() || !one.source_labels.is_empty())
}

/// The parts of `subnet` that rules may send different ways: itself, and what rules name inside it.
#[must_use]
pub fn prefixes(listener: &Listener, subnet: IpNet) -> Vec<IpNet> {
    let matches = listener.rules.iter().flat_map(|rule| &rule.matches);
    let named = matches.flat_map(|one| &one.destination_subnets).copied();
    let mut all: Vec<_> = named.filter(|named| subnet.contains(named)).chain([subnet]).collect();
    all.sort();
    all.dedup();
    all
}

fn addresses(cluster: &Cluster) -> impl Iterator<Item = SocketAddr> {
    let endpoints = match &cluster.kind {
        ClusterKind::Endpoints(all) => all.as_slice(),
        ClusterKind::OriginalDestination | ClusterKind::Missing(_) => &[],
    };
    endpoints.iter().map(|endpoint| endpoint.address)
}

/// As `shunt routes` says it.
impl fmt::Display for SteerReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting => f.write_str("--datapath steer"),
            Self::Annotation(resource) => write!(f, "shunt.dev/datapath: steer on {resource}"),
            Self::SourceSubnet => f.write_str("sourceSubnet is known only once a connection is accepted"),
            Self::ShortConnectTimeout(cluster) => {
                write!(f, "connectTimeout of {cluster} is below 1s, which the kernel cannot keep")
            }
            Self::OverflowCloses(cluster) => {
                write!(f, "shunt.dev/overflow: close, and {cluster} has a limit")
            }
            Self::SharedLimit(cluster, listener) => {
                write!(f, "the daemon counts the connections of {cluster}, because {listener} is steered")
            }
            Self::Family(endpoint) => {
                write!(f, "the endpoint {endpoint} is of another address family")
            }
        }
    }
}
