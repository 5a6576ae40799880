//! Who may serve: Pods and WorkloadEntries, each with its labels, address and ports.

use std::{
    cmp::Ordering,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    WorkloadName,
    istio::{
        resource::{Item, Labels, Pod, ServiceEntry, WorkloadEntry, selects},
        scalar::TargetPort,
    },
};

/// One that may serve.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) address: IpAddr,
    pub(super) weight: u32,
    pub(super) name: Arc<WorkloadName>,
    /// Whether it runs and does not say that it is not ready.
    ready: bool,
    /// Whether it has ended and can never serve again.
    ended: bool,
    body: Body,
}

/// The resource that brought a workload.
#[derive(Clone, Debug)]
pub(super) enum Rank {
    /// A Pod.
    Pod(Arc<Item<Pod>>),
    /// A WorkloadEntry of its own.
    Entry(Arc<Item<WorkloadEntry>>),
}

/// Where labels and names of ports are looked up.
#[derive(Debug)]
enum Body {
    /// Among the containers' ports.
    Pod(Arc<Item<Pod>>),
    /// Nowhere: a name that was looked up.
    Name(Labels),
    /// In the entry's own table, by the name of the service's port. Labels stand here if they are not just the spec's.
    Entry(Arc<Item<WorkloadEntry>>, Option<Labels>),
    /// As above: one of a ServiceEntry's endpoints.
    Inline(Arc<Item<ServiceEntry>>, usize),
}

impl Workload {
    /// The workload of a resource; `None` while it has no address.
    pub(super) fn new(rank: &Rank) -> Option<Self> {
        match rank {
            Rank::Pod(pod) => Self::of_pod(pod),
            Rank::Entry(entry) => Self::of_entry(entry),
        }
    }

    fn of_pod(pod: &Arc<Item<Pod>>) -> Option<Self> {
        Some(Self {
            address: pod.spec.address_text()?.parse().ok()?,
            weight: 1,
            name: Arc::new(workload_name(&pod.key.name, &pod.key.namespace, &pod.metadata.labels)),
            ready: pod.spec.is_ready(),
            ended: pod.spec.has_ended(),
            body: Body::Pod(pod.clone()),
        })
    }

    /// Labels of a WorkloadEntry stand in its spec, its metadata, or both.
    fn of_entry(entry: &Arc<Item<WorkloadEntry>>) -> Option<Self> {
        let labels = (!entry.metadata.labels.is_empty()).then(|| {
            let mut labels = entry.spec.labels.clone();
            labels.extend(entry.metadata.labels.clone());
            labels
        });
        let (name, namespace) = (&entry.key.name, &entry.key.namespace);
        let address = entry.spec.address.parse().ok()?;
        let body = Body::Entry(entry.clone(), labels);
        Some(Self::by_hand(address, entry.spec.weight, name, namespace, body))
    }

    /// The endpoint of that number in a ServiceEntry, at one of its addresses: nobody named it.
    pub(super) fn inline(item: &Arc<Item<ServiceEntry>>, index: usize, address: IpAddr) -> Self {
        let weight = item.spec.endpoints[index].weight;
        let body = Body::Inline(item.clone(), index);
        Self::by_hand(address, weight, WorkloadName::UNKNOWN, &item.key.namespace, body)
    }

    /// One address of the host of a ServiceEntry.
    pub(super) fn of_name(item: &Item<ServiceEntry>, address: IpAddr) -> Self {
        let body = Body::Name(Labels::new());
        Self::by_hand(address, 1, WorkloadName::UNKNOWN, &item.key.namespace, body)
    }

    fn by_hand(address: IpAddr, weight: u32, name: &str, namespace: &str, body: Body) -> Self {
        let name = Arc::new(workload_name(name, namespace, body.labels()));
        Self { address, weight: weight.max(1), name, ready: true, ended: false, body }
    }

    /// What selectors look at.
    pub(super) fn labels(&self) -> &Labels {
        self.body.labels()
    }

    /// `region/zone/subzone`; empty: nobody said.
    pub(super) fn locality(&self) -> &str {
        self.body.by_hand().map_or("", |entry| &entry.locality)
    }

    /// Where it serves a service's port: `target` by number or name, else the same number.
    pub(super) fn socket(&self, port: u16, name: &str, target: Option<&TargetPort>) -> Option<SocketAddr> {
        let by_hand = self.body.by_hand();
        let named = by_hand.and_then(|entry| entry.ports.get(name)).map(|port| port.0);
        let number = named.or_else(|| match (target, &self.body) {
            (None, _) => Some(port),
            (Some(TargetPort::Number(number)), _) => Some(*number),
            (Some(TargetPort::Name(name)), Body::Pod(pod)) => pod.spec.named_port(name),
            (Some(TargetPort::Name(name)), _) => by_hand?.ports.get(name).map(|port| port.0),
        })?;
        Some(SocketAddr::new(self.address, number))
    }

    /// Whether a service may use it.
    pub(super) fn serves(&self, selector: &Labels, unready_too: bool) -> bool {
        (self.ready || unready_too && !self.ended) && selects(selector, self.labels())
    }
}

impl Body {
    fn labels(&self) -> &Labels {
        match self {
            Self::Pod(pod) => &pod.metadata.labels,
            Self::Name(labels) => labels,
            Self::Entry(_, Some(labels)) => labels,
            Self::Entry(entry, None) => &entry.spec.labels,
            Self::Inline(item, index) => &item.spec.endpoints[*index].labels,
        }
    }

    fn by_hand(&self) -> Option<&WorkloadEntry> {
        match self {
            Self::Pod(_) | Self::Name(_) => None,
            Self::Entry(entry, _) => Some(&entry.spec),
            Self::Inline(item, index) => Some(&item.spec.endpoints[*index]),
        }
    }
}

impl Rank {
    /// Where it lives: selectors do not reach further.
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Pod(item) => &item.key.namespace,
            Self::Entry(item) => &item.key.namespace,
        }
    }

    fn key(&self) -> (bool, (&Option<String>, &str, &str)) {
        match self {
            Self::Pod(item) => (false, item.order()),
            Self::Entry(item) => (true, item.order()),
        }
    }
}

/// Pods first, each kind in Istio's config order.
impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}

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
