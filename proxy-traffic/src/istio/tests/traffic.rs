//! What the blocks of a traffic policy make of a cluster.

use super::*;
use crate::ClusterName;

const SELF: &str = "db.default.svc.cluster.local";

/// `db` without its own rule.
fn bare() -> &'static str {
    DB.rsplit_once("---").map(|(rest, _)| rest).unwrap_or_default()
}

/// The listing of the cluster of a subset of `db` under this only rule, from the endpoints on.
fn cluster(spec: &str, subset: &str) -> String {
    let rule = resource("DestinationRule", &format!("{{host: db, {spec}}}"));
    let tcp = format!("[{{route: [{{destination: {{host: db, subset: '{subset}'}}}}]}}]");
    let (snapshot, _) = load(&[bare(), &rule, &virtual_service(&tcp)]);
    let listing = snapshot.clusters[&ClusterName::outbound(5432, subset, SELF)].to_string();
    listing.split_once(": ").unwrap().1.to_owned()
}

/// Compares what the cluster says after its endpoints, under this policy.
fn check_policy(policy: &str, want: &str) {
    let listing = cluster(&format!("trafficPolicy: {{{policy}}}"), "");
    let said = listing.strip_prefix("10.1.0.1:15432, 10.1.0.2:15432").unwrap_or(&listing);
    assert_eq!(said.trim_start_matches("; "), want, "{policy}");
}

#[test]
fn a_load_balancer_by_its_simple_name() {
    for (simple, want) in [
        ("UNSPECIFIED", ""),
        ("LEAST_REQUEST", ""),
        ("LEAST_CONN", ""),
        ("RANDOM", "RANDOM"),
        ("ROUND_ROBIN", "ROUND_ROBIN"),
        ("PASSTHROUGH", "the original destination"),
    ] {
        check_policy(&format!("loadBalancer: {{simple: {simple}}}"), want);
    }
    check_policy("", "");
    let all = "outlierDetection: {maxEjectionPercent: 50}, connectionPool: {tcp: {maxConnections: 3, tcpKeepalive: {}}}";
    let through = "the original destination; maxConnections 3 per workload; tcpKeepalive";
    check_policy(&format!("loadBalancer: {{simple: PASSTHROUGH}}, {all}"), through);
}

#[test]
fn a_consistent_hash_of_the_clients_address() {
    for (hash, want) in [
        ("useSourceIp: true", "useSourceIp"),
        ("useSourceIp: true, maglev: {tableSize: 65537}", "useSourceIp"),
        ("useSourceIp: true, ringHash: {minimumRingSize: 1024}", "useSourceIp"),
        ("useSourceIp: false", ""),
        ("httpHeaderName: user", ""),
    ] {
        check_policy(&format!("loadBalancer: {{consistentHash: {{{hash}}}}}"), want);
    }
}

#[test]
fn a_connection_pools_limit_and_keepalive() {
    for (tcp, want) in [
        ("maxConnections: 3", "maxConnections 3 per workload"),
        ("maxConnections: 0", ""),
        ("connectTimeout: 1500ms", "connectTimeout 1.5s"),
        ("tcpKeepalive: {}", "tcpKeepalive"),
        ("tcpKeepalive: {time: 1m, probes: 0}", "tcpKeepalive time 60s"),
        (
            "tcpKeepalive: {time: 2h, interval: 75s, probes: 9}",
            "tcpKeepalive time 7200s interval 75s probes 9",
        ),
        (
            "maxConnections: 1, connectTimeout: 10s, tcpKeepalive: {probes: 3}",
            "maxConnections 1 per workload; tcpKeepalive probes 3",
        ),
    ] {
        check_policy(&format!("connectionPool: {{tcp: {{{tcp}}}}}"), want);
    }
}

