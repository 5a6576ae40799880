//! Service port and subset → cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Problems, Settings,
    blocks::Blocks,
    entry::{Entry, Instance, Passing, Port},
    ledger::{Ledger, Unit},
    locality,
    policy::{self, Member, Policies},
    registry::Registry,
    traffic,
};
use crate::{
    Balancing, Cluster, ClusterKind, ClusterName, ClusterState, Endpoint, Limit, LimitScope, Map, Service,
    WorkloadName,
    istio::resource::{Subset, selects},
};

/// Every cluster that some unit of the work asked for.
#[derive(Default)]
pub(super) struct Pool {
    made: Map<ClusterName, Arc<Cluster>>,
    /// How many units asked for each. One that nobody asked for any more is made anew when somebody does.
    users: BTreeMap<ClusterName, usize>,
    /// Those that lost a user since [`Self::sweep`].
    released: BTreeSet<ClusterName>,
}

/// What a unit of the work asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) clusters: BTreeSet<ClusterName>,
    /// Hosts that it looked up, whether they are there or not.
    pub(super) hosts: BTreeSet<String>,
}

/// The clusters that one unit after the other asks for.
pub(super) struct Clusters<'a> {
    pub(super) registry: &'a Registry,
    policies: Policies<'a>,
    settings: &'a Settings,
    pool: &'a mut Pool,
    ledger: &'a mut Ledger,
    asked: Asked,
}

/// What a route names and nobody has.
pub(super) struct Missing {
    /// `host`, `subset` or `port`.
    pub(super) part: &'static str,
    pub(super) reason: String,
}

/// Where a cluster's endpoints come from.
type Found<'a> = (&'a Entry, &'a Port, Option<Member<'a>>);

impl Pool {
    /// Clusters of a snapshot that somebody else compiled: their running side is taken over.
    pub(super) fn after(previous: &Map<ClusterName, Arc<Cluster>>) -> Self {
        let released = previous.keys().cloned().collect();
        Self { made: previous.clone(), users: BTreeMap::new(), released }
    }

    /// All of them.
    pub(super) fn made(&self) -> &Map<ClusterName, Arc<Cluster>> {
        &self.made
    }

    /// Takes back what a unit asked for, which is done again.
    pub(super) fn release(&mut self, asked: &Asked) {
        for name in &asked.clusters {
            let Some(users) = self.users.get_mut(name) else { continue };
            *users -= 1;
            if *users == 0 {
                self.users.remove(name);
                self.released.insert(name.clone());
            }
        }
    }

    /// Drops what nobody asks for any more.
    pub(super) fn sweep(&mut self, ledger: &mut Ledger) {
        for name in std::mem::take(&mut self.released) {
            if !self.users.contains_key(&name) {
                self.made.remove(&name);
                ledger.set(Unit::Cluster(name), Problems::default());
            }
        }
    }
}

