//! One service, whichever kind of resource brought it: host, addresses, ports, and who serves each port.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    Problems, Settings, Source, by_hand::of_service_entry, protocol::Protocol, resolution::Resolution,
    selection::Workloads, verdict::Wishes, workload::Workload,
};
use crate::{
    ClusterKind, Map, Service,
    istio::{
        names,
        resource::{self, Item, Labels, ServiceEntry, ServicePort},
        scalar::TargetPort,
    },
};

/// What names were found to be.
pub(super) type Resolved = Map<String, Arc<[IpAddr]>>;

/// One service.
pub(super) struct Entry {
    /// As metrics name it; the host is the registry's key.
    pub(super) service: Service,
    pub(super) source: Origin,
    /// Its own addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// Its own ranges.
    pub(super) subnets: Vec<IpNet>,
    /// Its name stands for the addresses of its workloads.
    pub(super) headless: bool,
    /// A Service without selector: its endpoints, if any, stand where we do not look.
    pub(super) selectorless: bool,
    /// What the annotations of its resources ask for.
    pub(super) wishes: Wishes,
    pub(super) resolution: Resolution,
    /// `exportTo`: the namespaces that see it; `None`: all.
    pub(super) exported: Option<BTreeSet<String>>,
    /// Where its datagrams may go.
    pub(super) datagrams: BTreeSet<(IpNet, u16)>,
    pub(super) ports: Vec<Port>,
}

/// One port of a service, without those that are not TCP.
pub(super) struct Port {
    pub(super) number: u16,
    pub(super) protocol: Protocol,
    pub(super) instances: Vec<Instance>,
    /// Where its connections go without endpoints.
    pub(super) passing: Option<Passing>,
}

/// Where connections go whose endpoint only the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    /// To the address that it dialled, on this port if there is one.
    Address(Option<u16>),
    /// To the name that it says first.
    Name(Option<u16>),
}

impl Passing {
    fn by_address(self) -> Self {
        match self {
            Self::Address(port) | Self::Name(port) => Self::Address(port),
        }
    }

    pub(super) fn kind(self) -> ClusterKind {
        match self {
            Self::Address(_) => ClusterKind::OriginalDestination,
            Self::Name(port) => ClusterKind::Named(port),
        }
    }

    /// The port that takes the place of the client's; a name's is its cluster's kind's.
    pub(super) fn port(self) -> Option<u16> {
        match self {
            Self::Address(port) => port,
            Self::Name(_) => None,
        }
    }
}

impl Port {
    /// Whether clients say whom they want.
    pub(super) fn has_names(&self) -> bool {
        matches!(self.protocol, Protocol::Http | Protocol::Tls)
    }
}

/// A workload on the port where it serves.
pub(super) struct Instance {
    pub(super) address: SocketAddr,
    pub(super) workload: Arc<Workload>,
}

/// The resource that brought a service.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// Kubernetes'.
    Service(Arc<Item<resource::Service>>),
    /// Istio's.
    Entry(Arc<Item<ServiceEntry>>),
}

/// Every resource that speaks of one host, each kind in Istio's config order.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) services: Vec<Arc<Item<resource::Service>>>,
    /// With the host's place in the resource.
    pub(super) entries: Vec<(Arc<Item<ServiceEntry>>, usize)>,
}

impl Entry {
    /// What `sources` make of a host together: Services first, since a ServiceEntry of the same host only adds to
    /// them. `None`: nobody speaks of it.
    pub(super) fn new(
        sources: &Sources,
        workloads: &Workloads,
        resolved: &Resolved,
        settings: &Settings,
        problems: &mut Problems,
    ) -> Option<Self> {
        let mut services = sources.services.iter();
        let mut entry = services.next().map(|item| of_service(item, workloads, settings, problems));
        services.for_each(|item| drop(of_service(item, workloads, settings, problems)));
        for (item, index) in &sources.entries {
            let new = of_service_entry(item, &item.spec.hosts[*index], workloads, resolved);
            match &mut entry {
                Some(known) => known.add(item, *index, new, problems),
                None => entry = Some(new),
            }
        }
        let mut entry = entry?;
        entry.pass_by_address();
        entry.report_unserved(problems);
        Some(entry)
    }

