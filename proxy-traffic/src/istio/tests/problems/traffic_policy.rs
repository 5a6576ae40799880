//! `trafficPolicy`: each row is one block, and what its owner reads.

use super::*;

/// Insists on each row's problem when the block is the rule's, a subset's and a port's.
fn check_blocks(block: &str, rows: &[Row]) {
    for (text, field, what, severity) in rows {
        let policy = format!("{block}: {{{text}}}");
        let field = if field.is_empty() { block.to_owned() } else { format!("{block}.{field}") };
        for (spec, place) in [
            (format!("{{host: db, trafficPolicy: {{{policy}}}}}"), "trafficPolicy"),
            (
                format!(
                    "{{host: db, subsets: [{{name: a, labels: {{a: b}}, trafficPolicy: {{{policy}}}}}]}}"
                ),
                "subsets[0].trafficPolicy",
            ),
            (
                format!(
                    "{{host: db, trafficPolicy: {{portLevelSettings: [{{port: {{number: 1}}, {policy}}}]}}}}"
                ),
                "trafficPolicy.portLevelSettings[0]",
            ),
        ] {
            let rule = resource("DestinationRule", &spec);
            let field = format!("{place}.{field}");
            check_problem(&[DB, &rule], "DestinationRule default/test", &field, what, *severity);
        }
    }
}

#[test]
fn every_fault_of_a_load_balancer_is_told() {
    check_blocks("loadBalancer", LOAD_BALANCER);
}

const LOAD_BALANCER: &[Row] = &[
    ("simple: FASTEST", "simple", "is unknown; write one of LEAST_REQUEST", Error),
    ("simple: RANDOM, consistentHash: {useSourceIp: true}", "consistentHash", "exclude each other", Error),
    ("warmup: {duration: 1s}", "warmup", "not served yet", Warning),
    ("warmupDurationSecs: 1s", "warmupDurationSecs", "not served yet", Warning),
    ("consistentHash: {}", "consistentHash", "has no key", Warning),
    (
        "consistentHash: {httpHeaderName: a}",
        "consistentHash.httpHeaderName",
        "LEAST_REQUEST is in force",
        Warning,
    ),
    ("consistentHash: {httpCookie: {name: a}}", "consistentHash.httpCookie", "nothing that TCP has", Warning),
    (
        "consistentHash: {httpQueryParameterName: a}",
        "consistentHash.httpQueryParameterName",
        "nothing that TCP has",
        Warning,
    ),
    ("consistentHash: {httpHeaderName: a, useSourceIp: true}", "consistentHash", "several keys", Error),
    (
        "consistentHash: {useSourceIp: true, maglev: {tableSize: 65537}}",
        "consistentHash.maglev.tableSize",
        "has no effect",
        Warning,
    ),
    (
        "consistentHash: {useSourceIp: true, maglev: {tableSize: 0}}",
        "consistentHash.maglev.tableSize",
        "not a prime",
        Error,
    ),
    (
        "consistentHash: {useSourceIp: true, maglev: {tableSize: 65536}}",
        "consistentHash.maglev.tableSize",
        "not a prime",
        Error,
    ),
    (
        "consistentHash: {useSourceIp: true, maglev: {tableSize: 5000011}}",
        "consistentHash.maglev.tableSize",
        "below 5000011",
        Error,
    ),
    (
        "consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 9}}",
        "consistentHash.ringHash.minimumRingSize",
        "has no effect",
        Warning,
    ),
    (
        "consistentHash: {useSourceIp: true, minimumRingSize: 9}",
        "consistentHash.minimumRingSize",
        "has no effect",
        Warning,
    ),
    (
        "consistentHash: {useSourceIp: true, minimumRingSize: 9, maglev: {}}",
        "consistentHash.minimumRingSize",
        "may not stand beside",
        Error,
    ),
    (
        "consistentHash: {useSourceIp: true, ringHash: {}, maglev: {}}",
        "consistentHash",
        "exclude each other",
        Error,
    ),
    ("zoneAwareLbSetting: {}", "zoneAwareLbSetting", "not served yet", Warning),
    ("zoneAwareLbSetting: {}, localityLbSetting: {}", "zoneAwareLbSetting", "exclude each other", Error),
    (
        "localityLbSetting: {failover: [{from: a, to: b}]}",
        "localityLbSetting.failover",
        "not served yet",
        Warning,
    ),
    (
        "localityLbSetting: {failoverPriority: [a]}",
        "localityLbSetting.failoverPriority",
        "not served yet",
        Warning,
    ),
    (
        "localityLbSetting: {failover: [{from: a, to: b}], distribute: [{from: a, to: {b: 100}}]}",
        "localityLbSetting.failover",
        "exclude each other",
        Error,
    ),
    (
        "localityLbSetting: {distribute: [{from: a, to: {b: 80}}]}",
        "localityLbSetting.distribute[0].to",
        "add up to 80",
        Error,
    ),
    (
        "localityLbSetting: {distribute: [{from: a, to: {b: 100, c: 0}}]}",
        "localityLbSetting.distribute[0].to.c",
        "is not a share",
        Error,
    ),
    (
        "localityLbSetting: {distribute: [{from: a/b, to: {b: 100}}, {from: 'a/*', to: {b: 100}}]}",
        "localityLbSetting.distribute[1].from",
        "overlap",
        Error,
    ),
    (
        "localityLbSetting: {distribute: [{from: a, to: {b: 50, b/c: 50}}]}",
        "localityLbSetting.distribute[0].to",
        "overlap",
        Error,
    ),
    (
        "localityLbSetting: {distribute: [{from: '*/a', to: {b: 100}}]}",
        "localityLbSetting.distribute[0].from",
        "is not a place",
        Error,
    ),
    (
        "localityLbSetting: {distribute: [{to: {b: 100}}]}",
        "localityLbSetting.distribute[0].from",
        "is not a place",
        Error,
    ),
    (
        "localityLbSetting: {distribute: [{frm: a}]}",
        "localityLbSetting.distribute[0].frm",
        "mean from?",
        Warning,
    ),
];

