//! How a story's daemon starts, step by step.

use std::{collections::BTreeSet, sync::Arc};

use proxy_traffic::Snapshot;
use shunt::kernel::Kernel;

use super::{VIP, VIP6, World, snapshot};

impl World {
    /// Loads, claims both VIPs, enrolls the workload, attaches.
    pub(crate) fn start_daemon(&mut self) {
        self.start_daemon_with(&snapshot(&[VIP, VIP6], &[]));
    }

    /// The same with other rules.
    pub(crate) fn start_daemon_with(&mut self, rules: &Arc<Snapshot>) {
        self.load_daemon_with(rules);
        self.attach_daemon();
    }

    /// All but the last step: what an earlier daemon left is still in force.
    pub(crate) fn load_daemon_with(&mut self, rules: &Arc<Snapshot>) {
        let mut kernel = Kernel::load(&self.settings).unwrap();
        kernel.sync(rules).unwrap();
        self.kernel = Some(kernel);
        self.enroll_work();
    }

    /// The last.
    pub(crate) fn attach_daemon(&mut self) {
        let whole = BTreeSet::from([self.cgroups.path.clone()]);
        self.kernel_mut().attach(&whole).unwrap();
    }
}
