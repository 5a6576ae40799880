//! Every service, whichever kind of resource brought it: host, addresses, ports, and who serves each port.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use ipnet::IpNet;

use super::{
    Problems, Settings, Source,
    protocol::Protocol,
    verdict::Wishes,
    workload::{Workload, Workloads},
};
use crate::{
    Service,
    istio::{
        Resources, names,
        resource::{self, Item, Kind, ServiceEntry, ServicePort},
        scalar::TargetPort,
    },
};

/// Every service by its full host name.
pub(super) struct Registry<'a>(BTreeMap<String, Entry<'a>>);

/// One service.
pub(super) struct Entry<'a> {
    /// As metrics name it; the host is the registry's key.
    pub(super) service: Service,
    pub(super) source: Source<'a>,
    /// Istio's config order of the resource.
    pub(super) order: (&'a Option<String>, &'a str, &'a str),
    /// Its own addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// Its own ranges.
    pub(super) subnets: Vec<IpNet>,
    /// Its name stands for the addresses of its workloads.
    pub(super) headless: bool,
    /// A Service without selector: its endpoints, if any, stand where we do not look.
    selectorless: bool,
    /// What the annotations of its resources ask for.
    pub(super) wishes: Wishes,
    pub(super) ports: Vec<Port<'a>>,
}

/// One port of a service, without those that are not TCP.
pub(super) struct Port<'a> {
    pub(super) number: u16,
    pub(super) protocol: Protocol,
    pub(super) instances: Vec<Instance<'a>>,
}

/// A workload on the port where it serves.
pub(super) struct Instance<'a> {
    pub(super) address: SocketAddr,
    pub(super) workload: Rc<Workload<'a>>,
}

impl<'a> Entry<'a> {
    /// Whether connections to it are captured. What may be served elsewhere is left to the kernel.
    pub(super) fn is_captured(&self) -> bool {
        let elsewhere = self.selectorless && self.ports.iter().all(|port| port.instances.is_empty());
        !self.headless && !elsewhere
    }

    /// The port of that number.
    pub(super) fn port(&self, number: u16) -> Option<&Port<'a>> {
        self.ports.iter().find(|port| port.number == number)
    }
}

impl<'a> Registry<'a> {
    /// Services first, since a ServiceEntry of the same host only adds to them.
    pub(super) fn new(resources: &'a Resources, settings: &Settings, problems: &mut Problems) -> Self {
        let workloads = Workloads::new(resources);
        let mut entries = BTreeMap::new();
        for item in &resources.services {
            let entry = of_service(item, &workloads, settings, problems);
            entries.entry(entry.service.host.clone()).or_insert(entry);
        }
        for item in &resources.service_entries {
            for (index, host) in item.spec.hosts.iter().enumerate() {
                add_service_entry(
                    &mut entries,
                    item,
                    index,
                    of_service_entry(item, host, &workloads),
                    problems,
                );
            }
        }
        let registry = Self(entries);
        registry.report_unserved(problems);
        registry
    }

    /// The service of that full name.
    pub(super) fn get(&self, host: &str) -> Option<&Entry<'a>> {
        self.0.get(host)
    }

    /// Whether some service's host and `host`, which may be a wildcard, have a name in common.
    pub(super) fn has(&self, host: &str) -> bool {
        self.get(host).is_some() || self.0.keys().any(|known| names::overlap(host, known))
    }

    /// Every service by host.
    pub(super) fn by_host(&self) -> impl Iterator<Item = (&str, &Entry<'a>)> {
        self.0.iter().map(|(host, entry)| (host.as_str(), entry))
    }

    /// Every service, the oldest first.
    pub(super) fn by_age(&self) -> Vec<(&str, &Entry<'a>)> {
        let mut entries: Vec<_> = self.by_host().collect();
        entries.sort_by_key(|(host, entry)| (entry.order, *host));
        entries
    }

    fn report_unserved(&self, problems: &mut Problems) {
        for (host, entry) in &self.0 {
            if entry.headless {
                let what = "headless Services are not captured yet: their Pods are dialled directly, no rule applies";
                problems.warn(entry.source, "clusterIP", what);
            } else if !entry.is_captured() {
                let what =
                    "is missing, and Endpoints are not read yet: connections to this Service are left alone";
                problems.warn(entry.source, "selector", what);
            } else if host.starts_with('*') && entry.addresses.is_empty() && entry.subnets.is_empty() {
                let what = format!(
                    "{host} has no address of its own and a wildcard cannot be dialled; give addresses"
                );
                problems.warn(entry.source, "addresses", what);
            }
        }
    }
}

