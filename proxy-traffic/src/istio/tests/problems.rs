//! Bad input: each row is a spec, and the field and words of the problem that its owner reads.

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

#[test]
fn virtual_services() {
    check_rows(
        "VirtualService",
        &[
            ("{tcp: [{route: [{destination: {host: db}}]}]}", "hosts", "is missing", Error),
            ("{hosts: [db]}", "tcp", "there is no rule", Error),
            (
                "{hosts: ['*'], tcp: [{route: [{destination: {host: db}}]}]}",
                "hosts[0]",
                "needs a gateway",
                Error,
            ),
            (
                "{hosts: ['a*.com'], tcp: [{route: [{destination: {host: db}}]}]}",
                "hosts[0]",
                "wildcard",
                Error,
            ),
            (
                "{hosts: ['a..com'], tcp: [{route: [{destination: {host: db}}]}]}",
                "hosts[0]",
                "not a host name",
                Error,
            ),
            (
                "{hosts: [A.x, '*.x'], tcp: [{route: [{destination: {host: db}}]}]}",
                "hosts[1]",
                "cover each other",
                Error,
            ),
            (
                "{hosts: [db], gateways: [a/b/c], tcp: [{route: [{destination: {host: db}}]}]}",
                "gateways[0]",
                "does not name a gateway",
                Error,
            ),
            ("{hosts: [db], tcp: [{}]}", "tcp[0].route", "needs a destination", Error),
            (
                "{hosts: [db], tcp: [{route: [{weight: 1}]}]}",
                "tcp[0].route[0].destination",
                "name a host",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {}}]}]}",
                "tcp[0].route[0].destination.host",
                "is empty",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: '*'}}]}]}",
                "tcp[0].route[0].destination.host",
                "wildcard",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: db, subset: 'v 1'}}]}]}",
                "tcp[0].route[0].destination.subset",
                "subset's name",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: db, port: {}}}]}]}",
                "tcp[0].route[0].destination.port.number",
                "is missing",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: db, port: {number: 0}}}]}]}",
                "tcp[0].route[0].destination.port.number",
                "from 1 to 65535",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: db}, weight: -1}]}]}",
                "tcp[0].route[0].weight",
                "is a share",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: db}, weight: '80'}]}]}",
                "tcp[0].route[0].weight",
                "expected a whole number",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: db}}, {destination: {host: db}}]}]}",
                "tcp[0].route",
                "add up to 0",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: db}, weight: 0}]}]}",
                "tcp[0].route[0].weight",
                "gets everything",
                Warning,
            ),
            (
                "{hosts: [db], tcp: [{match: [{port: 65536}], route: [{destination: {host: db}}]}]}",
                "tcp[0].match[0].port",
                "65536 is not a port",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{match: [{destinationSubnets: [10.0.0.0/33]}], route: [{destination: {host: db}}]}]}",
                "tcp[0].match[0].destinationSubnets[0]",
                "neither an IP address nor a CIDR",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{match: [{sourceSubnet: here}], route: [{destination: {host: db}}]}]}",
                "tcp[0].match[0].sourceSubnet",
                "neither an IP address nor a CIDR",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{match: [{sourceNamespace: a.b}], route: [{destination: {host: db}}]}]}",
                "tcp[0].match[0].sourceNamespace",
                "not a namespace's name",
                Error,
            ),
            (
                "{hosts: [db], tcp: [{match: [{sourceLabels: {version: 1}}], route: [{destination: {host: db}}]}]}",
                "tcp[0].match[0].sourceLabels.version",
                "put it in quotes",
                Error,
            ),
            ("{hosts: [db], tcp: {route: []}}", "tcp", "expected a list", Error),
            (
                "{hosts: [db], http: [{route: [{destination: {host: db}}]}]}",
                "http",
                "not served yet",
                Warning,
            ),
            ("{hosts: [db], tls: [{route: [{destination: {host: db}}]}]}", "tls", "not served yet", Warning),
            (
                "{hosts: [db], exportTo: ['.'], tcp: [{route: [{destination: {host: db}}]}]}",
                "exportTo",
                "not served yet",
                Warning,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: db}, wieght: 1}]}]}",
                "tcp[0].route[0].wieght",
                "did you mean weight?",
                Warning,
            ),
            (
                "{hosts: [db], colour: red, tcp: [{route: [{destination: {host: db}}]}]}",
                "colour",
                "is not a field of VirtualService",
                Warning,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: db}}]}, {route: [{destination: {host: db}}]}]}",
                "tcp[1]",
                "never reached",
                Warning,
            ),
            (
                "{hosts: [nobody], tcp: [{route: [{destination: {host: db}}]}]}",
                "hosts[0]",
                "no Service or ServiceEntry has the host",
                Warning,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: nobody}}]}]}",
                "tcp[0].route[0].destination.host",
                "closed (NC)",
                Warning,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: db.default}}]}]}",
                "tcp[0].route[0].destination.host",
                "write db.default.svc.cluster.local",
                Warning,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: db, subset: v9}}]}]}",
                "tcp[0].route[0].destination.subset",
                "has no subset v9",
                Warning,
            ),
            (
                "{hosts: [db], tcp: [{route: [{destination: {host: db, port: {number: 1}}}]}]}",
                "tcp[0].route[0].destination.port",
                "has no TCP port 1",
                Warning,
            ),
            (
                "{hosts: [db], gateways: [edge], tcp: [{route: [{destination: {host: db}}]}]}",
                "gateways[0]",
                "there is no Gateway default/edge",
                Warning,
            ),
            (
                "{hosts: [db], tcp: [{match: [{gateways: [x/edge]}], route: [{destination: {host: db}}]}]}",
                "tcp[0].match[0].gateways[0]",
                "there is no Gateway x/edge",
                Warning,
            ),
        ],
    );
}

