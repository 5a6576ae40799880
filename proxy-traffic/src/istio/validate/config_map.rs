//! ConfigMap `istio`: MeshConfig.

use super::sidecar;
use crate::istio::{
    problem::Report,
    resource::{MeshConfig, Mode},
};

/// Checks `spec`.
pub(in crate::istio) fn mesh_config(spec: &MeshConfig, report: &mut Report<'_>) {
    let Some(policy) = &spec.outbound_traffic_policy else { return };
    sidecar::zero_mode(policy, "leave outboundTrafficPolicy out, or write mode: ALLOW_ANY, to allow", report);
    if policy.mode == Some(Mode::AllowAnyDynamicDns) {
        let what = "ALLOW_ANY_DYNAMIC_DNS is not served: the mode in force is ALLOW_ANY";
        report.warn("outboundTrafficPolicy.mode", what);
    }
    if policy.egress_proxy.0 {
        report.warn("outboundTrafficPolicy.egressProxy", "is not a field of a mesh and has no effect");
    }
}