    /// Whether connections to it are captured. What may be served elsewhere is left to the kernel.
    pub(super) fn is_captured(&self) -> bool {
        let elsewhere = self.selectorless && self.ports.iter().all(|port| port.instances.is_empty());
        !self.headless && !elsewhere
    }

    /// The port of that number.
    pub(super) fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The ports that it has at any address: it has none of its own, and its clients may have theirs from elsewhere.
    pub(super) fn anywhere(&self) -> impl Iterator<Item = &Port> {
        let is_open = !self.has_addresses() && self.resolution != Resolution::Static;
        let takes = |port: &&Port| port.has_names() || self.resolution == Resolution::None;
        self.ports.iter().filter(move |port| is_open && takes(port))
    }

    /// Whether `other` claims the same addresses and ports with the same right, and nobody need look at the others'.
    pub(super) fn claims_like(&self, other: &Self) -> bool {
        let numbers = |one: &Self| one.ports.iter().map(|port| port.number).collect::<Vec<_>>();
        let kind = |one: &Self| (one.headless, one.is_captured());
        self.source.is_like(&other.source)
            && (&self.addresses, &self.subnets) == (&other.addresses, &other.subnets)
            && kind(self) == kind(other)
            && numbers(self) == numbers(other)
            && (self.resolution, &self.exported) == (other.resolution, &other.exported)
            && self.anywhere().map(|port| port.number).eq(other.anywhere().map(|port| port.number))
    }

    /// A host that is there already gets more endpoints; of a ServiceEntry also more addresses and ports.
    fn add(&mut self, item: &Item<ServiceEntry>, index: usize, new: Self, problems: &mut Problems) {
        self.wishes.join(new.wishes);
        self.datagrams.extend(new.datagrams);
        if self.exported != new.exported {
            let what = format!(
                "is another than that of {}: whoever may see one of them sees the host",
                self.source.source().key
            );
            problems.warn(item, "exportTo", what);
            self.exported = self.exported.take().zip(new.exported).map(|(one, other)| &one | &other);
        }
        let is_service = matches!(self.source, Origin::Service(_));
        if !is_service {
            let added: Vec<_> =
                new.addresses.into_iter().filter(|one| !self.addresses.contains(one)).collect();
            self.addresses.extend(added);
            let added: Vec<_> = new.subnets.into_iter().filter(|one| !self.subnets.contains(one)).collect();
            self.subnets.extend(added);
        }
        for port in new.ports {
            match self.ports.iter_mut().find(|other| other.number == port.number) {
                Some(same) => {
                    report_disagreement(item, &self.source, same, &port, problems);
                    same.instances.extend(port.instances);
                }
                None if is_service => {
                    let what =
                        format!("{} has no port {}; add it there", self.source.source().key, port.number);
                    problems.warn(item, format!("hosts[{index}]"), what);
                }
                None => self.ports.push(port),
            }
        }
    }

    /// Nobody listens to names at addresses of its own: who dials one of them has said where he wants to go.
    fn pass_by_address(&mut self) {
        if self.has_addresses() {
            self.ports.iter_mut().for_each(|port| port.passing = port.passing.map(Passing::by_address));
        }
    }

    /// Whether it has addresses or ranges of its own.
    fn has_addresses(&self) -> bool {
        !self.addresses.is_empty() || !self.subnets.is_empty()
    }

    fn report_unserved(&self, problems: &mut Problems) {
        let host = &self.service.host;
        if self.headless {
            let what =
                "headless Services are not captured yet: their Pods are dialled directly, no rule applies";
            problems.warn(&self.source, "clusterIP", what);
        } else if !self.is_captured() {
            let what =
                "is missing, and Endpoints are not read yet: connections to this Service are left alone";
            problems.warn(&self.source, "selector", what);
        } else if host.starts_with('*') && !self.has_addresses() && self.anywhere().next().is_none() {
            let what =
                format!("{host} has no address of its own and a wildcard cannot be dialled; give addresses");
            problems.warn(&self.source, "addresses", what);
        }
    }
}

