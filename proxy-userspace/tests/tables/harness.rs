//! Snapshots in a few words, kernels to put them into, and what is found there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    mount::umount,
    sched::{CloneFlags, unshare},
};
use proxy_common::direct::{self, Balancing};
use proxy_traffic::{
    Cluster, ClusterKind, ClusterName, Destination, Endpoint, Listener, Match, Route, Rule, Snapshot,
    SteerReason, SubnetListener, Workload,
};
use shunt::{
    kernel::{Doors, Found, Kernel, KernelSettings, LogLevel},
    node::{Listeners, Namespace},
};

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Longer than anything that is gone is kept.
pub(crate) const LATER: Duration = Duration::from_secs(100);

#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) listeners: u32,
    pub(crate) endpoints: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { listeners: KernelSettings::CLAIMS, endpoints: KernelSettings::ENDPOINTS }
    }
}

impl Sizes {
    pub(crate) fn settings(self, pin: Option<PathBuf>) -> KernelSettings {
        KernelSettings {
            own_cgroup: 1,
            mark: 1,
            claims: self.listeners,
            endpoints: self.endpoints,
            lease: Duration::from_secs(60),
            direct_log_percent: 100,
            pin,
            log: LogLevel::Off,
        }
    }
}

pub(crate) fn load(sizes: Sizes) -> Kernel {
    assert!(nix::unistd::Uid::effective().is_root(), "these tests make kernel maps: run them as root");
    Kernel::load(&sizes.settings(None)).unwrap()
}

/// A folder for pins; gone with the test.
pub(crate) struct Pins(pub(crate) PathBuf);

impl Pins {
    pub(crate) fn new() -> Self {
        let name = format!("shunt-tables-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn settings(&self) -> KernelSettings {
        Sizes::default().settings(Some(self.0.clone()))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if self.0.exists() {
            let _ = umount(&self.0);
            let _ = fs::remove_dir(&self.0);
        }
    }
}

/// A workload in a namespace of its own.
pub(crate) struct Client {
    pub(crate) namespace: Namespace,
    listeners: Option<Listeners>,
}

impl Client {
    pub(crate) fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let file = thread::spawn(make).join().unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Self { namespace: Namespace::open(Path::new(&path)).unwrap(), listeners: None }
    }

    pub(crate) fn enroll(&mut self, kernel: &mut Kernel, app: &str) {
        let listeners = self.namespace.listen().unwrap();
        let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        let workload = Workload { name: "client".to_owned(), namespace: "default".to_owned(), labels };
        let (netns, cookie) = (self.namespace.as_fd(), self.namespace.cookie());
        kernel
            .enroll(
                netns,
                cookie,
                Default::default(),
                Arc::new(workload),
                &Doors { v4: listeners.v4.as_fd(), v6: None, dns4: None, dns6: None },
            )
            .unwrap();
        self.listeners = Some(listeners);
    }

    pub(crate) fn look(&self, kernel: &Kernel) -> Found {
        kernel.look(self.namespace.cookie(), "10.99.0.1:80".parse().unwrap()).unwrap().unwrap()
    }

    /// The scope of what it finds.
    pub(crate) fn scope(&self, kernel: &Kernel) -> u32 {
        self.look(kernel).scope
    }
}

pub(crate) fn endpoints(places: &[&str]) -> Vec<Endpoint> {
    let endpoint =
        |place: &&str| Endpoint { address: place.parse().unwrap(), weight: 1, workload: Arc::default() };
    places.iter().map(endpoint).collect()
}

pub(crate) fn with_kind(name: &str, kind: ClusterKind) -> Arc<Cluster> {
    let plain = Cluster::passthrough(Duration::from_secs(10));
    let name = ClusterName::outbound(80, "", name);
    Arc::new(Cluster { name, kind, balancing: Balancing::LeastRequest, ..plain })
}

pub(crate) fn cluster(name: &str, places: &[&str]) -> Arc<Cluster> {
    with_kind(name, ClusterKind::Endpoints(endpoints(places)))
}

