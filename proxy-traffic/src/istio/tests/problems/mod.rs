//! Bad input: each row is a spec, and the field and words of the problem that its owner reads.

mod annotations;
mod config_map;
mod destination_rule;
mod gateway;
mod kubernetes;
mod service_entry;
mod sidecar;
mod traffic_policy;
mod virtual_service;

use super::{
    Severity::{Error, Warning},
    *,
};

/// Spec, field, part of the words, severity.
type Row = (&'static str, &'static str, &'static str, Severity);

/// Each row as a resource called `test` next to `db`.
fn check_rows(kind: &str, rows: &[Row]) {
    for (spec, field, what, severity) in rows {
        check_problem(&[DB, &resource(kind, spec)], &format!("{kind} default/test"), field, what, *severity);
    }
}

/// Text of a file, resource, field, part of the words, severity.
const FILES: &[(&str, &str, &str, &str, Severity)] = &[
    ("a: b: c", "", "", "line 1: not YAML", Error),
    ("\n\n---\na: 1\na: 2\n", "", "", "line 4: not YAML: duplicate entry", Error),
    ("just text", "", "", "is not a resource", Error),
    ("{kind: Service, metadata: {name: a}}", "", "", "lacks apiVersion or kind", Error),
    ("{apiVersion: v1, kind: Service}", "", "", "metadata.name: is missing", Error),
    ("{apiVersion: v1, kind: Service, metadata: {name: 7}}", "", "", "metadata.name: invalid type", Error),
    (
        "{apiVersion: v1, kind: Service, metadata: {name: \"a\\n127.0.0.1 b\"}}",
        "",
        "",
        "metadata.name: \"a\\n127.0.0.1 b\" is not a name",
        Error,
    ),
    (
        "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: b c}}",
        "",
        "",
        "metadata.namespace: \"b c\" is not a name",
        Error,
    ),
    (
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: \"system:node\"}}",
        "ClusterRole default/system:node",
        "",
        "not used",
        Warning,
    ),
    (
        "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {v: 1}}}",
        "",
        "",
        "metadata.labels.v: invalid type",
        Error,
    ),
    (
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}",
        "Deployment default/a",
        "",
        "not used",
        Warning,
    ),
    (
        "{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: a}}",
        "Service default/a",
        "",
        "not used",
        Warning,
    ),
    (
        "{apiVersion: networking.istio.io/v1, kind: EnvoyFilter, metadata: {name: a, namespace: b}}",
        "EnvoyFilter b/a",
        "",
        "not used",
        Warning,
    ),
    (
        "{apiVersion: networking.istio.io/v2, kind: Gateway, metadata: {name: a}}",
        "Gateway default/a",
        "apiVersion",
        "write networking.istio.io/v1",
        Error,
    ),
    (
        "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: a}}",
        "Gateway default/a",
        "spec",
        "is missing",
        Error,
    ),
    (
        "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: a}, sepc: {}}",
        "Gateway default/a",
        "sepc",
        "is it part of spec?",
        Warning,
    ),
    (
        "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: a}, spec: 5}",
        "Gateway default/a",
        "",
        "invalid type",
        Error,
    ),
];

#[test]
fn every_fault_of_a_file_or_document_is_told() {
    for (yaml, resource, field, what, severity) in FILES {
        check_problem(&[DB, yaml], resource, field, what, *severity);
    }
}

/// Rows that need more than one resource of Istio.
#[test]
fn resources_together() {
    let http = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: db}, ports: [{name: http, port: 80}]}}";
    let to = |host: &str, gateways: &str, conditions: &str| {
        let spec = format!(
            "{{hosts: [{host}], gateways: {gateways}, tcp: [{{match: [{conditions}], route: [{{destination: {{host: db}}}}]}}]}}"
        );
        resource("VirtualService", &spec)
    };
    let edge = resource("Gateway", "{servers: [{port: {number: 1, name: a, protocol: TCP}, hosts: [a.x]}]}");
    let first = to("db", "[mesh]", "").replace("name: test", "name: first");
    let at_edge = to("a.x", "[test]", "").replace("name: test", "name: first");
    let edges = edge.replace("name: test", "name: first") + "---\n" + &to("a.x", "[test, first]", "");
    let name = "VirtualService default/test";
    for (texts, resource, field, what) in [
        (vec![DB, http, &to("web", "[mesh]", "")], name, "tcp", "do not apply to port 80"),
        (vec![DB, &first, &to("db", "[mesh]", "")], name, "tcp", "never reached at db"),
        (
            vec![DB, &edge, &to("b.x", "[test]", "")],
            name,
            "hosts",
            "no TCP server of Gateway default/test has b.x",
        ),
        (
            vec![DB, &edge, &at_edge, &to("a.x", "[test]", "")],
            name,
            "tcp",
            "VirtualService default/first takes every",
        ),
        (
            vec![DB, &edge, &to("a.x", "[test]", "{sourceLabels: {a: b}}")],
            name,
            "tcp[0].match[0].sourceLabels",
            "by a gateway",
        ),
        (
            vec![DB, &edge, &to("a.x", "[test]", "{sourceNamespace: a}")],
            name,
            "tcp[0].match[0].sourceNamespace",
            "by a gateway",
        ),
        (
            vec![DB, &edges, &edge],
            "Gateway default/test",
            "servers[0].port",
            "belongs to gateway default/first:1 already",
        ),
    ] {
        check_problem(&texts, resource, field, what, Warning);
    }
    let foreign = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: x, namespace: other}, \
                   spec: {host: db.default.svc.cluster.local}}";
    let bare = DB.rsplit_once("---").map(|(rest, _)| rest).unwrap_or_default();
    check_problem(&[bare, foreign], "DestinationRule other/x", "host", "clients of every namespace", Warning);
    check_problem(&[DB, DB], "Service default/db", "", "0.yaml has a resource of this name", Error);
}

#[test]
fn what_a_cluster_prints_makes_no_noise() {
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: default, uid: x, generateName: a-, ownerReferences: [{kind: ReplicaSet}], managedFields: []}
spec: {nodeName: n, containers: [{name: c, image: i, ports: [{containerPort: 80, protocol: TCP}]}], volumes: [], dnsPolicy: ClusterFirst}
status: {phase: Running, hostIP: 1.2.3.4, podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}], startTime: x, conditions: [{type: Ready, status: 'True', lastProbeTime: null}]}
---
apiVersion: v1
kind: Service
metadata: {name: s, annotations: {a: b}, resourceVersion: '1'}
spec: {type: ClusterIP, clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], internalTrafficPolicy: Cluster, ipFamilies: [IPv4],
  ipFamilyPolicy: SingleStack, sessionAffinity: None, selector: {a: b}, ports: [{port: 80, targetPort: 80, protocol: TCP, nodePort: 30000}]}
status: {loadBalancer: {}}
";
    assert_eq!(load(&[pod]).1, []);
    let exported = resource(
        "VirtualService",
        "{hosts: [db], exportTo: ['*'], tcp: [{route: [{destination: {host: db}}]}]}",
    );
    assert_eq!(load(&[DB, &exported]).1, []);
}
