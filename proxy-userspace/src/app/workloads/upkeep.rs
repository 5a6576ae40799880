//! What is looked after again and again: rules, addresses, records, health, and what a change of policy ends.

use std::{collections::BTreeSet, time::Instant};

use proxy_traffic::Snapshot;

use super::{super::egress, Captured, Workloads};
use crate::{
    cause::chain,
    metrics::Metrics,
    node::{Steering, routing},
};

impl Workloads {
    /// Does what `snapshot` asks for beside the kernel's tables, which are those of it already.
    pub(in crate::app) fn follow(&mut self, before: &Snapshot, snapshot: &Snapshot) {
        self.names.follow(&snapshot.lookups);
        for captured in self.captured.values() {
            let policy = snapshot.egress.of(&captured.workload);
            if before.egress.of(&captured.workload) != policy && policy.closes_existing {
                self.close_existing(captured, snapshot);
            }
        }
    }

    /// Ends what is open and no longer allowed.
    fn close_existing(&self, captured: &Captured, snapshot: &Snapshot) {
        let name = &captured.workload.name;
        let closed = egress::close_existing(
            &egress::Extent {
                namespace: &captured.extent.namespace,
                cgroup: captured.extent.cgroup.as_deref(),
                daemon: self.daemon,
            },
            snapshot,
            self.direct.sockets(captured.extent.namespace.cookie()),
        );
        match closed {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!("workload {name}: {count} connections are no longer allowed and were closed")
            }
            Err(error) => {
                tracing::warn!("workload {name}: connections that are no longer allowed stay open: {error}")
            }
        }
    }

    /// Keeps things true that others may have changed: routes that went with an address, namespaces that were
    /// deleted, rules that nobody needs any more.
    pub(in crate::app) fn tend(&mut self, metrics: &Metrics, snapshot: &Snapshot) {
        let gone = self.captured.values().filter_map(|one| Some((one.workload.name.clone(), one.lost()?)));
        for (name, what) in gone.collect::<Vec<_>>() {
            tracing::info!("the {what} of workload {name} is gone; it is left alone");
            if let Err(error) = self.remove(&name) {
                tracing::warn!("workload {name}: {}", chain(error.as_ref()));
            }
        }
        self.look_after_addresses(snapshot);
        let back: BTreeSet<_> = self.captured.values().map(|one| one.extent.namespace.cookie()).collect();
        let leaving = self.leaving.iter().filter(|one| !back.contains(&one.extent.namespace.cookie()));
        let leaving = leaving.map(|one| (one, Steering { names: false, ..self.places.steering }));
        for (captured, steering) in
            self.captured.values().map(|one| (one, self.places.steering)).chain(leaving)
        {
            let name = &captured.workload.name;
            match routing::ensure(&captured.extent.namespace, &steering) {
                Ok(false) => {}
                Ok(true) => tracing::info!("workload {name}: its routing rules were gone and are back"),
                Err(error) => tracing::warn!("workload {name}: its routing rules cannot be kept: {error}"),
            }
        }
        self.leaving.retain(|leaving| {
            let cookie = leaving.extent.namespace.cookie();
            let over = leaving.is_idle() && !self.direct.has_open(&self.kernel, cookie);
            if over {
                tracing::info!("workload {}: its last connection has ended", leaving.workload.name);
            }
            // One that is back under the same name and labels counts on where it was.
            if over && !self.captured.values().any(|one| one.workload == leaving.workload) {
                metrics.forget(&leaving.workload);
                self.direct.forget(cookie, &leaving.workload);
            }
            !over
        });
    }

    /// Interfaces come and go; and so may connections that went around the programs.
    fn look_after_addresses(&mut self, snapshot: &Snapshot) {
        for captured in self.captured.values_mut() {
            if !snapshot.egress.of(&captured.workload).allows_any() {
                captured.find_outside(&mut self.kernel);
            }
        }
        for captured in self.captured.values() {
            let (name, namespace) = (&captured.workload.name, &captured.extent.namespace);
            let own = namespace.own_addresses().map_err(anyhow::Error::from);
            if let Err(error) = own.and_then(|own| Ok(self.kernel.set_own(namespace.cookie(), &own)?)) {
                tracing::warn!("workload {name}: its own addresses are not known: {}", chain(error.as_ref()));
            }
            if snapshot.egress.of(&captured.workload).closes_existing {
                self.close_existing(captured, snapshot);
            }
        }
    }

    /// Writes and reports what the kernel tells of single connections.
    pub(in crate::app) fn read_records(&mut self) {
        if self.direct.read_events(&mut self.kernel) {
            self.tell_health();
        }
    }

    /// Renews the lease, and looks after the kernel's tables.
    pub(in crate::app) fn keep_up(&mut self) {
        self.read_records();
        match self.kernel.tend(Instant::now()) {
            Ok(()) => self.direct.renewed(),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Tells the kernel whom to pass over.
    pub(in crate::app) fn tell_health(&mut self) {
        if let Err(error) = self.kernel.sync_health() {
            tracing::warn!("the kernel does not know who is healthy: {error}");
        }
    }

    /// Compares the limits' counts with the sockets that exist.
    pub(in crate::app) fn audit(&mut self) {
        self.direct.audit(&self.kernel);
    }
}
