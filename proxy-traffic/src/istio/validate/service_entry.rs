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
    addresses(spec, report);
    export_to(&spec.export_to, report);
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
    match spec.resolution.as_deref() {
        Some("STATIC" | "DNS") => {}
        None | Some("NONE") => none(spec, report),
        Some("DNS_ROUND_ROBIN") if spec.endpoints.len() > 1 => report.error(
            "endpoints",
            "DNS_ROUND_ROBIN takes one endpoint at most, whose first address serves; write DNS for several",
        ),
        Some("DNS_ROUND_ROBIN") => {}
        Some("DYNAMIC_DNS") => dynamic(spec, report),
        Some(unknown) => report.error(
            "resolution",
            format!("\"{unknown}\" is unknown; write NONE, STATIC, DNS, DNS_ROUND_ROBIN or DYNAMIC_DNS"),
        ),
    }
    let looks_up = spec.resolution.as_deref().is_some_and(|text| text.starts_with("DNS"));
    for (index, host) in spec.hosts.iter().enumerate().filter(|_| looks_up && spec.endpoints.is_empty()) {
        if host.starts_with('*') || host.parse::<IpAddr>().is_ok() {
            let what = format!("{host} cannot be looked up; give endpoints with names, or write NONE");
            report.error(format!("hosts[{index}]"), what);
        }
    }
}

/// Connections go where they were going.
fn none(spec: &ServiceEntry, report: &mut Report<'_>) {
    if !spec.endpoints.is_empty() {
        report
            .error("endpoints", "resolution NONE goes to the address that was dialled; write STATIC or DNS");
    }
    if spec.workload_selector.is_some() {
        report.warn("workloadSelector", "has no effect with resolution NONE; write STATIC");
    }
}

/// Names are looked up when somebody says them.
fn dynamic(spec: &ServiceEntry, report: &mut Report<'_>) {
    for (index, _) in spec.hosts.iter().enumerate().filter(|(_, host)| !host.starts_with("*.")) {
        report.error(format!("hosts[{index}]"), "DYNAMIC_DNS is for wildcards; write DNS for one host");
    }
    if !spec.addresses.is_empty() {
        report.error("addresses", "DYNAMIC_DNS has none: the name that the client says decides");
    }
    if !spec.endpoints.is_empty() {
        report.error("endpoints", "DYNAMIC_DNS has none: the name that the client says decides");
    }
    for (index, port) in spec.ports.iter().enumerate() {
        let named = ["HTTP", "HTTP2", "GRPC", "TLS", "HTTPS"];
        if !named.contains(&port.protocol.to_ascii_uppercase().as_str()) {
            let what = "DYNAMIC_DNS needs a protocol in which clients say a name; write HTTP or TLS";
            report.error(format!("ports[{index}].protocol"), what);
        }
    }
}

fn addresses(spec: &ServiceEntry, report: &mut Report<'_>) {
    let looks_up = spec.resolution.as_deref().is_some_and(|text| text.starts_with("DNS"));
    for (index, subnet) in spec.addresses.iter().enumerate() {
        if looks_up && subnet.single().is_none() {
            let what = "is a range, which only NONE and STATIC can serve; write single addresses, or none";
            report.error(format!("addresses[{index}]"), what);
        }
    }
}

/// Who sees it.
fn export_to(all: &[String], report: &mut Report<'_>) {
    for (index, one) in all.iter().enumerate() {
        let field = format!("exportTo[{index}]");
        if !["*", ".", "~"].contains(&one.as_str()) && !names::is_label(one) {
            report.error(field, format!("\"{one}\" is no namespace; write *, ., ~ or a namespace's name"));
        } else if all.len() > 1 && ["*", "~"].contains(&one.as_str()) {
            report.warn(field, format!("{one} makes the others useless; write it alone"));
        }
    }
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
    let passes = matches!(spec.resolution.as_deref(), None | Some("NONE"));
    if spec.hosts.len() > 1 && tcp && !passes {
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
        None if spec.endpoints.is_empty() && spec.resolution.as_deref() == Some("STATIC") => {
            report
                .warn("endpoints", "there is neither an endpoint nor a workloadSelector: nobody serves this");
        }
        _ => {}
    }
    let looks_up = spec.resolution.as_deref().is_some_and(|text| text.starts_with("DNS"));
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let field = format!("endpoints[{index}]");
        let address_field = format!("{field}.address");
        if looks_up {
            name_or_address(&address_field, endpoint, report);
        } else {
            address(&address_field, endpoint, report);
        }
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

/// Where names are looked up.
fn name_or_address(field: &str, entry: &WorkloadEntry, report: &mut Report<'_>) {
    let text = &entry.address;
    let is_name = text.contains('.') && !text.starts_with('*') && names::fault(text).is_none();
    if text.is_empty() || text.starts_with("unix://") {
        address(field, entry, report);
    } else if text.parse::<IpAddr>().is_err() && !is_name {
        report.error(field, format!("\"{text}\" is neither an IP address nor a full host name"));
    }
}
