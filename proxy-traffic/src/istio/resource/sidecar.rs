//! Sidecar: what the clients of a namespace, or some of them, may reach.

use serde::Deserialize;

use super::{Labels, OutboundTrafficPolicy};
use crate::istio::scalar::Present;

/// The part that is served, and that the others are there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Sidecar {
    /// None: everybody of the namespace, and in the root namespace everybody.
    pub(crate) workload_selector: Option<SidecarSelector>,
    /// None: the mesh's.
    pub(crate) outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    pub(crate) egress: Present,
    pub(crate) ingress: Present,
    pub(crate) inbound_connection_pool: Present,
}

/// Labels that a workload must have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct SidecarSelector {
    /// Empty: every workload of the namespace.
    pub(crate) labels: Labels,
}