/// The same policies for an endpoint that an IPv4 listener may lead to.
pub(crate) fn tuned_v4(tuned: &Cluster) -> Arc<Cluster> {
    let name = ClusterName::outbound(80, "", "tuned-v4");
    Arc::new(Cluster { name, kind: ClusterKind::Endpoints(endpoints(&["10.0.0.9:80"])), ..tuned.clone() })
}

pub(crate) fn rule(matches: Vec<Match>, arms: &[(u64, &Arc<Cluster>)]) -> Rule {
    let destinations =
        arms.iter().map(|(weight, cluster)| Destination { weight: *weight, cluster: (*cluster).clone() });
    Rule { matches, route: Arc::new(Route { name: "test".to_owned(), destinations: destinations.collect() }) }
}

pub(crate) fn listener(rules: Vec<Rule>) -> Arc<Listener> {
    Arc::new(Listener { name: "test".to_owned(), rules, ..Listener::default() })
}

pub(crate) fn direct(arms: &[(u64, &Arc<Cluster>)]) -> Arc<Listener> {
    listener(vec![rule(vec![], arms)])
}

pub(crate) fn steered() -> Arc<Listener> {
    Arc::new(Listener {
        name: "test".to_owned(),
        rules: vec![],
        steer: Some(SteerReason::Setting),
        ..Listener::default()
    })
}

pub(crate) fn snapshot(listeners: &[(&str, Arc<Listener>)]) -> Arc<Snapshot> {
    let listeners = listeners.iter().map(|(at, listener)| (at.parse().unwrap(), listener.clone())).collect();
    Arc::new(Snapshot { listeners, ..Snapshot::default() })
}

pub(crate) fn with_ranges(ranges: &[(&str, u16, Arc<Listener>)]) -> Arc<Snapshot> {
    let range = |(subnet, port, listener): &(&str, u16, Arc<Listener>)| SubnetListener {
        subnet: subnet.parse().unwrap(),
        port: *port,
        listener: listener.clone(),
    };
    Arc::new(Snapshot { subnets: ranges.iter().map(range).collect(), ..Snapshot::default() })
}

/// What everybody finds.
pub(crate) fn look(kernel: &Kernel, destination: &str) -> Found {
    kernel.look(0, destination.parse().unwrap()).unwrap().unwrap()
}

pub(crate) fn address(endpoint: &direct::Endpoint) -> SocketAddr {
    let destination = proxy_common::Destination { address: endpoint.address, port: endpoint.port };
    destination.into()
}

pub(crate) fn addresses(found: &Found) -> Vec<String> {
    let sorted: BTreeSet<_> = found.endpoints.iter().map(|(_, one)| address(one)).collect();
    sorted.into_iter().map(|address| address.to_string()).collect()
}

pub(crate) fn number_of(found: &Found, place: &str) -> u32 {
    found.endpoints.iter().find(|(_, one)| address(one).to_string() == place).unwrap().0
}

pub(crate) fn hash_of(kernel: &Kernel, found: &Found, name: &str) -> u32 {
    let named = |number: &u32| kernel.cluster(*number).unwrap().name == ClusterName::outbound(80, "", name);
    found.clusters.iter().map(|(number, ..)| *number).find(named).unwrap()
}

/// Each cluster's share of the arms in percent, by number.
pub(crate) fn shares(found: &Found) -> Vec<(u32, u64)> {
    let mut shares = BTreeMap::<u32, u64>::new();
    for slot in &found.arms {
        let own = u64::from(slot.threshold) + 1;
        *shares.entry(slot.own).or_default() += own;
        *shares.entry(slot.alias).or_default() += (1 << 32) - own;
    }
    let whole = (found.arms.len() as u64) << 32;
    shares.into_iter().map(|(number, share)| (number, (share * 100 + whole / 2) / whole)).collect()
}

pub(crate) fn used(kernel: &Kernel, table: &str) -> u32 {
    kernel.fill().iter().find(|fill| fill.table == table).unwrap().used
}