#[test]
fn destination_rules() {
    check_rows(
        "DestinationRule",
        &[
            ("{}", "host", "is empty", Error),
            ("{host: 'd*b'}", "host", "wildcard", Error),
            ("{host: nobody}", "host", "no Service or ServiceEntry has the host", Warning),
            ("{host: db, subsets: [{labels: {a: b}}]}", "subsets[0].name", "not a subset's name", Error),
            (
                "{host: db, subsets: [{name: a, labels: {a: b}}, {name: a, labels: {a: c}}]}",
                "subsets[1].name",
                "is there twice",
                Error,
            ),
            ("{host: db, subsets: [{name: a}]}", "subsets[0].labels", "is the whole service", Warning),
            (
                "{host: db, subsets: [{name: v9, labels: {version: v9}}]}",
                "subsets[0].labels",
                "closed (UH)",
                Warning,
            ),
            (
                "{host: db, subsets: [{name: v1, labels: {version: v1}}]}",
                "subsets[0]",
                "has a subset v1 already",
                Warning,
            ),
            (
                "{host: db, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 5 s}}}}",
                "trafficPolicy.connectionPool.tcp.connectTimeout",
                "\"5 s\" is not a duration",
                Error,
            ),
            (
                "{host: db, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 0s}}}}",
                "trafficPolicy.connectionPool.tcp.connectTimeout",
                "at least 1ms",
                Error,
            ),
            (
                "{host: db, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1.0005s}}}}",
                "trafficPolicy.connectionPool.tcp.connectTimeout",
                "whole number of milliseconds",
                Error,
            ),
            (
                "{host: db, trafficPolicy: {portLevelSettings: [{}]}}",
                "trafficPolicy.portLevelSettings[0].port.number",
                "is missing",
                Error,
            ),
            (
                "{host: db, trafficPolicy: {portLevelSettings: [{port: {number: 1}}, {port: {number: 1}}]}}",
                "trafficPolicy.portLevelSettings[1].port.number",
                "is there twice",
                Error,
            ),
            (
                "{host: db, trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}}",
                "trafficPolicy.connectionPool.tcp.maxConnections",
                "not served yet",
                Warning,
            ),
            (
                "{host: db, trafficPolicy: {connectionPool: {http: {}}}}",
                "trafficPolicy.connectionPool.http",
                "not served yet",
                Warning,
            ),
            (
                "{host: db, trafficPolicy: {loadBalancer: {simple: RANDOM}}}",
                "trafficPolicy.loadBalancer",
                "not served yet",
                Warning,
            ),
            (
                "{host: db, trafficPolicy: {outlierDetection: {}}}",
                "trafficPolicy.outlierDetection",
                "not served yet",
                Warning,
            ),
            (
                "{host: db, trafficPolicy: {tls: {mode: SIMPLE}}}",
                "trafficPolicy.tls",
                "not served yet",
                Warning,
            ),
            (
                "{host: db, subsets: [{name: a, labels: {version: v1}, trafficPolicy: {loadBalancer: {}}}]}",
                "subsets[0].trafficPolicy.loadBalancer",
                "not served yet",
                Warning,
            ),
            (
                "{host: db, trafficPolicy: {portLevelSettings: [{port: {number: 1}, tls: {}}]}}",
                "trafficPolicy.portLevelSettings[0].tls",
                "not served yet",
                Warning,
            ),
            ("{host: db, workloadSelector: {}}", "workloadSelector", "not served yet", Warning),
            ("{host: db, subset: []}", "subset", "did you mean subsets?", Warning),
            (
                "{host: db, trafficPolicy: {connectionPool: {tcp: {}}}}",
                "trafficPolicy",
                "that of default/db counts",
                Warning,
            ),
        ],
    );
}

