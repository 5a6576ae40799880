//! Who is looked after: the local workload and whatever was enrolled.
//!
//! A workload is captured in four steps: listeners inside its network namespace, routing rules, the kernel's
//! entry, the programs at its cgroup. It is left alone in reverse, except that its routing rules stay until its
//! last captured connection has ended: they carry its packets.

mod captured;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use proxy_common::{FailurePolicy, v4_mapped};
use proxy_traffic::{Snapshot, Workload};

use self::captured::{Captured, Routed, families};
use super::{dial::InNamespace, direct::Direct, dns::Names};
use crate::{
    admin::{Ask, Enrolment, WorkloadRow},
    kernel::{self, Doors, Kernel},
    node::{Listeners, NameSockets, Namespace, Steering, cgroup, routing},
    proxy::Workers,
};

/// Everybody who is looked after, and the kernel's part of it.
pub(super) struct Workloads {
    pub(super) kernel: Kernel,
    pub(super) direct: Direct,
    pub(super) names: Names,
    /// The daemon's own cgroup.
    daemon: u64,
    places: Places,
    captured: BTreeMap<String, Captured>,
    /// No longer captured, but with connections that are still open.
    leaving: Vec<Captured>,
    /// Whether the programs are attached: not while the daemon starts, and not while it drains.
    settled: bool,
}

/// What is the same for every workload.
pub(super) struct Places {
    pub(super) steering: Steering,
    pub(super) failure_policy: FailurePolicy,
    /// The cgroup where the programs sit for workloads without one of their own.
    pub(super) root: PathBuf,
    /// Where an earlier daemon may have left pins, of which this one has no use.
    pub(super) stale_pins: Option<PathBuf>,
}

/// Which processes a workload is.
pub(super) struct Extent {
    pub(super) namespace: Arc<Namespace>,
    /// The file it was enrolled by; the local workload has none.
    pub(super) netns: Option<PathBuf>,
    /// Only these processes of the namespace.
    pub(super) cgroup: Option<PathBuf>,
}

impl Workloads {
    pub(super) fn new(kernel: Kernel, direct: Direct, names: Names, places: Places, daemon: u64) -> Self {
        let (captured, leaving) = (BTreeMap::new(), Vec::new());
        Self { kernel, direct, names, daemon, places, captured, leaving, settled: false }
    }

