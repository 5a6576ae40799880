//! Who asked for what: which parts of the work are done again when a host changed.

use std::collections::{BTreeMap, BTreeSet};

use super::{cluster::Asked, ledger::Unit};

/// What each part of the work asked for, and by host who asked.
#[derive(Default)]
pub(super) struct Units {
    asked: BTreeMap<Unit, Asked>,
    users: BTreeMap<String, BTreeSet<Unit>>,
}

impl Units {
    /// Those that looked up `host`. A host's own listeners need not be told of it.
    pub(super) fn using(&self, host: &str) -> impl Iterator<Item = &Unit> {
        self.users.get(host).into_iter().flatten()
    }

    /// Notes what `unit` asked for.
    pub(super) fn set(&mut self, unit: Unit, mut asked: Asked) {
        if let Unit::Listeners(host) = &unit {
            asked.hosts.remove(host);
        }
        for host in &asked.hosts {
            self.users.entry(host.clone()).or_default().insert(unit.clone());
        }
        if !asked.hosts.is_empty() || !asked.clusters.is_empty() {
            self.asked.insert(unit, asked);
        }
    }

    /// Forgets what `unit` asked for, since it is done again.
    pub(super) fn take(&mut self, unit: &Unit) -> Asked {
        let asked = self.asked.remove(unit).unwrap_or_default();
        for host in &asked.hosts {
            let Some(users) = self.users.get_mut(host) else { continue };
            users.remove(unit);
            if users.is_empty() {
                self.users.remove(host);
            }
        }
        asked
    }
}
