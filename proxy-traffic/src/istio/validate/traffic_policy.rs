//! `trafficPolicy` of a DestinationRule: ports, pools, outlier detection.

use crate::istio::{
    problem::Report,
    resource::{
        ConnectionPool, LoadBalancer, OutlierDetection, PortLevelSettings, TcpKeepalive, TrafficPolicy,
    },
};

use super::load_balancer::load_balancer;

/// The most that the kernel's `TCP_KEEPCNT` takes.
const MOST_PROBES: u32 = 127;

/// Checks the policy at `field`.
pub(super) fn traffic_policy(field: &str, policy: Option<&TrafficPolicy>, report: &mut Report<'_>) {
    let Some(policy) = policy else { return };
    let (balancer, outlier) = (policy.load_balancer.as_ref(), policy.outlier_detection.as_ref());
    blocks(field, balancer, policy.connection_pool.as_ref(), outlier, report);
    let ports = policy.port_level_settings.iter().enumerate();
    for (index, one) in ports.clone() {
        port(&format!("{field}.portLevelSettings[{index}]"), one, report);
    }
    let numbers = ports.filter_map(|(index, settings)| Some((index, settings.number()?)));
    super::duplicates(numbers, |index| format!("{field}.portLevelSettings[{index}].port.number"), report);
}

fn port(field: &str, settings: &PortLevelSettings, report: &mut Report<'_>) {
    if settings.number().is_none() {
        report.error(format!("{field}.port.number"), "is missing; say which port the settings are for");
    }
    let (balancer, outlier) = (settings.load_balancer.as_ref(), settings.outlier_detection.as_ref());
    blocks(field, balancer, settings.connection_pool.as_ref(), outlier, report);
}

fn blocks(
    field: &str,
    balancer: Option<&LoadBalancer>,
    pool: Option<&ConnectionPool>,
    outlier: Option<&OutlierDetection>,
    report: &mut Report<'_>,
) {
    if let Some(balancer) = balancer {
        load_balancer(&format!("{field}.loadBalancer"), balancer, report);
    }
    if let Some(tcp) = pool.and_then(|pool| pool.tcp) {
        let field = format!("{field}.connectionPool.tcp");
        if tcp.max_connections.is_some_and(|count| count.0 == 0) {
            report.warn(format!("{field}.maxConnections"), "0 means that there is no limit, as in Istio");
        }
        if let Some(keepalive) = tcp.tcp_keepalive {
            probes(&format!("{field}.tcpKeepalive.probes"), keepalive, report);
        }
    }
    if let Some(outlier) = outlier {
        outlier_detection(&format!("{field}.outlierDetection"), outlier, report);
    }
}

fn probes(field: &str, keepalive: TcpKeepalive, report: &mut Report<'_>) {
    if let Some(count) = keepalive.probes.filter(|count| count.0 > MOST_PROBES) {
        report.error(field, format!("{} is more than the kernel's {MOST_PROBES}", count.0));
    }
}

fn outlier_detection(field: &str, outlier: &OutlierDetection, report: &mut Report<'_>) {
    let split = outlier.split_external_local_origin_errors;
    if let Some(count) = outlier.consecutive_local_origin_failures {
        let field = format!("{field}.consecutiveLocalOriginFailures");
        match (count.0, split) {
            (0, true) => report.warn(field, "0 means 5, as in Istio"),
            (0, false) | (_, true) => {}
            (_, false) => report.error(field, "needs splitExternalLocalOriginErrors: true"),
        }
    }
    let (five, gateway) = (outlier.consecutive_5xx_errors, outlier.consecutive_gateway_errors);
    if outlier.consecutive_errors.is_some_and(|count| count.0 > 0) {
        let what = if split || five.is_some() || gateway.is_some() {
            "is deprecated and has no effect beside the newer fields; remove it"
        } else {
            "is deprecated and counts gateway errors, as Istio 1.1 did; write consecutiveGatewayErrors and consecutive5xxErrors: 0"
        };
        report.warn(format!("{field}.consecutiveErrors"), what);
    }
    let unused = [("consecutive5xxErrors", five), ("consecutiveGatewayErrors", gateway)];
    for (name, _) in unused.into_iter().filter(|(_, count)| split && count.is_some_and(|one| one.0 > 0)) {
        report.warn(
            format!("{field}.{name}"),
            "has no effect on TCP with splitExternalLocalOriginErrors: failures to connect are counted apart",
        );
    }
}