#[test]
fn service_entries() {
    const REST: &str = "resolution: STATIC, ports: [{number: 80, name: tcp, protocol: TCP}], endpoints: [{address: 10.1.0.9}]";
    for (spec, field, what, severity) in [
        (format!("{{{REST}}}"), "hosts", "is missing", Error),
        (format!("{{hosts: ['*'], {REST}}}"), "hosts[0]", "every host", Error),
        (format!("{{hosts: [a.x, b.x], {REST}}}"), "hosts", "cannot share a TCP port", Error),
        (format!("{{hosts: [a.x, A.x], {REST}}}"), "hosts[1]", "is there twice", Error),
        (format!("{{hosts: ['*.x'], {REST}}}"), "addresses", "a wildcard cannot be dialled", Warning),
        (
            format!("{{hosts: [a.x], addresses: [a.x], {REST}}}"),
            "addresses[0]",
            "neither an IP address nor a CIDR",
            Error,
        ),
        (
            format!(
                "{{hosts: [a.x], addresses: [10.0.0.5], ports: [{{number: 5432, name: tcp}}], {}}}",
                "resolution: STATIC, endpoints: [{address: 10.1.0.9}]"
            ),
            "addresses",
            "belongs to db.default.svc.cluster.local:5432 already",
            Warning,
        ),
        (
            format!("{{hosts: [a.x], location: HERE, {REST}}}"),
            "location",
            "MESH_EXTERNAL or MESH_INTERNAL",
            Error,
        ),
        (
            format!("{{hosts: [a.x], subjectAltNames: [a], {REST}}}"),
            "subjectAltNames",
            "not served yet",
            Warning,
        ),
        (format!("{{hosts: [a.x], exportTo: [a], {REST}}}"), "exportTo", "not served yet", Warning),
        (
            format!("{{hosts: [a.x], workloadSelector: {{labels: {{a: b}}}}, {REST}}}"),
            "workloadSelector",
            "exclude each other",
            Error,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("STATIC", "DNS")),
            "resolution",
            "DNS is not served yet",
            Error,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("STATIC", "NONE")),
            "resolution",
            "NONE is not served yet",
            Error,
        ),
        (format!("{{hosts: [a.x], {}}}", REST.replace("STATIC", "HOW")), "resolution", "is unknown", Error),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("resolution: STATIC,", "")),
            "resolution",
            "is missing",
            Error,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("TCP", "SMTP")),
            "ports[0].protocol",
            "not a protocol",
            Error,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("TCP", "UDP")),
            "ports[0].protocol",
            "never proxied",
            Warning,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("name: tcp, ", "")),
            "ports[0].name",
            "not a port's name",
            Error,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("number: 80, ", "")),
            "ports[0].number",
            "is missing",
            Error,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("}]", "}, {number: 80, name: b}]")),
            "ports[1].number",
            "is there twice",
            Error,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("}]", "}, {number: 81, name: tcp}]")),
            "ports[1].name",
            "is there twice",
            Error,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("10.1.0.9", "b.x")),
            "endpoints[0].address",
            "not an IP address",
            Error,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("10.1.0.9", "unix:///s")),
            "endpoints[0].address",
            "unix sockets",
            Error,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("address: 10.1.0.9", "weight: 1")),
            "endpoints[0].address",
            "is missing",
            Error,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("10.1.0.9", "10.1.0.9, ports: {b: 1}")),
            "endpoints[0].ports.b",
            "not the name of a port",
            Error,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("10.1.0.9", "10.1.0.9, locality: x")),
            "endpoints[0].locality",
            "not served yet",
            Warning,
        ),
        (
            format!("{{hosts: [a.x], {}}}", REST.replace("{address: 10.1.0.9}", "")),
            "endpoints",
            "nobody serves this",
            Warning,
        ),
        (
            format!(
                "{{hosts: [a.x], {}}}",
                REST.replace("endpoints: [{address: 10.1.0.9}]", "workloadSelector: {}")
            ),
            "workloadSelector.labels",
            "every workload",
            Warning,
        ),
        (format!("{{hosts: [db.default.svc.cluster.local], {REST}}}"), "hosts[0]", "has no port 80", Warning),
    ] {
        check_problem(
            &[DB, &resource("ServiceEntry", &spec)],
            "ServiceEntry default/test",
            field,
            what,
            severity,
        );
    }
    check_rows(
        "WorkloadEntry",
        &[
            ("{labels: {a: b}}", "address", "is missing", Error),
            ("{address: 10.1.0.9, network: n}", "network", "not served yet", Warning),
            ("{address: 10.1.0.9, ports: {tcp: 0}}", "ports.tcp", "from 1 to 65535", Error),
        ],
    );
}