#[test]
fn every_fault_of_a_connection_pool_is_told() {
    check_blocks("connectionPool", CONNECTION_POOL);
}

const CONNECTION_POOL: &[Row] = &[
    ("tcp: {maxConnections: -1}", "tcp.maxConnections", "-1 is not a number from 0", Error),
    ("tcp: {maxConnections: 2147483648}", "tcp.maxConnections", "to 2147483647", Error),
    ("tcp: {maxConnections: 0}", "tcp.maxConnections", "there is no limit", Warning),
    ("tcp: {tcpKeepalive: {time: 0s}}", "tcp.tcpKeepalive.time", "at least 1ms", Error),
    ("tcp: {tcpKeepalive: {time: 1.5s}}", "tcp.tcpKeepalive.time", "whole number of seconds", Error),
    ("tcp: {tcpKeepalive: {interval: 10h}}", "tcp.tcpKeepalive.interval", "from 1s to 32767s", Error),
    ("tcp: {tcpKeepalive: {probes: 128}}", "tcp.tcpKeepalive.probes", "more than the kernel's 127", Error),
    ("tcp: {tcpKeepalive: {prob: 1}}", "tcp.tcpKeepalive.prob", "is not a field", Warning),
];

#[test]
fn every_fault_of_outlier_detection_is_told() {
    check_blocks("outlierDetection", OUTLIER_DETECTION);
}

const OUTLIER_DETECTION: &[Row] = &[
    ("maxEjectionPercent: 101", "maxEjectionPercent", "101 is not a percentage", Error),
    ("minHealthPercent: -1", "minHealthPercent", "-1 is not a percentage", Error),
    ("interval: 0s", "interval", "at least 1ms", Error),
    ("baseEjectionTime: soon", "baseEjectionTime", "is not a duration", Error),
    ("consecutive5xxErrors: -1", "consecutive5xxErrors", "is not a number from 0", Error),
    (
        "consecutiveLocalOriginFailures: 3",
        "consecutiveLocalOriginFailures",
        "needs splitExternalLocalOriginErrors",
        Error,
    ),
    (
        "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 0",
        "consecutiveLocalOriginFailures",
        "0 means 5",
        Warning,
    ),
    (
        "splitExternalLocalOriginErrors: true, consecutive5xxErrors: 3",
        "consecutive5xxErrors",
        "counted apart",
        Warning,
    ),
    ("consecutiveErrors: 3", "consecutiveErrors", "as Istio 1.1 did", Warning),
    ("consecutiveErrors: 3, consecutive5xxErrors: 3", "consecutiveErrors", "no effect beside", Warning),
    ("outlierDetectionHttpErrorCodes: [a]", "outlierDetectionHttpErrorCodes", "not served yet", Warning),
];

