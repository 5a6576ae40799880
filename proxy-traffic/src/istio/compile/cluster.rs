//! Service port and subset → cluster.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Problems, Settings,
    blocks::Blocks,
    locality,
    policy::{self, Member, Policies},
    registry::{Entry, Instance, Port, Registry},
    traffic,
};
use crate::{
    Balancing, Cluster, ClusterKind, ClusterName, ClusterState, Endpoint, Service, Snapshot, WorkloadName,
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
type Found<'a> = (&'a Entry<'a>, &'a Port<'a>, Option<Member<'a>>);

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

    /// The cluster of `port` of `host`, or of one subset of it. One that is as it was keeps its place in memory.
    pub(super) fn get(
        &mut self,
        host: &str,
        port: u16,
        subset: &str,
        problems: &mut Problems,
    ) -> (Arc<Cluster>, Option<Missing>) {
        let name = ClusterName::outbound(port, subset, host);
        let found = self.find(host, port, subset);
        if let Some(cluster) = self.made.get(&name) {
            return (cluster.clone(), found.err());
        }
        let previous = self.previous.clusters.get(&name);
        let made = match &found {
            Ok(found) => self.make(name.clone(), host, *found, previous, problems),
            Err(missing) => self.missing(name.clone(), host, missing, previous),
        };
        let same = previous.filter(|previous| ***previous == made);
        let cluster = same.cloned().unwrap_or_else(|| Arc::new(made));
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

    fn make(
        &self,
        name: ClusterName,
        host: &str,
        (entry, port, member): Found<'a>,
        previous: Option<&Arc<Cluster>>,
        problems: &mut Problems,
    ) -> Cluster {
        let policy = self.policies.get(host);
        let blocks = policy.map(|policy| policy.blocks(member, port.number)).unwrap_or_default();
        let balancing = traffic::balancing(&blocks);
        let kind = if balancing == Balancing::OriginalDestination {
            report_unreachable(entry, &blocks, problems);
            ClusterKind::OriginalDestination
        } else {
            let subset = member.map(|(_, _, subset)| subset);
            let endpoints =
                placed(instances(port, subset), &blocks, &self.settings.locality, &name, problems);
            report_never_ejected(&name, &endpoints, &blocks, problems);
            ClusterKind::Endpoints(endpoints)
        };
        Cluster {
            name,
            service: entry.service.clone(),
            kind,
            connect_timeout: traffic::connect_timeout(&blocks).unwrap_or(self.settings.connect_timeout),
            balancing,
            limit: traffic::limit(&blocks),
            keepalive: traffic::keepalive(&blocks),
            outlier: traffic::outlier(&blocks),
            state: state(previous),
        }
    }

    fn missing(
        &self,
        name: ClusterName,
        host: &str,
        missing: &Missing,
        previous: Option<&Arc<Cluster>>,
    ) -> Cluster {
        let service = self.registry.get(host).map_or_else(|| unknown(host), |entry| entry.service.clone());
        Cluster {
            name,
            service,
            kind: ClusterKind::Missing(missing.reason.clone()),
            connect_timeout: self.settings.connect_timeout,
            balancing: Balancing::default(),
            limit: None,
            keepalive: None,
            outlier: None,
            state: state(previous),
        }
    }
}

/// The running side of a cluster of the same name, or a new one.
fn state(previous: Option<&Arc<Cluster>>) -> Arc<ClusterState> {
    previous.map(|cluster| cluster.state.clone()).unwrap_or_default()
}

/// A service that nobody knows, for metrics.
fn unknown(host: &str) -> Service {
    Service { host: host.to_owned(), name: host.to_owned(), namespace: WorkloadName::UNKNOWN.to_owned() }
}

/// Those on the port who are in the subset.
fn instances<'a, 'r>(port: &'r Port<'a>, subset: Option<&'r Subset>) -> Vec<&'r Instance<'a>> {
    let within =
        |one: &&Instance<'_>| subset.is_none_or(|subset| selects(&subset.labels, &one.workload.labels));
    port.instances.iter().filter(within).collect()
}

/// `instances` as endpoints, without those that get nothing where this process is.
fn placed(
    instances: Vec<&Instance<'_>>,
    blocks: &Blocks<'_>,
    here: &str,
    name: &ClusterName,
    problems: &mut Problems,
) -> Vec<Endpoint> {
    let endpoint = |one: &Instance<'_>, weight| Endpoint {
        address: one.address,
        weight,
        workload: one.workload.name.clone(),
    };
    let setting = blocks.balancer.and_then(|block| Some((block, block.value.locality_lb_setting.as_ref()?)));
    let weights: Vec<_> = instances.iter().map(|one| (one.workload.locality, one.workload.weight)).collect();
    let Some((block, index, shares)) = setting.and_then(|(block, setting)| {
        locality::weights(setting, here, &weights).map(|(index, shares)| (block, index, shares))
    }) else {
        return instances.iter().map(|one| endpoint(one, one.workload.weight)).collect();
    };
    let serving = instances.iter().zip(shares).filter(|(_, share)| *share > 0);
    let endpoints: Vec<_> = serving.map(|(one, share)| endpoint(one, share)).collect();
    if endpoints.is_empty() && !instances.is_empty() {
        let field = format!("loadBalancer.localityLbSetting.distribute[{index}].to");
        let what = format!("no endpoint of {name} is in any of these places: connections are closed (UH)");
        problems.warn(block.place.rule, block.place.field(&field), what);
    }
    endpoints
}

/// Who dials an address that we made up, and is passed through, gets nowhere.
fn report_unreachable(entry: &Entry<'_>, blocks: &Blocks<'_>, problems: &mut Problems) {
    let Some(block) = blocks.balancer.filter(|_| entry.addresses.is_empty() && entry.subnets.is_empty())
    else {
        return;
    };
    let what = format!(
        "{} has no address of its own, and PASSTHROUGH dials what the client dialled: nobody is there",
        entry.service.host
    );
    problems.warn(block.place.rule, block.place.field("loadBalancer.simple"), what);
}

/// Where the percentage is less than one endpoint, detection has no effect.
fn report_never_ejected(
    name: &ClusterName,
    endpoints: &[Endpoint],
    blocks: &Blocks<'_>,
    problems: &mut Problems,
) {
    let (Some(block), Some(outlier), count) = (blocks.outlier, traffic::outlier(blocks), endpoints.len())
    else {
        return;
    };
    let percent = outlier.max_ejection_percent;
    if count > 0 && percent as usize * count < 100 {
        let what = format!(
            "{percent} % of {count} is less than one endpoint: nobody is ever ejected from {name}; write {} or more",
            100_usize.div_ceil(count)
        );
        problems.warn(block.place.rule, block.place.field("outlierDetection.maxEjectionPercent"), what);
    }
}
