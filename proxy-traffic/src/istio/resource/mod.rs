//! The resources that are served, field for field as their owners write them.
//!
//! Only shapes: what is allowed is `validate`'s business, what it means is `compile`'s.

mod config_map;
mod destination_rule;
mod gateway;
mod kubernetes;
mod load_balancer;
mod service_entry;
mod sidecar;
mod virtual_service;

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use serde::Deserialize;

pub(crate) use config_map::{MeshConfig, Mode, OutboundTrafficPolicy};
pub(crate) use destination_rule::{
    ConnectionPool, DestinationRule, OutlierDetection, PortLevelSettings, Subset, TcpKeepalive, TcpSettings,
    TrafficPolicy,
};
pub(crate) use gateway::{Gateway, Server};
pub(crate) use kubernetes::{Pod, Service, ServicePort};
pub(crate) use load_balancer::{ConsistentHash, Distribute, LoadBalancer, LocalityLbSetting};
pub(crate) use service_entry::{ServiceEntry, ServiceEntryPort, WorkloadEntry};
pub(crate) use sidecar::{Sidecar, SidecarSelector};
pub(crate) use virtual_service::{L4Match, RouteDestination, TcpRoute, VirtualService};

use super::{Problem, order};
use crate::Map;

/// Labels of a workload, or the labels that a selector asks for.
pub(crate) type Labels = BTreeMap<String, String>;

/// Whether `labels` have everything that `selector` asks for.
pub(crate) fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The part of `metadata` that routing asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    /// Missing or empty: the resource cannot be named and is left out.
    pub(crate) name: String,
    /// `default` when nobody said otherwise.
    pub(crate) namespace: String,
    /// Of the resource itself; a Pod's are its workload's.
    pub(crate) labels: Labels,
    /// RFC 3339 in UTC, so that text order is time order; `None`, the oldest, in files.
    pub(crate) creation_timestamp: Option<String>,
    /// Ours alone, without [`Annotations::PREFIX`].
    pub(crate) annotations: Annotations,
}

/// What `metadata.annotations` say to Shunt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<String, serde_yaml::Value>")]
pub(crate) struct Annotations(pub(crate) BTreeMap<String, String>);

impl Annotations {
    /// What our annotations begin with.
    pub(crate) const PREFIX: &str = "shunt.dev/";
    /// `steer`: the daemon carries the connections; `auto`: the kernel does where it can.
    pub(crate) const DATAPATH: &str = "datapath";
    /// `close`: what is over a limit is accepted and closed, as Istio does; `refuse`: `connect()` fails.
    pub(crate) const OVERFLOW: &str = "overflow";
    /// What a limit counts together: a [`crate::LimitScope`].
    pub(crate) const LIMIT_SCOPE: &str = "limit-scope";
    /// `close`: what is open and no longer allowed is closed; `keep`: it stays.
    pub(crate) const EGRESS_EXISTING: &str = "egress-existing";
    /// `close`: what is not allowed is accepted and closed, as Istio does; `refuse`: `connect()` fails.
    pub(crate) const EGRESS_BLOCKED: &str = "egress-blocked";

    /// The value of ours called `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Other people's annotations are neither kept nor looked at.
impl From<BTreeMap<String, serde_yaml::Value>> for Annotations {
    fn from(all: BTreeMap<String, serde_yaml::Value>) -> Self {
        let ours = all.into_iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(Self::PREFIX)?.to_owned();
            let text = match value {
                serde_yaml::Value::String(text) => text,
                other => serde_yaml::to_string(&other).unwrap_or_default().trim().to_owned(),
            };
            Some((name, text))
        });
        Self(ours.collect())
    }
}

/// Kinds that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Istio's routing rules.
    VirtualService,
    /// Istio's subsets and policies.
    DestinationRule,
    /// Istio's services by hand.
    ServiceEntry,
    /// Istio's workloads by hand.
    WorkloadEntry,
    /// Istio's edge listeners.
    Gateway,
    /// Kubernetes' services.
    Service,
    /// Kubernetes' workloads.
    Pod,
    /// Istio's policies of clients.
    Sidecar,
    /// Kubernetes' settings: Istio's own are used.
    ConfigMap,
}

impl Kind {
    /// Every kind, as YAML names it.
    pub(crate) const ALL: [(Self, &'static str); 9] = [
        (Self::VirtualService, "VirtualService"),
        (Self::DestinationRule, "DestinationRule"),
        (Self::ServiceEntry, "ServiceEntry"),
        (Self::WorkloadEntry, "WorkloadEntry"),
        (Self::Gateway, "Gateway"),
        (Self::Service, "Service"),
        (Self::Pod, "Pod"),
        (Self::Sidecar, "Sidecar"),
        (Self::ConfigMap, "ConfigMap"),
    ];

    /// As YAML names it.
    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Whether Kubernetes itself defines it.
    pub(crate) fn is_core(self) -> bool {
        matches!(self, Self::Service | Self::Pod | Self::ConfigMap)
    }
}

/// What a resource is called; no two of one store have the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// What it is.
    pub(crate) kind: Kind,
    /// Where it lives.
    pub(crate) namespace: String,
    /// What it is called there.
    pub(crate) name: String,
}