impl Origin {
    /// Where problems on it belong.
    pub(super) fn source(&self) -> Source<'_> {
        match self {
            Self::Service(item) => (&**item).into(),
            Self::Entry(item) => (&**item).into(),
        }
    }

    /// Where it lives.
    pub(super) fn namespace(&self) -> &str {
        &self.source().key.namespace
    }

    /// Istio's config order.
    pub(super) fn order(&self) -> (&Option<String>, &str, &str) {
        match self {
            Self::Service(item) => item.order(),
            Self::Entry(item) => item.order(),
        }
    }

    /// The labels of those who serve it, if they stand elsewhere. A Service without selector selects nobody, a
    /// ServiceEntry's empty selector everybody.
    pub(super) fn selector(&self) -> Option<&Labels> {
        match self {
            Self::Service(item) => Some(&item.spec.selector).filter(|selector| !selector.is_empty()),
            Self::Entry(item) => item.spec.workload_selector.as_ref().map(|selector| &selector.labels),
        }
    }

    /// Whether both are the same version.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Service(one), Self::Service(other)) => Arc::ptr_eq(one, other),
            (Self::Entry(one), Self::Entry(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Whether both stand at the same place of the same file and of the order.
    fn is_like(&self, other: &Self) -> bool {
        let (one, another) = (self.source(), other.source());
        (one.file, one.key) == (another.file, another.key) && self.order() == other.order()
    }
}

impl<'a> From<&'a Origin> for Source<'a> {
    fn from(origin: &'a Origin) -> Self {
        origin.source()
    }
}

/// Two resources bring the port of one host: what the older one says of it counts.
fn report_disagreement(
    item: &Item<ServiceEntry>,
    older: &Origin,
    port: &Port,
    other: &Port,
    problems: &mut Problems,
) {
    let (older, number) = (older.source().key, port.number);
    if port.protocol != other.protocol {
        let what = format!("port {number} is another protocol in {older}, which counts; write the same");
        problems.warn(item, "ports", what);
    }
    if port.passing.is_some() != other.passing.is_some() {
        let what =
            format!("{older} finds who serves port {number} in another way, which counts; write the same");
        problems.warn(item, "resolution", what);
    }
}

fn of_service(
    item: &Arc<Item<resource::Service>>,
    workloads: &Workloads,
    settings: &Settings,
    problems: &mut Problems,
) -> Entry {
    let (spec, source) = (&item.spec, Origin::Service(item.clone()));
    let serving = source
        .selector()
        .map(|selector| workloads.serving(&item.key.namespace, selector, spec.publish_not_ready_addresses));
    let serving = serving.unwrap_or_default();
    let ports = spec.ports.iter().enumerate();
    let ports = ports.filter_map(|(index, port)| service_port(item, index, port, &serving, problems));
    let host = names::service(&item.key.name, &item.key.namespace, &settings.cluster_domain);
    Entry {
        service: Service { host, name: item.key.name.clone(), namespace: item.key.namespace.clone() },
        addresses: spec.addresses().collect(),
        subnets: Vec::new(),
        headless: spec.is_headless(),
        selectorless: spec.selector.is_empty(),
        wishes: Wishes::of(item),
        resolution: Resolution::Static,
        exported: None,
        datagrams: BTreeSet::new(),
        ports: ports.collect(),
        source,
    }
}

fn service_port(
    item: &Item<resource::Service>,
    index: usize,
    port: &ServicePort,
    serving: &[Arc<Workload>],
    problems: &mut Problems,
) -> Option<Port> {
    let number = port.port?.0;
    let protocol = Protocol::of_service(port.protocol.as_deref(), port.app_protocol.as_deref(), &port.name);
    if protocol == Protocol::Datagram {
        return None;
    }
    let instances = instances(serving, number, &port.name, port.target_port.as_ref());
    if let Some(TargetPort::Name(name)) =
        port.target_port.as_ref().filter(|_| instances.len() < serving.len())
    {
        let what = format!(
            "{} of {} workloads have no port named {name}; they do not serve this port",
            serving.len() - instances.len(),
            serving.len()
        );
        problems.warn(item, format!("ports[{index}].targetPort"), what);
    }
    Some(Port { number, protocol, instances, passing: None })
}

/// Those of `serving` who serve the port of that number and name, each where it does.
pub(super) fn instances(
    serving: &[Arc<Workload>],
    number: u16,
    name: &str,
    target: Option<&TargetPort>,
) -> Vec<Instance> {
    let place = |workload: &Arc<Workload>| {
        let address = workload.socket(number, name, target)?;
        Some(Instance { address, workload: workload.clone() })
    };
    serving.iter().filter_map(place).collect()
}
