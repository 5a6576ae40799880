//! ServiceEntry and WorkloadEntry.

use std::net::IpAddr;

use crate::istio::{
    names,
    problem::Report,
    resource::{ServiceEntry, ServiceEntryPort, WorkloadEntry},
};

/// Protocols that Istio knows for a port; none means "look at the name".
const PROTOCOLS: [&str; 13] = [
    "",
    "HTTP",
    "HTTPS",
    "GRPC",
    "GRPC-WEB",
    "HTTP2",
    "MONGO",
    "MYSQL",
    "REDIS",
    "TCP",
    "TLS",
    "UDP",
    "HTTP_PROXY",
];
const LOCATIONS: [&str; 2] = ["MESH_EXTERNAL", "MESH_INTERNAL"];

/// Checks `spec`.
pub(in crate::istio) fn service_entry(spec: &ServiceEntry, report: &mut Report<'_>) {
    resolution(spec, report);
    hosts(spec, report);
    super::export_to(&spec.export_to, report);
    if let Some(location) = spec.location.as_ref().filter(|text| !LOCATIONS.contains(&text.as_str())) {
        report.error("location", format!("\"{location}\" is unknown; write {}", LOCATIONS.join(" or ")));
    }
    if spec.ports.is_empty() {
        report.error("ports", "is missing; a ServiceEntry needs at least one port");
    }
    for (index, one) in spec.ports.iter().enumerate() {
        port(&format!("ports[{index}]"), one, report);
    }
    let numbers = spec.ports.iter().enumerate().filter_map(|(index, port)| Some((index, port.number?.0)));
    super::duplicates(numbers, |index| format!("ports[{index}].number"), report);
    let names =
        spec.ports.iter().map(|port| port.name.as_str()).enumerate().filter(|(_, name)| !name.is_empty());
    super::duplicates(names, |index| format!("ports[{index}].name"), report);
    endpoints(spec, report);
}

/// Checks a WorkloadEntry of its own.
pub(in crate::istio) fn workload_entry(spec: &WorkloadEntry, report: &mut Report<'_>) {
    address("address", spec, report);
}

fn resolution(spec: &ServiceEntry, report: &mut Report<'_>) {
    let what = match spec.resolution.as_deref() {
        Some("STATIC") => return,
        Some(known @ ("NONE" | "DNS" | "DNS_ROUND_ROBIN" | "DYNAMIC_DNS")) => {
            format!("{known} is not served yet; STATIC with endpoints is")
        }
        Some(unknown) => format!("\"{unknown}\" is unknown; write STATIC and give endpoints"),
        None => "is missing, which means NONE; that is not served yet, STATIC with endpoints is".to_owned(),
    };
    report.error("resolution", what);
}

fn hosts(spec: &ServiceEntry, report: &mut Report<'_>) {
    if spec.hosts.is_empty() {
        report.error("hosts", "is missing; name the service");
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format!("hosts[{index}]");
        if host == "*" {
            report.error(field, "* would be every host; name the service");
        } else if let Some(fault) = names::fault(host) {
            report.error(field, fault);
        }
    }
    let hosts = spec.hosts.iter().map(|host| host.to_lowercase()).enumerate();
    super::duplicates(hosts, |index| format!("hosts[{index}]"), report);
    let tcp = spec.ports.iter().any(|port| port.protocol.eq_ignore_ascii_case("TCP"));
    if spec.hosts.len() > 1 && tcp {
        report.error("hosts", "several hosts cannot share a TCP port; write one ServiceEntry for each");
    }
}

fn port(field: &str, port: &ServiceEntryPort, report: &mut Report<'_>) {
    if port.number.is_none() {
        report.error(format!("{field}.number"), "is missing; write the service's port");
    }
    if !names::is_label(&port.name) {
        report.error(
            format!("{field}.name"),
            format!("\"{}\" is not a port's name; write tcp, tcp-db, …", port.name),
        );
    }
    let protocol = port.protocol.to_ascii_uppercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        report.error(
            format!("{field}.protocol"),
            format!("\"{}\" is not a protocol; write TCP", port.protocol),
        );
    } else if protocol == "UDP" {
        report.warn(format!("{field}.protocol"), "UDP is never proxied; the port has no effect");
    }
}

fn endpoints(spec: &ServiceEntry, report: &mut Report<'_>) {
    match &spec.workload_selector {
        Some(_) if !spec.endpoints.is_empty() => {
            report.error(
                "workloadSelector",
                "endpoints and workloadSelector exclude each other; keep one of them",
            );
        }
        Some(selector) if selector.labels.is_empty() => {
            report.warn("workloadSelector.labels", "is empty: every workload of the namespace serves this");
        }
        None if spec.endpoints.is_empty() => {
            report
                .warn("endpoints", "there is neither an endpoint nor a workloadSelector: nobody serves this");
        }
        _ => {}
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let field = format!("endpoints[{index}]");
        address(&format!("{field}.address"), endpoint, report);
        for name in endpoint.ports.keys() {
            if !spec.ports.iter().any(|port| port.name == *name) {
                report
                    .error(format!("{field}.ports.{name}"), "is not the name of a port of this ServiceEntry");
            }
        }
    }
}

fn address(field: &str, entry: &WorkloadEntry, report: &mut Report<'_>) {
    let text = &entry.address;
    if text.is_empty() {
        report.error(field, "is missing; write the workload's IP address");
    } else if text.starts_with("unix://") {
        report.error(field, "unix sockets are not served yet; write an IP address");
    } else if text.parse::<IpAddr>().is_err() {
        report.error(field, format!("\"{text}\" is not an IP address, which STATIC resolution needs"));
    }
}
