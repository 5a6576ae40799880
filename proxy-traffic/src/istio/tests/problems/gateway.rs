//! Gateway: servers.

use super::*;

const ROWS: &[Row] = &[
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
    ("{servers: [{port: {number: 1, name: a, protocol: TCP}}]}", "servers[0].hosts", "is missing", Error),
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
];

#[test]
fn every_fault_of_a_gateway_is_told() {
    check_rows("Gateway", ROWS);
}
