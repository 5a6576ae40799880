//! VirtualService: what a rule may say, and what it names.

use super::*;

const ROWS: &[Row] = &[
    ("{tcp: [{route: [{destination: {host: db}}]}]}", "hosts", "is missing", Error),
    ("{hosts: [db]}", "tcp", "there is no rule", Error),
    ("{hosts: ['*'], tcp: [{route: [{destination: {host: db}}]}]}", "hosts[0]", "needs a gateway", Error),
    ("{hosts: ['a*.com'], tcp: [{route: [{destination: {host: db}}]}]}", "hosts[0]", "wildcard", Error),
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
    ("{hosts: [db], tcp: [{route: [{weight: 1}]}]}", "tcp[0].route[0].destination", "name a host", Error),
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
    ("{hosts: [db], http: [{route: [{destination: {host: db}}]}]}", "http", "not served yet", Warning),
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
];

#[test]
fn every_fault_of_a_virtual_service_is_told() {
    check_rows("VirtualService", ROWS);
}
