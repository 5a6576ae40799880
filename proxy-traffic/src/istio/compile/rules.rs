//! VirtualServices: which of their `tcp` rules hold at a listener, and what they say.

use std::{collections::BTreeMap, sync::Arc};

use super::{Problems, Settings, cluster::Clusters};
use crate::{
    Cluster, ClusterKind, Destination, Match, Route, Rule,
    istio::{
        names,
        resource::{Item, L4Match, RouteDestination, TcpRoute, VirtualService},
    },
};

/// The name of the gateway that is none: every workload's own connections.
const MESH: &str = "mesh";

/// Every VirtualService with the full names of its hosts, in config order.
#[derive(Default)]
pub(super) struct Bindings {
    all: Vec<(Arc<Item<VirtualService>>, Vec<String>)>,
    /// Places of those that name a host, and of those with a wildcard.
    exact: BTreeMap<String, Vec<usize>>,
    wildcards: Vec<usize>,
    cluster_domain: String,
}

/// The listener that rules are compiled for; its port decides `match.port`.
#[derive(Clone, Copy)]
pub(super) enum At<'a> {
    /// A service's port, in the mesh.
    Mesh(u16),
    /// A Gateway's server: `namespace/name` and port.
    Gateway(&'a str, u16),
}

impl At<'_> {
    fn port(self) -> u16 {
        match self {
            Self::Mesh(port) | Self::Gateway(_, port) => port,
        }
    }

    /// Whether a list of gateways, as a resource of `namespace` writes it, names this one.
    fn is_named(self, gateways: &[String], namespace: &str) -> bool {
        match self {
            Self::Mesh(_) => gateways.is_empty() || gateways.iter().any(|name| name == MESH),
            Self::Gateway(path, _) => gateways.iter().any(|name| full_path(name, namespace) == path),
        }
    }
}

/// `namespace/name` of a gateway; `None` for the mesh.
pub(super) fn gateway_path(name: &str, namespace: &str) -> Option<String> {
    (name != MESH).then(|| full_path(name, namespace))
}

fn full_path(name: &str, namespace: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{namespace}/{name}") }
}

impl Bindings {
    pub(super) fn new(virtual_services: &[Arc<Item<VirtualService>>], settings: &Settings) -> Self {
        let cluster_domain = settings.cluster_domain.clone();
        let mut bindings = Self { cluster_domain, ..Self::default() };
        for (place, item) in virtual_services.iter().enumerate() {
            let hosts = Self::hosts(item, settings);
            for host in &hosts {
                if host.starts_with('*') {
                    bindings.wildcards.push(place);
                } else {
                    bindings.exact.entry(host.clone()).or_default().push(place);
                }
            }
            bindings.all.push((item.clone(), hosts));
        }
        bindings
    }

    /// The full names of the hosts of `item`.
    pub(super) fn hosts(item: &Item<VirtualService>, settings: &Settings) -> Vec<String> {
        let resolve = |host: &String| names::resolve(host, &item.key.namespace, &settings.cluster_domain);
        item.spec.hosts.iter().map(resolve).collect()
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Item<VirtualService>, &[String])> {
        self.all.iter().map(|(item, hosts)| (&**item, hosts.as_slice()))
    }

    /// Those with a host that has a name in common with `host`, which may be a wildcard.
    pub(super) fn on(&self, host: &str) -> impl Iterator<Item = &Item<VirtualService>> {
        let mut places: Vec<_> = if host.starts_with('*') {
            (0..self.all.len()).collect()
        } else {
            self.exact.get(host).into_iter().flatten().chain(&self.wildcards).copied().collect()
        };
        places.sort_unstable();
        places.dedup();
        places.retain(|place| self.all[*place].1.iter().any(|one| names::overlap(one, host)));
        places.into_iter().map(|place| &*self.all[place].0)
    }

    /// Whether a rule of `item` holds at `at`, whatever the connection.
    pub(super) fn applies(item: &Item<VirtualService>, at: At<'_>) -> bool {
        item.spec.tcp.iter().any(|rule| matches(item, rule, at).is_some())
    }

    /// Adds the rules of `item` that hold at `at`; true when one of them takes every connection.
    pub(super) fn compile(
        &self,
        item: &Item<VirtualService>,
        at: At<'_>,
        rules: &mut Vec<Rule>,
        clusters: &mut Clusters<'_>,
        problems: &mut Problems,
    ) -> bool {
        for (index, rule) in item.spec.tcp.iter().enumerate() {
            let Some(held) = matches(item, rule, at) else { continue };
            if let At::Gateway(..) = at {
                report_mesh_only(item, index, rule, problems);
            }
            let destinations = rule.route.iter().enumerate().map(|(arm, route)| {
                let field = format!("tcp[{index}].route[{arm}]");
                self.destination(item, &field, route, at, clusters, problems)
            });
            let mut destinations: Vec<_> = destinations.collect();
            if let [only] = destinations.as_mut_slice() {
                only.weight = 1;
            }
            let everything = held.is_empty() || held.contains(&Match::default());
            rules.push(Rule { matches: held, route: Arc::new(Route { name: item.path(), destinations }) });
            if everything {
                return true;
            }
        }
        false
    }

