//! Service port and subset → cluster.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Settings,
    policy::{self, Policies},
    registry::{Entry, Port, Registry},
};
use crate::{
    Balancing, Cluster, ClusterKind, ClusterName, Endpoint, Service, Snapshot, WorkloadName,
    istio::resource::{Subset, selects},
};

/// The clusters that routes asked for so far.
pub(super) struct Clusters<'a> {
    pub(super) registry: &'a Registry<'a>,
    policies: &'a Policies<'a>,
    previous: &'a Snapshot,
    settings: &'a Settings,
    made: BTreeMap<ClusterName, Arc<Cluster>>,
}

/// What a route names and nobody has.
pub(super) struct Missing {
    /// `host`, `subset` or `port`.
    pub(super) part: &'static str,
    pub(super) reason: String,
}

/// Where a cluster's endpoints come from.
type Found<'a> = (&'a Entry<'a>, &'a Port<'a>, Option<&'a Subset>);

impl<'a> Clusters<'a> {
    pub(super) fn new(
        registry: &'a Registry<'a>,
        policies: &'a Policies<'a>,
        previous: &'a Snapshot,
        settings: &'a Settings,
    ) -> Self {
        Self { registry, policies, previous, settings, made: BTreeMap::new() }
    }

    /// All that were asked for.
    pub(super) fn into_map(self) -> BTreeMap<ClusterName, Arc<Cluster>> {
        self.made
    }

    /// The cluster of `port` of `host`, or of one subset of it.
    pub(super) fn get(&mut self, host: &str, port: u16, subset: &str) -> (Arc<Cluster>, Option<Missing>) {
        let name = ClusterName::outbound(port, subset, host);
        let found = self.find(host, port, subset);
        if let Some(cluster) = self.made.get(&name) {
            return (cluster.clone(), found.err());
        }
        let cluster = Arc::new(self.make(name.clone(), host, port, &found));
        self.made.insert(name, cluster.clone());
        (cluster, found.err())
    }

    fn find(&self, host: &str, port: u16, subset: &str) -> Result<Found<'a>, Missing> {
        let missing = |part, reason| Missing { part, reason };
        let unknown = || missing("host", policy::unknown_host(host, self.registry, self.settings));
        let entry = self.registry.get(host).ok_or_else(unknown)?;
        let no_port = || missing("port", format!("{host} has no TCP port {port}"));
        let served = entry.port(port).ok_or_else(no_port)?;
        if subset.is_empty() {
            return Ok((entry, served, None));
        }
        let no_rule = || missing("subset", format!("no DestinationRule gives {host} a subset {subset}"));
        let policy = self.policies.get(host).ok_or_else(no_rule)?;
        let no_subset =
            || missing("subset", format!("DestinationRule {} has no subset {subset}", policy.rule()));
        policy.subset(subset).map(|found| (entry, served, Some(found))).ok_or_else(no_subset)
    }

    fn make(&self, name: ClusterName, host: &str, port: u16, found: &Result<Found<'a>, Missing>) -> Cluster {
        let (service, kind, connect_timeout) = match found {
            Ok((entry, port, subset)) => {
                let timeout = self.timeout(host, port.number, *subset);
                (entry.service.clone(), ClusterKind::Endpoints(endpoints(port, *subset)), timeout)
            }
            Err(missing) => {
                let service =
                    self.registry.get(host).map_or_else(|| unknown(host), |entry| entry.service.clone());
                (service, ClusterKind::Missing(missing.reason.clone()), self.timeout(host, port, None))
            }
        };
        let state = self.previous.clusters.get(&name).map(|cluster| cluster.state.clone());
        Cluster {
            name,
            service,
            kind,
            connect_timeout,
            balancing: Balancing::RoundRobin,
            limit: None,
            keepalive: None,
            outlier: None,
            state: state.unwrap_or_default(),
            table: Default::default(),
        }
    }

    fn timeout(&self, host: &str, port: u16, subset: Option<&Subset>) -> Duration {
        let said = self.policies.get(host).and_then(|policy| policy.connect_timeout(subset, port));
        said.unwrap_or(self.settings.connect_timeout)
    }
}

/// A service that nobody knows, for metrics.
fn unknown(host: &str) -> Service {
    Service { host: host.to_owned(), name: host.to_owned(), namespace: WorkloadName::UNKNOWN.to_owned() }
}

/// Those on the port who are in the subset.
fn endpoints(port: &Port<'_>, subset: Option<&Subset>) -> Vec<Endpoint> {
    let instances = port
        .instances
        .iter()
        .filter(|instance| subset.is_none_or(|subset| selects(&subset.labels, &instance.workload.labels)));
    let endpoint = |instance: &super::registry::Instance<'_>| Endpoint {
        address: instance.address,
        weight: instance.workload.weight,
        workload: instance.workload.name.clone(),
    };
    instances.map(endpoint).collect()
}
