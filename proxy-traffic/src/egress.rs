//! Who may leave: `outboundTrafficPolicy` of the mesh and of its Sidecars.

use std::collections::BTreeMap;

pub use proxy_common::Egress as EgressVerdict;

use crate::Workload;

/// The policy of the whole mesh, and of those for whom it is another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// MeshConfig's.
    pub mesh: EgressPolicy,
    /// Sidecars': the first that is about a workload has it. With a selector before without, and the root namespace's last.
    pub sidecars: Vec<EgressScope>,
}

/// The policy of one Sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressScope {
    /// Workloads of this namespace; `None`: of every one.
    pub namespace: Option<String>,
    /// Labels that they must have.
    pub labels: BTreeMap<String, String>,
    /// What holds for them.
    pub policy: EgressPolicy,
}

/// `outboundTrafficPolicy`, with our annotations on the resource that says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    /// What a connection meets that no listener takes.
    pub verdict: EgressVerdict,
    /// `shunt.dev/egress-existing: close`: what is open and no longer allowed is closed.
    pub closes_existing: bool,
    /// The resource that says so, `Sidecar default/default`; empty: nobody did.
    pub source: String,
}

impl Egress {
    /// What holds for `workload`.
    #[must_use]
    pub fn of(&self, workload: &Workload) -> &EgressPolicy {
        let is_about = |scope: &&EgressScope| {
            let labels = &workload.labels;
            scope.namespace.as_ref().is_none_or(|namespace| *namespace == workload.namespace)
                && scope.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        self.sidecars.iter().find(is_about).map_or(&self.mesh, |scope| &scope.policy)
    }
}

impl EgressPolicy {
    /// Whether everything may be reached.
    #[must_use]
    pub fn allows_any(&self) -> bool {
        self.verdict == EgressVerdict::Allow
    }
}
