//! Who may serve: Pods and WorkloadEntries, each with its labels, address and ports.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use crate::{
    WorkloadName,
    istio::{
        Resources,
        resource::{Item, Labels, Pod, WorkloadEntry, selects},
        scalar::{Port, TargetPort},
    },
};

/// One that may serve.
#[derive(Debug)]
pub(super) struct Workload<'a> {
    pub(super) labels: Cow<'a, Labels>,
    pub(super) address: IpAddr,
    pub(super) weight: u32,
    /// `region/zone/subzone`; empty: nobody said.
    pub(super) locality: &'a str,
    pub(super) name: Arc<WorkloadName>,
    /// Whether it runs and does not say that it is not ready.
    pub(super) ready: bool,
    /// Whether it has ended and can never serve again.
    ended: bool,
    ports: Ports<'a>,
}

/// Where names of ports are looked up.
#[derive(Clone, Copy, Debug)]
enum Ports<'a> {
    /// Among the containers' ports.
    Pod(&'a Pod),
    /// In the entry's own table, by the name of the service's port.
    Entry(&'a BTreeMap<String, Port>),
}

impl<'a> Workload<'a> {
    fn of_pod(pod: &'a Item<Pod>) -> Option<Self> {
        Some(Self {
            labels: Cow::Borrowed(&pod.metadata.labels),
            address: pod.spec.address_text()?.parse().ok()?,
            weight: 1,
            locality: "",
            name: Arc::new(workload_name(&pod.key.name, &pod.key.namespace, &pod.metadata.labels)),
            ready: pod.spec.is_ready(),
            ended: pod.spec.has_ended(),
            ports: Ports::Pod(&pod.spec),
        })
    }

    /// Labels of a WorkloadEntry stand in its spec, its metadata, or both.
    fn of_entry(entry: &'a Item<WorkloadEntry>) -> Option<Self> {
        let mut labels = entry.spec.labels.clone();
        labels.extend(entry.metadata.labels.clone());
        let (name, namespace) = (&entry.key.name, &entry.key.namespace);
        Self::by_hand(&entry.spec, name, namespace, Cow::Owned(labels))
    }

    /// An endpoint that stands in a ServiceEntry: nobody named it.
    pub(super) fn inline(entry: &'a WorkloadEntry, namespace: &str) -> Option<Self> {
        Self::by_hand(entry, WorkloadName::UNKNOWN, namespace, Cow::Borrowed(&entry.labels))
    }

    fn by_hand(
        entry: &'a WorkloadEntry,
        name: &str,
        namespace: &str,
        labels: Cow<'a, Labels>,
    ) -> Option<Self> {
        Some(Self {
            address: entry.address.parse().ok()?,
            weight: entry.weight.max(1),
            locality: &entry.locality,
            name: Arc::new(workload_name(name, namespace, &labels)),
            labels,
            ready: true,
            ended: false,
            ports: Ports::Entry(&entry.ports),
        })
    }

    /// Where it serves a service's port: `target` by number or name, else the same number.
    pub(super) fn socket(&self, port: u16, name: &str, target: Option<&TargetPort>) -> Option<SocketAddr> {
        let named = match self.ports {
            Ports::Pod(_) => None,
            Ports::Entry(ports) => ports.get(name).map(|port| port.0),
        };
        let number = named.or_else(|| match (target, self.ports) {
            (None, _) => Some(port),
            (Some(TargetPort::Number(number)), _) => Some(*number),
            (Some(TargetPort::Name(name)), Ports::Pod(pod)) => pod.named_port(name),
            (Some(TargetPort::Name(name)), Ports::Entry(ports)) => ports.get(name).map(|port| port.0),
        })?;
        Some(SocketAddr::new(self.address, number))
    }

    /// Whether a service may use it.
    pub(super) fn serves(&self, selector: &Labels, unready_too: bool) -> bool {
        (self.ready || unready_too && !self.ended) && selects(selector, &self.labels)
    }
}

/// Names for metrics; labels know the application.
fn workload_name(name: &str, namespace: &str, labels: &Labels) -> WorkloadName {
    let label = |short: &str, long: &str| {
        let value = labels.get(short).or_else(|| labels.get(long));
        value.cloned().unwrap_or_else(|| WorkloadName::UNKNOWN.to_owned())
    };
    WorkloadName {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        app: label("app", "app.kubernetes.io/name"),
        version: label("version", "app.kubernetes.io/version"),
    }
}

/// All that may serve, by namespace: selectors do not reach further.
pub(super) struct Workloads<'a>(BTreeMap<&'a str, Vec<Rc<Workload<'a>>>>);

impl<'a> Workloads<'a> {
    pub(super) fn new(resources: &'a Resources) -> Self {
        let pods = resources.pods.iter().map(|pod| (pod.key.namespace.as_str(), Workload::of_pod(pod)));
        let entries = resources.workload_entries.iter();
        let entries = entries.map(|entry| (entry.key.namespace.as_str(), Workload::of_entry(entry)));
        let mut all = Self(BTreeMap::new());
        for (namespace, workload) in pods.chain(entries) {
            all.0.entry(namespace).or_default().extend(workload.map(Rc::new));
        }
        all
    }

    /// Those of `namespace`.
    pub(super) fn within(&self, namespace: &str) -> &[Rc<Workload<'a>>] {
        self.0.get(namespace).map_or(&[], Vec::as_slice)
    }
}
