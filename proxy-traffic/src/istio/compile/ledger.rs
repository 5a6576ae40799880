//! What is wrong, by the part of the work that found it: a part that is done again says it anew.

use std::{collections::BTreeMap, sync::Arc};

use super::Problems;
use crate::{ClusterName, istio::Problem};

/// A part of the work that is done again as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    /// Resources that several files bring.
    Clashes,
    /// The registry's entry of a host.
    Service(String),
    /// The DestinationRules of a host.
    Policy(String),
    /// DestinationRules of hosts that are not there.
    IdleRules,
    /// Addresses that are given to hosts.
    Addresses,
    /// The listeners of a host, but for their addresses.
    Listeners(String),
    /// The listener of a port at any address.
    Anywhere(u16),
    /// Which host has which address.
    Claims,
    /// VirtualServices of hosts that are not there.
    IdleBindings,
    /// The egress policies.
    Egress,
    /// The edge.
    Gateways,
    /// One cluster.
    Cluster(ClusterName),
}

/// Everything that is wrong.
#[derive(Default)]
pub(super) struct Ledger {
    units: BTreeMap<Unit, Vec<Problem>>,
    all: Option<Arc<[Problem]>>,
}

impl Ledger {
    /// What `unit` found the last time it was done.
    pub(super) fn set(&mut self, unit: Unit, problems: Problems) {
        let problems = problems.finish();
        let same = self.units.get(&unit).map_or(&[][..], Vec::as_slice) == problems;
        if same {
            return;
        }
        self.all = None;
        if problems.is_empty() {
            self.units.remove(&unit);
        } else {
            self.units.insert(unit, problems);
        }
    }

    /// Everything, each once, in order; the same list while nothing changes.
    pub(super) fn all(&mut self) -> Arc<[Problem]> {
        let units = &self.units;
        let all = || Problems(units.values().flatten().cloned().collect()).finish().into();
        self.all.get_or_insert_with(all).clone()
    }
}