fn of_service<'a>(
    item: &'a Item<resource::Service>,
    workloads: &Workloads<'a>,
    settings: &Settings,
    problems: &mut Problems,
) -> Entry<'a> {
    let host = names::service(&item.key.name, &item.key.namespace, &settings.cluster_domain);
    let spec = &item.spec;
    let serving = workloads.within(&item.key.namespace).iter().filter(|workload| {
        !spec.selector.is_empty() && workload.serves(&spec.selector, spec.publish_not_ready_addresses)
    });
    let serving: Vec<_> = serving.cloned().collect();
    let ports = spec.ports.iter().enumerate();
    let ports = ports.filter_map(|(index, port)| service_port(item, index, port, &serving, problems));
    Entry {
        service: Service { host, name: item.key.name.clone(), namespace: item.key.namespace.clone() },
        source: item.into(),
        order: item.order(),
        addresses: spec.addresses().collect(),
        subnets: Vec::new(),
        headless: spec.is_headless(),
        selectorless: spec.selector.is_empty(),
        wishes: Wishes::of(item),
        ports: ports.collect(),
    }
}

fn service_port<'a>(
    item: &'a Item<resource::Service>,
    index: usize,
    port: &ServicePort,
    serving: &[Rc<Workload<'a>>],
    problems: &mut Problems,
) -> Option<Port<'a>> {
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
    Some(Port { number, protocol, instances })
}

fn instances<'a>(
    serving: &[Rc<Workload<'a>>],
    number: u16,
    name: &str,
    target: Option<&TargetPort>,
) -> Vec<Instance<'a>> {
    let place = |workload: &Rc<Workload<'a>>| {
        let address = workload.socket(number, name, target)?;
        Some(Instance { address, workload: workload.clone() })
    };
    serving.iter().filter_map(place).collect()
}

fn of_service_entry<'a>(item: &'a Item<ServiceEntry>, host: &str, workloads: &Workloads<'a>) -> Entry<'a> {
    let (spec, namespace) = (&item.spec, item.key.namespace.as_str());
    let inline = spec.endpoints.iter().filter_map(|one| Workload::inline(one, namespace)).map(Rc::new);
    let mut serving: Vec<_> = inline.collect();
    if let Some(selector) = &spec.workload_selector {
        let selected = workloads.within(namespace).iter().filter(|one| one.serves(&selector.labels, false));
        serving.extend(selected.cloned());
    }
    let ports = spec.ports.iter().filter_map(|port| {
        let protocol = Protocol::of_entry(&port.protocol, &port.name);
        let number = port.number.filter(|_| protocol != Protocol::Datagram)?.0;
        let target = port.target_port.map(|target| TargetPort::Number(target.0));
        Some(Port { number, protocol, instances: instances(&serving, number, &port.name, target.as_ref()) })
    });
    let host = host.to_ascii_lowercase();
    let ranges = spec.addresses.iter().filter(|subnet| subnet.single().is_none());
    Entry {
        service: Service { name: host.clone(), host, namespace: namespace.to_owned() },
        source: item.into(),
        order: item.order(),
        addresses: spec.addresses.iter().filter_map(|subnet| subnet.single()).collect(),
        subnets: ranges.map(|subnet| subnet.0).collect(),
        headless: false,
        selectorless: false,
        wishes: Wishes::of(item),
        ports: ports.collect(),
    }
}

/// A host that is there already gets more endpoints; of a ServiceEntry also more addresses and ports.
fn add_service_entry<'a>(
    entries: &mut BTreeMap<String, Entry<'a>>,
    item: &'a Item<ServiceEntry>,
    index: usize,
    new: Entry<'a>,
    problems: &mut Problems,
) {
    let Some(known) = entries.get_mut(&new.service.host) else {
        entries.insert(new.service.host.clone(), new);
        return;
    };
    known.wishes.join(new.wishes);
    let is_service = known.source.key.kind == Kind::Service;
    if !is_service {
        let added: Vec<_> = new.addresses.into_iter().filter(|one| !known.addresses.contains(one)).collect();
        known.addresses.extend(added);
        let added: Vec<_> = new.subnets.into_iter().filter(|one| !known.subnets.contains(one)).collect();
        known.subnets.extend(added);
    }
    for port in new.ports {
        match known.ports.iter_mut().find(|other| other.number == port.number) {
            Some(same) => same.instances.extend(port.instances),
            None if is_service => {
                let what = format!("{} has no port {}; add it there", known.source.key, port.number);
                problems.warn(item, format!("hosts[{index}]"), what);
            }
            None => known.ports.push(port),
        }
    }
}
