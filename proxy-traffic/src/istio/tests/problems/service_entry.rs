//! ServiceEntry and WorkloadEntry: hosts, ports, and who serves them.

use super::*;

/// What makes a ServiceEntry whole, apart from its hosts.
const REST: &str =
    "resolution: STATIC, ports: [{number: 80, name: tcp, protocol: TCP}], endpoints: [{address: 10.1.0.9}]";

/// What comes before [`REST`], what to replace in that and with what, field, part of the words, severity.
const ROWS: &[(&str, &str, &str, &str, &str, Severity)] = &[
    ("", "", "", "hosts", "is missing", Error),
    ("hosts: ['*'], ", "", "", "hosts[0]", "every host", Error),
    ("hosts: [a.x, b.x], ", "", "", "hosts", "cannot share a TCP port", Error),
    ("hosts: [a.x, A.x], ", "", "", "hosts[1]", "is there twice", Error),
    ("hosts: ['*.x'], ", "", "", "addresses", "a wildcard cannot be dialled", Warning),
    ("hosts: [a.x], addresses: [a.x], ", "", "", "addresses[0]", "neither an IP address nor a CIDR", Error),
    (
        "hosts: [a.x], addresses: [10.0.0.5], ",
        "80",
        "5432",
        "addresses",
        "belongs to db.default.svc.cluster.local:5432 already",
        Warning,
    ),
    ("hosts: [a.x], location: HERE, ", "", "", "location", "MESH_EXTERNAL or MESH_INTERNAL", Error),
    ("hosts: [a.x], subjectAltNames: [a], ", "", "", "subjectAltNames", "not served yet", Warning),
    ("hosts: [a.x], exportTo: [a b], ", "", "", "exportTo[0]", "no namespace", Error),
    ("hosts: [a.x], exportTo: [a, '*'], ", "", "", "exportTo[1]", "useless", Warning),
    (
        "hosts: [a.x], workloadSelector: {labels: {a: b}}, ",
        "",
        "",
        "workloadSelector",
        "exclude each other",
        Error,
    ),
    ("hosts: [a.x], ", "STATIC", "NONE", "endpoints", "write STATIC or DNS", Error),
    (
        "hosts: [a.x], ",
        "10.1.0.9}",
        "b.x}, {address: c.x}",
        "endpoints[0].address",
        "not an IP address",
        Error,
    ),
    ("hosts: ['*.x'], ", "STATIC", "DYNAMIC_DNS", "endpoints", "has none", Error),
    ("hosts: [a.x], ", "STATIC", "DYNAMIC_DNS", "hosts[0]", "for wildcards", Error),
    ("hosts: ['*.x'], ", "STATIC", "DYNAMIC_DNS", "ports[0].protocol", "write HTTP or TLS", Error),
    ("hosts: ['*.x'], addresses: [10.0.0.1], ", "STATIC", "DYNAMIC_DNS", "addresses", "has none", Error),
    ("hosts: [a.x], addresses: [10.0.0.0/8], ", "STATIC", "DNS", "addresses[0]", "is a range", Error),
    ("hosts: [a.x], ", "STATIC", "HOW", "resolution", "is unknown", Error),
    ("hosts: [a.x], ", "resolution: STATIC,", "", "endpoints", "resolution NONE goes", Error),
    ("hosts: [a.x], ", "TCP", "SMTP", "ports[0].protocol", "not a protocol", Error),
    ("hosts: [a.x], ", "name: tcp, ", "", "ports[0].name", "not a port's name", Error),
    ("hosts: [a.x], ", "number: 80, ", "", "ports[0].number", "is missing", Error),
    ("hosts: [a.x], ", "}]", "}, {number: 80, name: b}]", "ports[1].number", "is there twice", Error),
    ("hosts: [a.x], ", "}]", "}, {number: 81, name: tcp}]", "ports[1].name", "is there twice", Error),
    ("hosts: [a.x], ", "10.1.0.9", "b.x", "endpoints[0].address", "not an IP address", Error),
    ("hosts: [a.x], ", "10.1.0.9", "unix:///s", "endpoints[0].address", "unix sockets", Error),
    ("hosts: [a.x], ", "address: 10.1.0.9", "weight: 1", "endpoints[0].address", "is missing", Error),
    (
        "hosts: [a.x], ",
        "10.1.0.9",
        "10.1.0.9, ports: {b: 1}",
        "endpoints[0].ports.b",
        "not the name of a port",
        Error,
    ),
    ("hosts: [a.x], ", "{address: 10.1.0.9}", "", "endpoints", "nobody serves this", Warning),
    (
        "hosts: [a.x], ",
        "endpoints: [{address: 10.1.0.9}]",
        "workloadSelector: {}",
        "workloadSelector.labels",
        "every workload",
        Warning,
    ),
    ("hosts: [db.default.svc.cluster.local], ", "", "", "hosts[0]", "has no port 80", Warning),
];

#[test]
fn every_fault_of_a_service_entry_is_told() {
    for (head, from, to, field, what, severity) in ROWS {
        let entry = resource("ServiceEntry", &format!("{{{head}{}}}", REST.replace(from, to)));
        check_problem(&[DB, &entry], "ServiceEntry default/test", field, what, *severity);
    }
}

/// What comes instead of [`REST`].
const LOOKED_UP: &[(&str, &str, &str, Severity)] = &[
    ("hosts: ['*.x'], resolution: DNS", "hosts[0]", "cannot be looked up", Error),
    (
        "hosts: [a.x], resolution: DNS, endpoints: [{address: '*.x'}]",
        "endpoints[0].address",
        "neither an IP",
        Error,
    ),
    (
        "hosts: [a.x], resolution: DNS, endpoints: [{address: b}]",
        "endpoints[0].address",
        "neither an IP",
        Error,
    ),
    (
        "hosts: [a.x], resolution: DNS_ROUND_ROBIN, endpoints: [{address: b.x}, {address: c.x}]",
        "endpoints",
        "one endpoint at most",
        Error,
    ),
    ("hosts: [a.x], resolution: NONE", "addresses", "takes port 80 of every address", Warning),
    ("hosts: [a.x], workloadSelector: {labels: {a: b}}", "workloadSelector", "no effect", Warning),
];

#[test]
fn every_fault_of_a_resolution_is_told() {
    for (spec, field, what, severity) in LOOKED_UP {
        let spec = format!("{{{spec}, ports: [{{number: 80, name: tcp, protocol: TCP}}]}}");
        let entry = resource("ServiceEntry", &spec);
        check_problem(&[&entry], "ServiceEntry default/test", field, what, *severity);
    }
}

const WORKLOAD_ROWS: &[Row] = &[
    ("{labels: {a: b}}", "address", "is missing", Error),
    ("{address: 10.1.0.9, network: n}", "network", "not served yet", Warning),
    ("{address: 10.1.0.9, ports: {tcp: 0}}", "ports.tcp", "from 1 to 65535", Error),
];

#[test]
fn every_fault_of_a_workload_entry_is_told() {
    check_rows("WorkloadEntry", WORKLOAD_ROWS);
}