#[test]
fn gateways() {
    check_rows(
        "Gateway",
        &[
            ("{}", "servers", "at least one server", Error),
            ("{servers: [{hosts: ['*']}]}", "servers[0].port", "is missing", Error),
            (
                "{servers: [{port: {name: a, protocol: TCP}, hosts: ['*']}]}",
                "servers[0].port.number",
                "is missing",
                Error,
            ),
            (
                "{servers: [{port: {number: 1, protocol: TCP}, hosts: ['*']}]}",
                "servers[0].port.name",
                "is missing",
                Error,
            ),
            (
                "{servers: [{port: {number: 1, name: a, protocol: SMTP}, hosts: ['*']}]}",
                "servers[0].port.protocol",
                "not a protocol",
                Error,
            ),
            (
                "{servers: [{port: {number: 1, name: a, protocol: HTTP}, hosts: ['*']}]}",
                "servers[0].port.protocol",
                "HTTP is not served yet",
                Warning,
            ),
            (
                "{servers: [{port: {number: 1, name: a, protocol: TCP}}]}",
                "servers[0].hosts",
                "is missing",
                Error,
            ),
            (
                "{servers: [{port: {number: 1, name: a, protocol: TCP}, hosts: [short]}]}",
                "servers[0].hosts[0]",
                "short name",
                Error,
            ),
            (
                "{servers: [{port: {number: 1, name: a, protocol: TCP}, hosts: ['a b/x.com']}]}",
                "servers[0].hosts[0]",
                "stands a namespace",
                Error,
            ),
            (
                "{servers: [{port: {number: 1, name: a, protocol: TCP}, bind: here, hosts: ['*']}]}",
                "servers[0].bind",
                "not an IP address",
                Error,
            ),
            (
                "{servers: [{port: {number: 1, name: a, protocol: TCP}, hosts: ['*']}, {port: {number: 2, name: a, protocol: TCP}, hosts: ['*']}]}",
                "servers[1].port.name",
                "is there twice",
                Error,
            ),
            (
                "{servers: [{port: {number: 1, name: a, protocol: TCP}, tls: {}, hosts: ['*']}]}",
                "servers[0].tls",
                "not served yet",
                Warning,
            ),
            (
                "{selector: {istio: other}, servers: [{port: {number: 1, name: a, protocol: TCP}, hosts: ['*']}]}",
                "selector",
                "this one is istio=ingressgateway",
                Warning,
            ),
        ],
    );
}

#[test]
fn kubernetes() {
    const CORE: [(&str, &str, &str, &str, Severity); 14] = [
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
    for (kind, rest, field, what, severity) in CORE {
        let yaml = format!("{{apiVersion: v1, kind: {kind}, metadata: {{name: test}}, {rest}}}");
        check_problem(&[DB, &yaml], &format!("{kind} default/test"), field, what, severity);
    }
}

#[test]
fn files_and_documents() {
    for (yaml, resource, field, what, severity) in [
        ("a: b: c", "", "", "line 1: not YAML", Error),
        ("\n\n---\na: 1\na: 2\n", "", "", "line 4: not YAML: duplicate entry", Error),
        ("just text", "", "", "is not a resource", Error),
        ("{kind: Service, metadata: {name: a}}", "", "", "lacks apiVersion or kind", Error),
        ("{apiVersion: v1, kind: Service}", "", "", "metadata.name: is missing", Error),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: 7}}",
            "",
            "",
            "metadata.name: invalid type",
            Error,
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
            "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: a, namespace: b}}",
            "Sidecar b/a",
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
    ] {
        check_problem(&[DB, yaml], resource, field, what, severity);
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