    /// Captures everybody added so far, and from here on whoever is added. Until now what a killed daemon left
    /// pinned decides; its pins go when ours are in place, or nobody would refuse what policy `closed` refuses.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        self.settled = true;
        self.attach()?;
        let stale = self.places.stale_pins.as_deref();
        Ok(stale.map_or(Ok(()), kernel::drop_stale_pins)?)
    }

    /// Captures `workload` from here on; what fails is undone.
    pub(super) fn add(
        &mut self,
        workload: Workload,
        extent: Extent,
        workers: &Workers,
    ) -> anyhow::Result<()> {
        self.check(&workload, &extent)?;
        let (name, cookie, workload) = (workload.name.clone(), extent.namespace.cookie(), Arc::new(workload));
        let listeners = extent.namespace.listen().context("cannot listen inside the network namespace")?;
        let routed = self.routed(&extent.namespace)?;
        let entry = self.entry(&extent, &listeners)?;
        let (families, cgroup_id) = (families(&listeners), entry.cgroup_id);
        let (v4, v6) = (listeners.v4.as_fd(), listeners.v6.as_ref().ok().map(|listener| listener.as_fd()));
        let own = extent.namespace.own_addresses().context("cannot list the namespace's addresses")?;
        self.kernel.set_own(cookie, &own)?;
        let questions = self.name_sockets(&extent.namespace, &name);
        let dns4 = questions.as_ref().map(|sockets| sockets.v4.as_fd());
        let dns6 =
            questions.as_ref().and_then(|sockets| sockets.v6.as_ref().ok()).map(|socket| socket.as_fd());
        let entry = proxy_common::Workload {
            flags: if dns4.is_some() { proxy_common::Workload::DNS } else { 0 },
            ..entry
        };
        let doors = Doors { v4, v6, dns4, dns6 };
        self.kernel.enroll(extent.namespace.as_fd(), cookie, entry, workload.clone(), &doors)?;
        if let Some(sockets) = questions {
            self.names.serve(&extent.namespace, &workload, sockets);
        }
        self.direct.open(&extent.namespace, &workload);
        let dial = Arc::new(InNamespace(extent.namespace.clone()));
        let acceptors = Vec::new();
        let mut captured =
            Captured { workload, extent, dial, acceptors, families, cgroup_id, routed, unguardable: None };
        captured.find_outside(&mut self.kernel);
        let accepting = captured.accept(listeners, workers);
        self.captured.insert(name.clone(), captured);
        if let Err(error) = accepting.and_then(|()| self.attach()) {
            self.remove(&name)?;
            return Err(error);
        }
        Ok(())
    }

    /// Where the workload's name queries arrive; without, it asks its resolvers as ever.
    fn name_sockets(&self, namespace: &Namespace, workload: &str) -> Option<NameSockets> {
        if !self.names.answers {
            return None;
        }
        let opened = namespace.name_sockets();
        opened
            .inspect_err(|error| {
                tracing::warn!("workload {workload}: its name queries are left alone: {error}");
            })
            .ok()
    }

    /// A name and a namespace belong to one workload only.
    fn check(&self, workload: &Workload, extent: &Extent) -> anyhow::Result<()> {
        for name in [&workload.name, &workload.namespace] {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            ensure!(
                (1..=253).contains(&name.len()) && name.bytes().all(plain),
                "{name:?} is no name for a workload or its namespace: use letters, digits, -, _ and dots"
            );
        }
        for other in self.captured.values() {
            let name = &other.workload.name;
            ensure!(*name != workload.name, "a workload {name} is already there; unenroll it first");
            if other.extent.namespace.cookie() == extent.namespace.cookie() {
                bail!(
                    "this network namespace already belongs to the workload {name}; one namespace, one workload"
                );
            }
        }
        Ok(())
    }

    /// The namespace's routing rules. A workload that is on its way out may hold them still, and must not take them
    /// away from its successor.
    fn routed(&self, namespace: &Arc<Namespace>) -> anyhow::Result<Arc<Routed>> {
        let same = |one: &&Captured| one.extent.namespace.cookie() == namespace.cookie();
        let held = self.leaving.iter().find(same).map(|leaving| leaving.routed.clone());
        let Some(held) = held else {
            return Routed::new(namespace.clone(), self.places.steering).map(Arc::new);
        };
        // The one that leaves asks no names any more, its successor does.
        routing::ensure(namespace, &self.places.steering)
            .context("cannot route inside the network namespace")?;
        Ok(held)
    }

    /// What the programs need to know.
    fn entry(&self, extent: &Extent, listeners: &Listeners) -> anyhow::Result<proxy_common::Workload> {
        let cgroup_id = match &extent.cgroup {
            Some(path) => cgroup::id(path)?,
            None => 0,
        };
        // Without one the same source is still sent to the same endpoint, though all workloads are alike then.
        let sources = extent.namespace.addresses().unwrap_or_default();
        let mapped = |address: Option<IpAddr>| address.map(v4_mapped).unwrap_or_default();
        let port6 = listeners.v6.as_ref().ok().map(|listener| listener.local_addr()).transpose()?;
        Ok(proxy_common::Workload {
            cgroup_id,
            port4: listeners.v4.local_addr()?.port().to_be_bytes(),
            port6: port6.map_or(0, |address| address.port()).to_be_bytes(),
            failure_policy: self.places.failure_policy as u8,
            source4: mapped(sources.0.map(IpAddr::from)),
            source6: mapped(sources.1.map(IpAddr::from)),
            ..Default::default()
        })
    }

    /// Puts the programs where the workloads are.
    fn attach(&mut self) -> anyhow::Result<()> {
        if !self.settled {
            return Ok(());
        }
        // One that has vanished must not stand in everybody's way; `tend` lets go of it.
        let cgroups = self.cgroups();
        Ok(self.kernel.attach(&cgroups)?)
    }

    /// Captures nothing more of `name`; its open connections live on.
    pub(super) fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        let Some(mut captured) = self.captured.remove(name) else {
            bail!("there is no workload {name}; `shunt status` lists them");
        };
        let cookie = captured.extent.namespace.cookie();
        // Its sockets are marked for as long as they live: from here on they ask their resolvers again.
        let leaving = Steering { names: false, ..self.places.steering };
        if let Err(error) = routing::ensure(&captured.extent.namespace, &leaving) {
            tracing::warn!("workload {name}: its name queries may go unanswered: {error}");
        }
        self.names.leave(cookie);
        self.kernel.unenroll(cookie)?;
        captured.acceptors.drain(..).for_each(|acceptor| acceptor.stop());
        self.leaving.push(captured);
        self.attach()
    }

    /// Brings up to date what `ask` is answered from.
    pub(super) fn refresh(&mut self, ask: &Ask) {
        if *ask == Ask::Metrics {
            self.direct.scrape(&self.kernel);
        }
    }

    /// Captures nothing more of anybody; open connections live on.
    pub(super) fn release(&mut self) -> anyhow::Result<()> {
        self.settled = false;
        Ok(self.kernel.attach(&BTreeSet::new())?)
    }

    /// Takes everything out of the kernel and out of the namespaces.
    pub(super) fn close(self) -> anyhow::Result<()> {
        let Self { kernel, captured, leaving, .. } = self;
        drop((captured, leaving));
        Ok(kernel.close()?)
    }

    /// Whether `name` is captured.
    pub(super) fn has(&self, name: &str) -> bool {
        self.captured.contains_key(name)
    }

    /// For `shunt status`.
    pub(super) fn rows(&self, snapshot: &Snapshot) -> Vec<WorkloadRow> {
        self.captured.values().map(|one| one.row(snapshot, &self.kernel)).collect()
    }

    /// One workload of each namespace and set of labels: all that rules tell workloads apart by.
    pub(super) fn classes(&self) -> Vec<Arc<Workload>> {
        let class = |one: &Captured| (one.workload.namespace.clone(), one.workload.labels.clone());
        let classes = self.captured.values().map(|one| (class(one), one.workload.clone()));
        classes.collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// Where workloads are.
    pub(super) fn cgroups(&self) -> BTreeSet<PathBuf> {
        let there = self.captured.values().filter(|one| one.lost().is_none());
        there.map(|one| one.extent.cgroup.clone().unwrap_or_else(|| self.places.root.clone())).collect()
    }

    /// What to enrol again after a crash.
    pub(super) fn enrolments(&self) -> Vec<Enrolment> {
        self.captured.values().filter_map(Captured::enrolment).collect()
    }
}