/// A rule that is the only one of `db`, next to the rest of it.
fn check_alone(spec: &str, field: &str, what: &str) {
    let bare = DB.rsplit_once("---").map(|(rest, _)| rest).unwrap_or_default();
    let rule = resource("DestinationRule", spec);
    let name = "DestinationRule default/test";
    check_problem(&[bare, "", &rule], name, field, what, Warning);
}

#[test]
fn a_percentage_that_never_ejects_is_told() {
    let field = "outlierDetection.maxEjectionPercent";
    for (spec, place) in [
        ("{host: db, trafficPolicy: {outlierDetection: {}}}", "trafficPolicy"),
        ("{host: db, trafficPolicy: {outlierDetection: {maxEjectionPercent: 49}}}", "trafficPolicy"),
        (
            "{host: db, trafficPolicy: {portLevelSettings: [{port: {number: 5432}, outlierDetection: {}}]}}",
            "trafficPolicy.portLevelSettings[0]",
        ),
    ] {
        check_alone(spec, &format!("{place}.{field}"), "write 50 or more");
    }
    for enough in ["maxEjectionPercent: 50", "consecutive5xxErrors: 0"] {
        let bare = DB.rsplit_once("---").map(|(rest, _)| rest).unwrap_or_default();
        let spec = format!("{{host: db, trafficPolicy: {{outlierDetection: {{{enough}}}}}}}");
        assert_eq!(load(&[bare, &resource("DestinationRule", &spec)]).1, [], "{enough}");
    }
}

#[test]
fn settings_for_a_port_that_is_not_there_are_told() {
    let policy = "trafficPolicy: {portLevelSettings: [{port: {number: 5432}}, {port: {number: 7}}]}";
    let field = "trafficPolicy.portLevelSettings[1].port.number";
    check_alone(&format!("{{host: db, {policy}}}"), field, "has no TCP port 7");
    let subset = format!("{{host: db, subsets: [{{name: v1, labels: {{version: v1}}, {policy}}}]}}");
    check_alone(&subset, &format!("subsets[0].{field}"), "has no TCP port 7");
}

#[test]
fn what_passthrough_cannot_do_is_told() {
    let through = "loadBalancer: {simple: PASSTHROUGH}";
    let limit = "connectionPool: {tcp: {maxConnections: 3}}";
    check_alone(
        &format!("{{host: db, trafficPolicy: {{{through}, outlierDetection: {{}}}}}}"),
        "trafficPolicy.outlierDetection",
        "has no effect with PASSTHROUGH",
    );
    let spec = format!("{{host: db, trafficPolicy: {{{through}, {limit}}}}}");
    let rule = resource("DestinationRule", &spec);
    let rule = rule.replace("name: test", "name: test, annotations: {shunt.dev/limit-scope: endpoint}");
    let bare = DB.rsplit_once("---").map(|(rest, _)| rest).unwrap_or_default();
    let field = "trafficPolicy.connectionPool.tcp.maxConnections";
    check_problem(
        &[bare, &rule],
        "DestinationRule default/test",
        field,
        "PASSTHROUGH knows no endpoints",
        Warning,
    );
}

const HOME: &str = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: home}, spec: {hosts: [a.x], \
                    resolution: STATIC, ports: [{number: 80, name: tcp}], endpoints: [{address: 10.1.0.9, locality: here}]}}";

#[test]
fn shares_and_passthrough_that_lead_nowhere_are_told() {
    for (policy, field, what) in [
        (
            "localityLbSetting: {distribute: [{from: '*', to: {there: 100}}]}",
            "localityLbSetting.distribute[0].to",
            "closed (UH)",
        ),
        ("simple: PASSTHROUGH", "simple", "has no address of its own"),
    ] {
        let rule = resource(
            "DestinationRule",
            &format!("{{host: a.x, trafficPolicy: {{loadBalancer: {{{policy}}}}}}}"),
        );
        let field = format!("trafficPolicy.loadBalancer.{field}");
        check_problem(&[DB, HOME, &rule], "DestinationRule default/test", &field, what, Warning);
    }
}
