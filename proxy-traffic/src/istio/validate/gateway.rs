//! Gateway: servers.

use std::net::IpAddr;

use crate::istio::{
    names,
    problem::Report,
    resource::{Gateway, Server},
};

/// Protocols that Istio knows for a server.
const PROTOCOLS: [&str; 10] =
    ["HTTP", "HTTP2", "HTTPS", "GRPC", "GRPC-WEB", "MONGO", "MYSQL", "REDIS", "TCP", "TLS"];

/// Checks `spec`.
pub(in crate::istio) fn gateway(spec: &Gateway, report: &mut Report<'_>) {
    if spec.servers.is_empty() {
        report.error("servers", "is missing; a Gateway needs at least one server");
    }
    let ports =
        || spec.servers.iter().enumerate().filter_map(|(index, server)| Some((index, server.port.as_ref()?)));
    let names = ports().map(|(index, port)| (index, port.name.as_str())).filter(|(_, name)| !name.is_empty());
    super::duplicates(names, |index| format!("servers[{index}].port.name"), report);
    for (index, server) in spec.servers.iter().enumerate() {
        check(&format!("servers[{index}]"), server, report);
    }
}

fn check(field: &str, server: &Server, report: &mut Report<'_>) {
    port(&format!("{field}.port"), server, report);
    if let Some(bind) = server.bind.as_ref().filter(|bind| bind.parse::<IpAddr>().is_err()) {
        report.error(format!("{field}.bind"), format!("\"{bind}\" is not an IP address"));
    }
    if server.hosts.is_empty() {
        report.error(format!("{field}.hosts"), "is missing; write [\"*\"] for every host");
    }
    for (index, host) in server.hosts.iter().enumerate() {
        if let Some(fault) = host_fault(host) {
            report.error(format!("{field}.hosts[{index}]"), fault);
        }
    }
}

fn port(field: &str, server: &Server, report: &mut Report<'_>) {
    let Some(port) = &server.port else {
        report.error(field, "is missing; write number, name and protocol");
        return;
    };
    if port.number.is_none() {
        report.error(format!("{field}.number"), "is missing; write the port to listen on");
    }
    if port.name.is_empty() {
        report.error(format!("{field}.name"), "is missing; name the port");
    }
    let protocol = port.protocol.to_ascii_uppercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        let what = format!("\"{}\" is not a protocol; write one of {}", port.protocol, PROTOCOLS.join(", "));
        report.error(format!("{field}.protocol"), what);
    } else if protocol != "TCP" {
        report.warn(
            format!("{field}.protocol"),
            format!("{protocol} is not served yet: nobody listens; TCP is"),
        );
    }
}

fn host_fault(host: &str) -> Option<String> {
    let (namespace, name) = host.split_once('/').unwrap_or(("*", host));
    if !matches!(namespace, "*" | ".") && !names::is_label(namespace) {
        return Some(format!("\"{host}\": before / stands a namespace, . or *"));
    }
    let short = !name.contains('.') && name != "*" && name.parse::<IpAddr>().is_err();
    let hint = || format!("\"{host}\" is a short name; a Gateway needs full names, or *");
    names::fault(name).or_else(|| short.then(hint))
}
