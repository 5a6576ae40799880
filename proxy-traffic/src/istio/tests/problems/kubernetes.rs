//! Service and Pod.

use super::*;

/// Kind, what follows its metadata, field, part of the words, severity.
const ROWS: &[(&str, &str, &str, &str, Severity)] = &[
    (
        "Service",
        "spec: {type: ExternalName, externalName: a.x}",
        "type",
        "ExternalName is not served yet",
        Error,
    ),
    ("Service", "spec: {selector: {a: b}}", "ports", "at least one port", Error),
    ("Service", "spec: {selector: {a: b}, ports: [{name: a}]}", "ports[0].port", "is missing", Error),
    (
        "Service",
        "spec: {selector: {a: b}, ports: [{name: a, port: 1}, {name: b, port: 1}]}",
        "ports[1].port",
        "is there twice",
        Error,
    ),
    (
        "Service",
        "spec: {selector: {a: b}, ports: [{name: a, port: 1}, {name: a, port: 2}]}",
        "ports[1].name",
        "is there twice",
        Error,
    ),
    (
        "Service",
        "spec: {selector: {a: b}, clusterIP: x, ports: [{port: 1}]}",
        "clusterIP",
        "neither an IP address nor None",
        Error,
    ),
    (
        "Service",
        "spec: {selector: {app: db}, clusterIP: None, ports: [{port: 1}]}",
        "clusterIP",
        "not captured yet",
        Warning,
    ),
    ("Service", "spec: {ports: [{port: 1}]}", "selector", "left alone", Warning),
    (
        "Service",
        "spec: {selector: {app: db}, ports: [{port: 1, targetPort: web}]}",
        "ports[0].targetPort",
        "2 of 2 workloads have no port named web",
        Warning,
    ),
    (
        "Service",
        "spec: {selector: {app: db}, ports: [{port: 1, targetPort: 0}]}",
        "ports[0].targetPort",
        "from 1 to 65535",
        Error,
    ),
    (
        "Service",
        "spec: {selector: {app: db}, sessionAffinity: ClientIP, ports: [{port: 1}]}",
        "sessionAffinity",
        "not served yet",
        Warning,
    ),
    (
        "Service",
        "spec: {selecter: {app: db}, ports: [{port: 1}]}",
        "selecter",
        "did you mean selector?",
        Warning,
    ),
    ("Pod", "spec: {}", "status.podIP", "until it has an address", Warning),
    ("Pod", "status: {podIP: x}", "status.podIP", "not an IP address", Error),
];

#[test]
fn every_fault_of_a_service_or_a_pod_is_told() {
    for (kind, rest, field, what, severity) in ROWS {
        let yaml = format!("{{apiVersion: v1, kind: {kind}, metadata: {{name: test}}, {rest}}}");
        check_problem(&[DB, &yaml], &format!("{kind} default/test"), field, what, *severity);
    }
}