impl<'a> Clusters<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        policies: Policies<'a>,
        settings: &'a Settings,
        pool: &'a mut Pool,
        ledger: &'a mut Ledger,
    ) -> Self {
        Self { registry, policies, settings, pool, ledger, asked: Asked::default() }
    }

    /// The end of a unit: what was asked for since the last.
    pub(super) fn asked(&mut self) -> Asked {
        std::mem::take(&mut self.asked)
    }

    /// The cluster of `port` of `host`, or of one subset of it. One that is as it was keeps its place in memory.
    pub(super) fn get(&mut self, host: &str, port: u16, subset: &str) -> (Arc<Cluster>, Option<Missing>) {
        let name = ClusterName::outbound(port, subset, host);
        let found = self.find(host, port, subset);
        self.note(host);
        let is_fresh = self.pool.users.contains_key(&name);
        if self.asked.clusters.insert(name.clone()) {
            *self.pool.users.entry(name.clone()).or_default() += 1;
        }
        let previous = self.pool.made.get(&name);
        if let Some(cluster) = previous.filter(|_| is_fresh) {
            return (cluster.clone(), found.err());
        }
        let mut problems = Problems::default();
        let made = match &found {
            Ok(found) => self.make(name.clone(), host, found, previous, &mut problems),
            Err(missing) => self.missing(name.clone(), host, missing, previous),
        };
        self.ledger.set(Unit::Cluster(name.clone()), problems);
        if let Some(same) = previous.filter(|previous| ***previous == made) {
            return (same.clone(), found.err());
        }
        let cluster = Arc::new(made);
        self.pool.made.insert(name, cluster.clone());
        (cluster, found.err())
    }

    /// What is said of a host that is not there depends on others that may come.
    fn note(&mut self, host: &str) {
        if self.registry.get(host).is_none() {
            self.asked.hosts.extend(policy::literal(host, self.settings));
        }
        if !self.asked.hosts.contains(host) {
            self.asked.hosts.insert(host.to_owned());
        }
    }

    fn find(&self, host: &str, port: u16, subset: &str) -> Result<Found<'a>, Missing> {
        let missing = |part, reason| Missing { part, reason };
        let unknown = || missing("host", policy::unknown_host(host, self.registry, self.settings));
        let entry: &Entry = self.registry.get(host).ok_or_else(unknown)?;
        let no_port = || missing("port", format!("{host} has no TCP port {port}"));
        let served = entry.port(port).ok_or_else(no_port)?;
        if subset.is_empty() {
            return Ok((entry, served, None));
        }
        let no_rule = || missing("subset", format!("no DestinationRule gives {host} a subset {subset}"));
        let policy = self.policies.get(host).ok_or_else(no_rule)?;
        let no_subset =
            || missing("subset", format!("DestinationRule {} has no subset {subset}", policy.rule()));
        let member = policy.subset(subset).ok_or_else(no_subset)?;
        Ok((entry, served, Some(member)))
    }

    fn make(
        &self,
        name: ClusterName,
        host: &str,
        (entry, port, member): &Found<'a>,
        previous: Option<&Arc<Cluster>>,
        problems: &mut Problems,
    ) -> Cluster {
        let policy = self.policies.get(host);
        let blocks = policy.map(|policy| policy.blocks(*member, port.number)).unwrap_or_default();
        let balancing = traffic::balancing(&blocks);
        let (mut limit, mut outlier) = (traffic::limit(&blocks), traffic::outlier(&blocks));
        let balancing = port.passing.map_or(balancing, |_| Balancing::OriginalDestination);
        let kind = if let Some(passing) = port.passing {
            // Nobody knows its endpoints, so nothing is counted by them.
            limit = limit.map(|limit| match limit.scope {
                LimitScope::Endpoint => Limit { scope: LimitScope::Workload, ..limit },
                LimitScope::Workload | LimitScope::Node => limit,
            });
            outlier = None;
            passing.kind()
        } else if balancing == Balancing::OriginalDestination {
            report_passed_through(entry, &blocks, problems);
            // Nobody knows its endpoints, so nothing is counted by them.
            limit = limit.map(|limit| match limit.scope {
                LimitScope::Endpoint => Limit { scope: LimitScope::Workload, ..limit },
                LimitScope::Workload | LimitScope::Node => limit,
            });
            outlier = None;
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
            port: port.passing.and_then(Passing::port),
            connect_timeout: traffic::connect_timeout(&blocks).unwrap_or(self.settings.connect_timeout),
            balancing,
            limit,
            keepalive: traffic::keepalive(&blocks),
            outlier,
            state: state(previous),
            table: Default::default(),
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
            port: None,
            connect_timeout: self.settings.connect_timeout,
            balancing: Balancing::default(),
            limit: None,
            keepalive: None,
            outlier: None,
            state: state(previous),
            table: Default::default(),
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

/// Those on the port who are in the subset, each address once: the first resource that brings it has it.
fn instances<'a>(port: &'a Port, subset: Option<&Subset>) -> Vec<&'a Instance> {
    let within = |one: &&Instance| subset.is_none_or(|subset| selects(&subset.labels, one.workload.labels()));
    let mut seen = BTreeSet::new();
    port.instances.iter().filter(within).filter(|one| seen.insert(one.address)).collect()
}

/// `instances` as endpoints, without those that get nothing where this process is.
fn placed(
    instances: Vec<&Instance>,
    blocks: &Blocks<'_>,
    here: &str,
    name: &ClusterName,
    problems: &mut Problems,
) -> Vec<Endpoint> {
    let endpoint = |one: &Instance, weight| Endpoint {
        address: one.address,
        weight,
        workload: one.workload.name.clone(),
    };
    let setting = blocks.balancer.and_then(|block| Some((block, block.value.locality_lb_setting.as_ref()?)));
    let weights: Vec<_> =
        instances.iter().map(|one| (one.workload.locality(), one.workload.weight)).collect();
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

/// What PASSTHROUGH cannot do.
fn report_passed_through(entry: &Entry, blocks: &Blocks<'_>, problems: &mut Problems) {
    if let Some(block) = blocks.balancer.filter(|_| entry.addresses.is_empty() && entry.subnets.is_empty()) {
        let what = format!(
            "{} has no address of its own, and PASSTHROUGH dials what the client dialled: nobody is there",
            entry.service.host
        );
        problems.warn(block.place.rule, block.place.field("loadBalancer.simple"), what);
    }
    if let Some(block) = blocks.outlier {
        let what = "has no effect with PASSTHROUGH, which knows no endpoints";
        problems.warn(block.place.rule, block.place.field("outlierDetection"), what);
    }
    let by_endpoint = traffic::limit(blocks).is_some_and(|limit| limit.scope == LimitScope::Endpoint);
    if let Some(block) = blocks.pool.filter(|_| by_endpoint) {
        let what = "PASSTHROUGH knows no endpoints: the limit is that of each workload to the whole cluster";
        problems.warn(block.place.rule, block.place.field("connectionPool.tcp.maxConnections"), what);
    }
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
