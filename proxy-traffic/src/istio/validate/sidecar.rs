//! Sidecar: its policy, and what of it is not served.

use crate::istio::{
    problem::Report,
    resource::{Mode, OutboundTrafficPolicy, Sidecar, SidecarSelector},
    scalar::Present,
};

/// Checks `spec`.
pub(in crate::istio) fn sidecar(spec: &Sidecar, report: &mut Report<'_>) {
    if *spec == Sidecar::default() {
        report.error("", "says nothing; write a workloadSelector or an outboundTrafficPolicy");
    }
    unserved("egress", spec.egress, "every host that is exported stays visible", report);
    unserved("ingress", spec.ingress, "connections to the workloads stay as they are", report);
    unserved("inboundConnectionPool", spec.inbound_connection_pool, "connections are not limited", report);
    spec.workload_selector.iter().for_each(|selector| check_selector(selector, report));
    spec.outbound_traffic_policy.iter().for_each(|policy| check_policy(policy, report));
}

fn unserved(field: &str, present: Present, instead: &str, report: &mut Report<'_>) {
    if present.0 {
        report.warn(field, format!("is not served yet: {instead}"));
    }
}

fn check_selector(selector: &SidecarSelector, report: &mut Report<'_>) {
    if selector.labels.is_empty() {
        report.warn("workloadSelector.labels", "is empty: every workload of the namespace is selected");
    }
    for (key, value) in &selector.labels {
        if key.is_empty() || key.contains('*') || value.contains('*') {
            let what = format!("\"{key}={value}\" selects nobody; wildcards are not for selectors");
            report.error("workloadSelector.labels", what);
        }
    }
}

fn check_policy(policy: &OutboundTrafficPolicy, report: &mut Report<'_>) {
    zero_mode(policy, "write mode: ALLOW_ANY to allow", report);
    let mode = policy.mode.unwrap_or_default();
    if mode == Mode::AllowAnyDynamicDns {
        let what = "ALLOW_ANY_DYNAMIC_DNS is for the whole mesh; write ALLOW_ANY or REGISTRY_ONLY";
        report.error("outboundTrafficPolicy.mode", what);
    }
    let field = "outboundTrafficPolicy.egressProxy";
    if policy.egress_proxy.0 && mode == Mode::RegistryOnly {
        report.error(field, "needs the mode ALLOW_ANY");
    } else {
        unserved(field, policy.egress_proxy, "what no rule takes goes where the client wants", report);
    }
}

/// A policy without mode is one that forbids: zero of the enumeration.
pub(super) fn zero_mode(policy: &OutboundTrafficPolicy, instead: &str, report: &mut Report<'_>) {
    if policy.mode.is_none() {
        let what = format!("is missing, which means REGISTRY_ONLY; {instead} everything");
        report.warn("outboundTrafficPolicy.mode", what);
    }
}
