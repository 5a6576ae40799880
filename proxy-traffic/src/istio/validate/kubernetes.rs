//! Kubernetes' Service and Pod. The API server has checked what comes from it; files have nobody else.

use std::net::IpAddr;

use crate::istio::{
    problem::Report,
    resource::{Pod, Service},
};

/// Checks `spec`.
pub(in crate::istio) fn service(spec: &Service, report: &mut Report<'_>) {
    if spec.r#type.as_deref() == Some("ExternalName") {
        report.error("type", "ExternalName is not served yet; write a ServiceEntry with endpoints");
        return;
    }
    if spec.ports.is_empty() && !spec.is_headless() {
        report.error("ports", "is missing; a Service needs at least one port");
    }
    for (index, port) in spec.ports.iter().enumerate() {
        if port.port.is_none() {
            report.error(format!("ports[{index}].port"), "is missing; write the service's port");
        }
    }
    let of = |index| format!("ports[{index}]");
    let numbers = spec.ports.iter().enumerate().filter_map(|(index, port)| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        Some((index, format!("{}/{protocol}", port.port?.0)))
    });
    super::duplicates(numbers, |index| format!("{}.port", of(index)), report);
    let names =
        spec.ports.iter().map(|port| port.name.as_str()).enumerate().filter(|(_, name)| !name.is_empty());
    super::duplicates(names, |index| format!("{}.name", of(index)), report);
    cluster_ips(spec, report);
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        report
            .warn("sessionAffinity", "ClientIP is not served yet: connections are spread over all endpoints");
    }
}

fn cluster_ips(spec: &Service, report: &mut Report<'_>) {
    for text in spec.cluster_ips() {
        if !text.is_empty() && text != "None" && text.parse::<IpAddr>().is_err() {
            report.error("clusterIP", format!("\"{text}\" is neither an IP address nor None"));
        }
    }
}

/// Checks the Pod.
pub(in crate::istio) fn pod(pod: &Pod, report: &mut Report<'_>) {
    match pod.address_text() {
        None if !pod.has_ended() => {
            report.warn("status.podIP", "is missing: the Pod serves nothing until it has an address");
        }
        Some(text) if text.parse::<IpAddr>().is_err() => {
            report.error("status.podIP", format!("\"{text}\" is not an IP address"));
        }
        _ => {}
    }
}