#[test]
fn a_limit_counts_what_its_annotation_says() {
    let pool = "trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}";
    for (annotation, want) in [
        ("{}", "maxConnections 3 per workload"),
        ("{shunt.dev/limit-scope: workload}", "maxConnections 3 per workload"),
        ("{shunt.dev/limit-scope: node}", "maxConnections 3 per node"),
        ("{shunt.dev/limit-scope: endpoint}", "maxConnections 3 per workload and endpoint"),
        ("{shunt.dev/limit-scope: cluster}", "maxConnections 3 per workload"),
    ] {
        let rule = resource("DestinationRule", &format!("{{host: db, {pool}}}"));
        let rule = rule.replace("name: test", &format!("name: test, annotations: {annotation}"));
        let (snapshot, _) = load(&[bare(), &rule]);
        let listing = snapshot.clusters[&ClusterName::outbound(5432, "", SELF)].to_string();
        assert!(listing.ends_with(&format!("; {want}")), "{annotation}: {listing}");
    }
}

#[test]
fn outlier_detection_has_istios_defaults() {
    for (outlier, want) in [
        ("", "after 5"),
        ("consecutive5xxErrors: 7", "after 7"),
        ("consecutiveGatewayErrors: 3", "after 3"),
        ("consecutiveGatewayErrors: 9", "after 5"),
        ("consecutive5xxErrors: 0, consecutiveGatewayErrors: 9", "after 9"),
        ("consecutive5xxErrors: 2, consecutiveGatewayErrors: 9", "after 2"),
        ("consecutive5xxErrors: 2, consecutiveGatewayErrors: 0", "after 2"),
        ("consecutive5xxErrors: 0", ""),
        ("consecutive5xxErrors: 0, consecutiveGatewayErrors: 0", ""),
        ("consecutiveErrors: 1", "after 1"),
        ("consecutiveErrors: 0", "after 5"),
        ("consecutiveErrors: 9, consecutiveGatewayErrors: 0", "after 5"),
        ("consecutiveErrors: 1, consecutive5xxErrors: 4", "after 4"),
        ("splitExternalLocalOriginErrors: true", "after 5"),
        ("splitExternalLocalOriginErrors: true, consecutive5xxErrors: 1", "after 5"),
        ("splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2", "after 2"),
        ("splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 0", "after 5"),
        ("interval: 1s, baseEjectionTime: 3m", "after 5 interval 1s baseEjectionTime 180s"),
        ("maxEjectionPercent: 0, minHealthPercent: 0", "after 5"),
        (
            "maxEjectionPercent: 100, minHealthPercent: 50",
            "after 5 maxEjectionPercent 100 minHealthPercent 50",
        ),
    ] {
        let want = if want.is_empty() { String::new() } else { format!("outlierDetection {want}") };
        check_policy(&format!("outlierDetection: {{{outlier}}}"), &want);
    }
}

#[test]
fn a_subset_overrides_block_by_block_and_a_port_everything() {
    let top =
        "loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 3, connectTimeout: 2s}}";
    let all = "RANDOM; connectTimeout 2s; maxConnections 3 per workload";
    for (more, subset, want) in [
        ("", "", all),
        (
            "",
            "loadBalancer: {simple: ROUND_ROBIN}",
            "ROUND_ROBIN; connectTimeout 2s; maxConnections 3 per workload",
        ),
        ("", "connectionPool: {tcp: {maxConnections: 4}}", "RANDOM; maxConnections 4 per workload"),
        ("", "loadBalancer: {}", "connectTimeout 2s; maxConnections 3 per workload"),
        ("", "portLevelSettings: [{port: {number: 5432}}]", ""),
        ("", "portLevelSettings: [{port: {number: 1}}]", all),
        (
            "portLevelSettings: [{port: {number: 5432}, loadBalancer: {simple: ROUND_ROBIN}}]",
            "",
            "ROUND_ROBIN",
        ),
        (
            "portLevelSettings: [{port: {number: 5432}, loadBalancer: {simple: ROUND_ROBIN}}]",
            "connectionPool: {tcp: {maxConnections: 4}}",
            "ROUND_ROBIN; maxConnections 4 per workload",
        ),
    ] {
        let subsets =
            format!("subsets: [{{name: v1, labels: {{version: v1}}, trafficPolicy: {{{subset}}}}}]");
        let listing = cluster(&format!("trafficPolicy: {{{top}, {more}}}, {subsets}"), "v1");
        let said = listing.strip_prefix("10.1.0.1:15432").unwrap().trim_start_matches("; ");
        assert_eq!(said, want, "{more} {subset}");
    }
}
