//! DestinationRule: subsets, policies, and what is not served yet.

use super::*;

const ROWS: &[Row] = &[
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
    ("{host: db, subsets: [{name: v9, labels: {version: v9}}]}", "subsets[0].labels", "closed (UH)", Warning),
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
        "{host: db, trafficPolicy: {connectionPool: {tcp: {idleTimeout: 1s}}}}",
        "trafficPolicy.connectionPool.tcp.idleTimeout",
        "not served yet",
        Warning,
    ),
    (
        "{host: db, trafficPolicy: {connectionPool: {tcp: {maxConnectionDuration: 1s}}}}",
        "trafficPolicy.connectionPool.tcp.maxConnectionDuration",
        "not served yet",
        Warning,
    ),
    (
        "{host: db, trafficPolicy: {connectionPool: {http: {}}}}",
        "trafficPolicy.connectionPool.http",
        "not served yet",
        Warning,
    ),
    ("{host: db, trafficPolicy: {tls: {mode: SIMPLE}}}", "trafficPolicy.tls", "not served yet", Warning),
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
];

#[test]
fn every_fault_of_a_destination_rule_is_told() {
    check_rows("DestinationRule", ROWS);
}