/// `VirtualService default/tcp-echo`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// A resource with where it came from.
#[derive(Debug)]
pub(crate) struct Item<T> {
    /// The file.
    pub(crate) file: Arc<str>,
    /// What it is called.
    pub(crate) key: Key,
    /// Its metadata.
    pub(crate) metadata: Metadata,
    /// What its owner wants.
    pub(crate) spec: T,
}

impl<T> Item<T> {
    /// Istio's config order: the oldest first, then by name, then by namespace.
    pub(crate) fn order(&self) -> (&Option<String>, &str, &str) {
        (&self.metadata.creation_timestamp, &self.key.name, &self.key.namespace)
    }

    /// `namespace/name`.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.key.namespace, self.key.name)
    }
}

/// One resource of any kind, cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Resource {
    /// See [`VirtualService`].
    VirtualService(Arc<Item<VirtualService>>),
    /// See [`DestinationRule`].
    DestinationRule(Arc<Item<DestinationRule>>),
    /// See [`ServiceEntry`].
    ServiceEntry(Arc<Item<ServiceEntry>>),
    /// See [`WorkloadEntry`].
    WorkloadEntry(Arc<Item<WorkloadEntry>>),
    /// See [`Gateway`].
    Gateway(Arc<Item<Gateway>>),
    /// See [`Service`].
    Service(Arc<Item<Service>>),
    /// See [`Pod`].
    Pod(Arc<Item<Pod>>),
    /// See [`Sidecar`].
    Sidecar(Arc<Item<Sidecar>>),
    /// See [`MeshConfig`].
    ConfigMap(Arc<Item<MeshConfig>>),
}

impl Resource {
    /// Whether both are the same version.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::VirtualService(one), Self::VirtualService(other)) => Arc::ptr_eq(one, other),
            (Self::DestinationRule(one), Self::DestinationRule(other)) => Arc::ptr_eq(one, other),
            (Self::ServiceEntry(one), Self::ServiceEntry(other)) => Arc::ptr_eq(one, other),
            (Self::WorkloadEntry(one), Self::WorkloadEntry(other)) => Arc::ptr_eq(one, other),
            (Self::Gateway(one), Self::Gateway(other)) => Arc::ptr_eq(one, other),
            (Self::Service(one), Self::Service(other)) => Arc::ptr_eq(one, other),
            (Self::Pod(one), Self::Pod(other)) => Arc::ptr_eq(one, other),
            (Self::Sidecar(one), Self::Sidecar(other)) => Arc::ptr_eq(one, other),
            (Self::ConfigMap(one), Self::ConfigMap(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// Everything that is in force, each kind in Istio's config order.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    pub(crate) virtual_services: Vec<Arc<Item<VirtualService>>>,
    pub(crate) destination_rules: Vec<Arc<Item<DestinationRule>>>,
    pub(crate) service_entries: Vec<Arc<Item<ServiceEntry>>>,
    pub(crate) workload_entries: Vec<Arc<Item<WorkloadEntry>>>,
    pub(crate) gateways: Vec<Arc<Item<Gateway>>>,
    pub(crate) services: Vec<Arc<Item<Service>>>,
    pub(crate) pods: Vec<Arc<Item<Pod>>>,
    pub(crate) sidecars: Vec<Arc<Item<Sidecar>>>,
    /// All that are called `istio`; the root namespace's is used.
    pub(crate) config_maps: Vec<Arc<Item<MeshConfig>>>,
    /// What names were found to be, see [`super::Store::resolve`].
    pub(crate) resolved: Map<String, Arc<[IpAddr]>>,
    /// Resources that another file brings as well.
    pub(crate) clashes: Vec<Problem>,
}

impl Resources {
    /// How many resources are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        let istio = self.virtual_services.len() + self.destination_rules.len() + self.gateways.len();
        let entries = self.service_entries.len() + self.workload_entries.len();
        let policies = self.sidecars.len() + self.config_maps.len();
        istio + entries + policies + self.services.len() + self.pods.len()
    }

    /// Whether nothing is in force.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in what changed: what each resource was, and what it is now.
    pub(crate) fn apply(&mut self, changes: &[Change]) {
        macro_rules! each {
            ($($list:ident: $kind:ident),*) => {
                $(order::apply(&mut self.$list, edits(changes, |one| match one {
                    Resource::$kind(item) => Some(item),
                    _ => None,
                }));)*
            };
        }
        each!(
            virtual_services: VirtualService, destination_rules: DestinationRule, service_entries: ServiceEntry,
            workload_entries: WorkloadEntry, gateways: Gateway, services: Service, pods: Pod,
            sidecars: Sidecar, config_maps: ConfigMap
        );
    }
}

/// One resource as it was and as it is.
pub(crate) type Change = (Option<Resource>, Option<Resource>);

/// The changes of one kind.
fn edits<T>(changes: &[Change], pick: impl Fn(&Resource) -> Option<&Arc<Item<T>>>) -> Vec<order::Edit<T>> {
    let picked = |one: &Option<Resource>| one.as_ref().and_then(&pick).cloned();
    let of_kind = changes.iter().map(|(before, after)| (picked(before), picked(after)));
    of_kind.filter(|(before, after)| before.is_some() || after.is_some()).collect()
}
