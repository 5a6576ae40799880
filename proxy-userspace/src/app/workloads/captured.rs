//! One workload that is looked after, and what goes when it does.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use anyhow::Context as _;
use proxy_traffic::{Door, EgressPolicy, EgressVerdict, Snapshot, Workload};

use super::{super::dial::InNamespace, Extent};
use crate::{
    admin::{Enrolment, WorkloadRow},
    kernel::{Guarded, Kernel, Outside},
    node::{Listeners, Namespace, Steering, cgroup, routing, veth},
    proxy::{Acceptor, AcceptorHandle, Workers},
};

/// One workload that is looked after.
pub(super) struct Captured {
    pub(super) workload: Arc<Workload>,
    pub(super) extent: Extent,
    /// Every listener and connection of the workload holds it too.
    pub(super) dial: Arc<InNamespace>,
    pub(super) acceptors: Vec<AcceptorHandle>,
    pub(super) families: Vec<String>,
    /// The cgroup's number when it was enrolled: another under the same path is another one.
    pub(super) cgroup_id: u64,
    pub(super) routed: Arc<Routed>,
    /// Why nobody can look at its packets where they leave its namespace.
    pub(super) unguardable: Option<String>,
}

/// Rule and route of one namespace; they go with this value.
pub(super) struct Routed {
    namespace: Arc<Namespace>,
    steering: Steering,
}

impl Routed {
    pub(super) fn new(namespace: Arc<Namespace>, steering: Steering) -> anyhow::Result<Self> {
        routing::install(&namespace, &steering).context("cannot route inside the network namespace")?;
        Ok(Self { namespace, steering })
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        if let Err(error) = routing::remove(&self.namespace, &self.steering) {
            tracing::warn!("routing rules stay behind: {error}");
        }
    }
}

impl Captured {
    pub(super) fn accept(&mut self, listeners: Listeners, workers: &Workers) -> anyhow::Result<()> {
        for listener in [Some(listeners.v4), listeners.v6.ok()].into_iter().flatten() {
            let (door, workload, dial) = (Door::Mesh, self.workload.clone(), self.dial.clone());
            self.acceptors.push(workers.add(Acceptor { listener, door, workload, dial })?);
        }
        Ok(())
    }

    /// What it was enrolled by and no longer is what it was.
    pub(super) fn lost(&self) -> Option<&'static str> {
        let same =
            |path: &Path| fs::metadata(path).is_ok_and(|about| about.ino() == self.extent.namespace.inode());
        if self.extent.netns.as_deref().is_some_and(|path| !same(path)) {
            return Some("network namespace");
        }
        let same = |path: &Path| cgroup::id(path).is_ok_and(|id| id == self.cgroup_id);
        self.extent.cgroup.as_deref().is_some_and(|path| !same(path)).then_some("cgroup")
    }

    /// Whether no connection holds it any more.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.dial) == 1
    }

    /// Finds out where its packets leave its namespace, for when a policy asks that they be looked at.
    pub(super) fn find_outside(&mut self, kernel: &mut Kernel) {
        let found = veth::host_side(&self.extent.namespace);
        let outside = found.as_ref().ok().map(|side| Outside { ifindex: side.ifindex, number: side.number });
        if let Err(error) = kernel.guard(self.extent.namespace.cookie(), outside) {
            tracing::warn!("workload {}: its packets are not guarded: {error}", self.workload.name);
        }
        self.unguardable = found.err().map(|why| why.to_string());
    }

    pub(super) fn row(&self, snapshot: &Snapshot, kernel: &Kernel) -> WorkloadRow {
        WorkloadRow {
            name: self.workload.name.clone(),
            namespace: self.workload.namespace.clone(),
            labels: self.workload.labels.clone(),
            cgroup: self.extent.cgroup.clone(),
            families: self.families.clone(),
            egress: egress(snapshot.egress.of(&self.workload)) + &self.guard(kernel),
        }
    }

    /// Whether its packets are looked at as well as its sockets.
    fn guard(&self, kernel: &Kernel) -> String {
        match kernel.guarded(self.extent.namespace.cookie()) {
            Guarded::NotNeeded => String::new(),
            Guarded::Attached => "; packets are guarded".to_owned(),
            Guarded::Impossible(why) => {
                format!("; packets are not guarded: {}", self.unguardable.as_deref().unwrap_or(&why))
            }
        }
    }

    pub(super) fn enrolment(&self) -> Option<Enrolment> {
        let Workload { name, namespace, labels } = (*self.workload).clone();
        let cgroup = self.extent.cgroup.clone();
        self.extent.netns.clone().map(|netns| Enrolment { name, namespace, labels, netns, cgroup })
    }
}

/// The address families that `listeners` serve.
pub(super) fn families(listeners: &Listeners) -> Vec<String> {
    let v6 = listeners.v6.as_ref().ok().map(|_| "IPv6".to_owned());
    [Some("IPv4".to_owned()), v6].into_iter().flatten().collect()
}

/// A policy in a few words.
fn egress(policy: &EgressPolicy) -> String {
    let mode = match policy.verdict {
        EgressVerdict::Allow => "ALLOW_ANY",
        EgressVerdict::Close => "REGISTRY_ONLY, closed",
        EgressVerdict::Refuse => "REGISTRY_ONLY, refused",
    };
    if policy.source.is_empty() { mode.to_owned() } else { format!("{mode} by {}", policy.source) }
}
