//! VirtualService: hosts, gateways and `tcp` rules.

use crate::istio::{
    names,
    problem::Report,
    resource::{L4Match, RouteDestination, TcpRoute, VirtualService},
};

/// Checks `spec`.
pub(in crate::istio) fn virtual_service(spec: &VirtualService, report: &mut Report<'_>) {
    hosts(spec, report);
    gateways("gateways", &spec.gateways, report);
    super::export_to(&spec.export_to, report);
    if spec.http.0 {
        report.warn("http", "HTTP rules are not served yet and have no effect; tcp rules are");
    }
    if spec.tls.0 {
        report.warn("tls", "TLS rules are not served yet and have no effect; tcp rules are");
    }
    if spec.tcp.is_empty() && !spec.http.0 && !spec.tls.0 {
        report.error("tcp", "there is no rule; write at least one under tcp");
    }
    for (index, rule) in spec.tcp.iter().enumerate() {
        tcp_rule(&format!("tcp[{index}]"), rule, report);
    }
    unreachable_rules(&spec.tcp, report);
}

fn hosts(spec: &VirtualService, report: &mut Report<'_>) {
    if spec.hosts.is_empty() {
        report.error("hosts", "is missing; name the hosts whose connections are routed");
    }
    let only_mesh = spec.gateways.iter().all(|gateway| gateway == "mesh");
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format!("hosts[{index}]");
        if let Some(fault) = names::fault(host) {
            report.error(field, fault);
        } else if host == "*" && only_mesh {
            report.error(field, "* needs a gateway; in the mesh name the host");
        } else if let Some(other) = spec.hosts[..index]
            .iter()
            .find(|other| names::overlap(&other.to_lowercase(), &host.to_lowercase()))
        {
            report.error(field, format!("{host} and {other} cover each other; keep one of them"));
        }
    }
}

fn gateways(field: &str, gateways: &[String], report: &mut Report<'_>) {
    for (index, gateway) in gateways.iter().enumerate() {
        let mut labels = gateway.split('/');
        let shaped = labels.clone().count() <= 2 && labels.all(names::is_label);
        if !shaped {
            let what = format!("\"{gateway}\" does not name a gateway; write NAME, NAMESPACE/NAME or mesh");
            report.error(format!("{field}[{index}]"), what);
        }
    }
}

fn tcp_rule(field: &str, rule: &TcpRoute, report: &mut Report<'_>) {
    for (index, one) in rule.r#match.iter().enumerate() {
        l4_match(&format!("{field}.match[{index}]"), one, report);
    }
    if rule.route.is_empty() {
        report.error(format!("{field}.route"), "is missing; a TCP rule needs a destination");
    }
    for (index, route) in rule.route.iter().enumerate() {
        destination(&format!("{field}.route[{index}]"), route, report);
    }
    weights(&format!("{field}.route"), &rule.route, report);
}

fn l4_match(field: &str, one: &L4Match, report: &mut Report<'_>) {
    gateways(&format!("{field}.gateways"), &one.gateways, report);
    if let Some(namespace) = one.source_namespace.as_ref().filter(|text| !names::is_label(text)) {
        report
            .error(format!("{field}.sourceNamespace"), format!("\"{namespace}\" is not a namespace's name"));
    }
}

fn destination(field: &str, route: &RouteDestination, report: &mut Report<'_>) {
    let field = format!("{field}.destination");
    let Some(destination) = &route.destination else {
        report.error(field, "is missing; name a host");
        return;
    };
    let host = format!("{field}.host");
    match names::fault(&destination.host) {
        Some(fault) => report.error(host, fault),
        None if destination.host.starts_with('*') => report.error(host, "is a wildcard; name one host"),
        None => {}
    }
    if !destination.subset.is_empty() && !names::is_label(&destination.subset) {
        report.error(format!("{field}.subset"), format!("\"{}\" is not a subset's name", destination.subset));
    }
    if destination.port.is_some_and(|port| port.number.is_none()) {
        report.error(format!("{field}.port.number"), "is missing; write the service's port");
    }
}

fn weights(field: &str, routes: &[RouteDestination], report: &mut Report<'_>) {
    for (index, route) in routes.iter().enumerate() {
        if route.weight.is_some_and(|weight| i32::try_from(weight).is_err() || weight < 0) {
            report.error(format!("{field}[{index}].weight"), "is a share from 0 to 2147483647");
        }
    }
    let total = routes.iter().filter_map(|route| route.weight).fold(0, i64::saturating_add);
    match routes {
        [only] if only.weight == Some(0) => {
            report.warn(
                format!("{field}[0].weight"),
                "0 has no effect on the only destination: it gets everything",
            );
        }
        [_, _, ..] if total == 0 => {
            report.error(field, "the weights add up to 0; give at least one destination a share");
        }
        _ => {}
    }
}

/// A rule that takes every connection hides those after it, wherever both apply.
fn unreachable_rules(rules: &[TcpRoute], report: &mut Report<'_>) {
    let takes_all = |rule: &TcpRoute| {
        rule.r#match.is_empty() || rule.r#match.iter().any(|one| *one == L4Match::default())
    };
    let Some(last) = rules.iter().position(takes_all) else { return };
    for index in last + 1..rules.len() {
        report.warn(format!("tcp[{index}]"), format!("is never reached: tcp[{last}] takes every connection"));
    }
}