    fn destination(
        &self,
        item: &Item<VirtualService>,
        field: &str,
        route: &RouteDestination,
        at: At<'_>,
        clusters: &mut Clusters<'_>,
        problems: &mut Problems,
    ) -> Destination {
        let wanted = route.destination.clone().unwrap_or_default();
        let host = names::resolve(&wanted.host, &item.key.namespace, &self.cluster_domain);
        let said = wanted.port.and_then(|port| port.number).map(|port| port.0);
        let port = said.unwrap_or_else(|| default_port(clusters, &host, at.port()));
        let (mut cluster, missing) = clusters.get(&host, port, &wanted.subset);
        if let Some(missing) = missing {
            let what = format!("{}: connections sent there are closed (NC)", missing.reason);
            problems.warn(item, format!("{field}.destination.{}", missing.part), what);
        }
        if let Some(what) = unreachable(at, &cluster.kind) {
            let told = format!("{what}: connections sent there are closed");
            problems.warn(item, format!("{field}.destination"), told);
            if let At::Gateway(..) = at {
                let kind = ClusterKind::Missing(what.to_owned());
                cluster = Arc::new(Cluster { kind, table: Default::default(), ..(*cluster).clone() });
            }
        }
        let weight = route.weight.and_then(|weight| u64::try_from(weight).ok()).unwrap_or_default();
        Destination { weight, cluster }
    }
}

/// Why nobody gets to such a cluster by a `tcp` rule.
fn unreachable(at: At<'_>, kind: &ClusterKind) -> Option<&'static str> {
    match (at, kind) {
        (At::Gateway(..), ClusterKind::OriginalDestination) => {
            Some("PASSTHROUGH or resolution NONE dials what the client dialled, which is the gateway itself")
        }
        (_, ClusterKind::Named(_)) => {
            Some("its resolution goes by the name that a client says, which a tcp rule does not ask for")
        }
        _ => None,
    }
}

/// Where `destination.port` is missing: the only port of the service, else the listener's.
fn default_port(clusters: &Clusters<'_>, host: &str, listener: u16) -> u16 {
    match clusters.registry.get(host).map(|entry| entry.ports.as_slice()) {
        Some([only]) => only.number,
        _ => listener,
    }
}

/// What is left of a rule's matches at `at`, with port and gateways decided; `None` when it does not hold there.
/// No match, or one without conditions first, is every connection.
fn matches(item: &Item<VirtualService>, rule: &TcpRoute, at: At<'_>) -> Option<Vec<Match>> {
    let namespace = &item.key.namespace;
    if rule.r#match.is_empty() {
        return at.is_named(&item.spec.gateways, namespace).then(Vec::new);
    }
    let holds = |one: &&L4Match| {
        let gateways = if one.gateways.is_empty() { &item.spec.gateways } else { &one.gateways };
        at.is_named(gateways, namespace) && one.port.is_none_or(|port| port.0 == at.port())
    };
    let mut held: Vec<_> = rule.r#match.iter().filter(holds).map(|one| conditions(one, at)).collect();
    if let Some(last) = held.iter().position(|one| *one == Match::default()) {
        held.truncate(last + 1);
        if last == 0 {
            return Some(Vec::new());
        }
    }
    (!held.is_empty()).then_some(held)
}

/// The conditions that are decided connection by connection. A gateway knows nothing of the client's workload.
fn conditions(one: &L4Match, at: At<'_>) -> Match {
    let source_subnet = one.source_subnet.map(|subnet| subnet.0);
    match at {
        At::Gateway(..) => Match { source_subnet, ..Match::default() },
        At::Mesh(_) => Match {
            destination_subnets: one.destination_subnets.iter().map(|subnet| subnet.0).collect(),
            source_subnet,
            source_labels: one.source_labels.clone(),
            source_namespace: one.source_namespace.clone(),
            ..Match::default()
        },
    }
}

/// Conditions that a gateway does not look at, as in Istio.
fn report_mesh_only(item: &Item<VirtualService>, index: usize, rule: &TcpRoute, problems: &mut Problems) {
    for (number, one) in rule.r#match.iter().enumerate() {
        let fields = [
            ("destinationSubnets", !one.destination_subnets.is_empty()),
            ("sourceLabels", !one.source_labels.is_empty()),
            ("sourceNamespace", one.source_namespace.is_some()),
        ];
        for (field, _) in fields.into_iter().filter(|(_, given)| *given) {
            let field = format!("tcp[{index}].match[{number}].{field}");
            problems.warn(item, field, "is not looked at by a gateway: the rule holds there without it");
        }
    }
}
