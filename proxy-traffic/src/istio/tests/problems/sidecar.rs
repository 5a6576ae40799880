//! Sidecar: its policy, and what of it is not served.

use super::*;

const ROWS: &[Row] = &[
    ("{}", "", "says nothing", Error),
    (
        "{egress: [{hosts: ['./*']}]}",
        "egress",
        "not served yet: every host that is exported stays visible",
        Warning,
    ),
    (
        "{ingress: [{port: {number: 1}}]}",
        "ingress",
        "not served yet: connections to the workloads stay",
        Warning,
    ),
    ("{inboundConnectionPool: {http: {}}}", "inboundConnectionPool", "not served yet", Warning),
    ("{outboundTrafficPolicy: {}}", "outboundTrafficPolicy.mode", "which means REGISTRY_ONLY", Warning),
    ("{outboundTrafficPolicy: {mode: OPEN}}", "outboundTrafficPolicy.mode", "\"OPEN\" is not a mode", Error),
    (
        "{outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}}",
        "outboundTrafficPolicy.mode",
        "is for the whole mesh",
        Error,
    ),
    (
        "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a.b}}}",
        "outboundTrafficPolicy.egressProxy",
        "not served yet: what no rule takes goes where the client wants",
        Warning,
    ),
    (
        "{outboundTrafficPolicy: {mode: REGISTRY_ONLY, egressProxy: {host: a.b}}}",
        "outboundTrafficPolicy.egressProxy",
        "needs the mode ALLOW_ANY",
        Error,
    ),
    ("{outboundTrafficPolicy: {mod: ALLOW_ANY}}", "outboundTrafficPolicy.mod", "did you mean mode?", Warning),
    ("{workloadSelector: {}}", "workloadSelector.labels", "every workload of the namespace", Warning),
    (
        "{workloadSelector: {labels: {app: 'a*'}}}",
        "workloadSelector.labels",
        "\"app=a*\" selects nobody",
        Error,
    ),
    ("{workloadSelector: {labels: {app: 7}}}", "workloadSelector.labels.app", "put it in quotes", Error),
    ("{egres: []}", "egres", "did you mean egress?", Warning),
];

#[test]
fn every_fault_of_a_sidecar_is_told() {
    check_rows("Sidecar", ROWS);
}
