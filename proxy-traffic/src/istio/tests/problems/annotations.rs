//! Annotations of Shunt's own: which stand where, and what they may say.

use super::*;

/// Kind, the rest of the resource, annotation, value, part of the words; none: it is as it should be.
const ROWS: &[(&str, &str, &str, &str, &str)] = &[
    ("Service", SERVICE, "datapath", "steer", ""),
    ("Service", SERVICE, "datapath", "auto", ""),
    ("Service", SERVICE, "overflow", "refuse", ""),
    ("Service", SERVICE, "overflow", "close", ""),
    ("DestinationRule", RULE, "limit-scope", "workload", ""),
    ("DestinationRule", RULE, "limit-scope", "node", ""),
    ("DestinationRule", RULE, "limit-scope", "endpoint", ""),
    ("VirtualService", ROUTES, "datapath", "steer", ""),
    ("VirtualService", ROUTES, "overflow", "close", ""),
    ("Sidecar", POLICY, "egress-existing", "close", ""),
    ("Sidecar", POLICY, "egress-existing", "keep", ""),
    ("Sidecar", POLICY, "egress-blocked", "refuse", ""),
    ("Sidecar", POLICY, "egress-blocked", "close", ""),
    ("Service", SERVICE, "datapath", "direct", "\"direct\" has no effect; write steer or auto"),
    ("Service", SERVICE, "overflow", "Close", "write refuse or close"),
    ("Service", SERVICE, "overflow", "true", "\"true\" has no effect"),
    ("DestinationRule", RULE, "limit-scope", "pod", "write workload or node or endpoint"),
    ("Service", SERVICE, "limit-scope", "node", "a Service has shunt.dev/datapath and shunt.dev/overflow"),
    (
        "VirtualService",
        ROUTES,
        "speed",
        "fast",
        "a VirtualService has shunt.dev/datapath and shunt.dev/overflow",
    ),
    ("DestinationRule", RULE, "datapath", "steer", "a DestinationRule has shunt.dev/limit-scope"),
    ("Sidecar", POLICY, "egress-existing", "no", "write close or keep"),
    ("Sidecar", POLICY, "egress-blocked", "deny", "write close or refuse"),
    ("Sidecar", POLICY, "datapath", "steer", "has shunt.dev/egress-existing and shunt.dev/egress-blocked"),
    ("Pod", "status: {podIP: 10.1.0.7}", "datapath", "steer", "of Shunt's own a Pod has nothing"),
];

const SERVICE: &str =
    "spec: {clusterIP: 10.0.0.6, selector: {app: db}, ports: [{port: 5432, targetPort: 15432}]}";
const RULE: &str = "spec: {host: test, trafficPolicy: {loadBalancer: {simple: RANDOM}}}";
const POLICY: &str = "spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}";
const ROUTES: &str = "spec: {hosts: [test], tcp: [{route: [{destination: {host: db}}]}]}";

#[test]
fn every_fault_of_an_annotation_is_told() {
    let home = format!("{{apiVersion: v1, kind: Service, metadata: {{name: test}}, {SERVICE}}}");
    for (kind, rest, name, value, what) in ROWS {
        let version = if matches!(*kind, "Service" | "Pod") { "v1" } else { "networking.istio.io/v1" };
        let named = format!("name: test, annotations: {{shunt.dev/{name}: {value}, other.dev/{name}: [1]}}");
        let text = format!("{{apiVersion: {version}, kind: {kind}, metadata: {{{named}}}, {rest}}}");
        let texts = if *kind == "Service" { vec![DB, &text] } else { vec![DB, &home, &text] };
        let resource = format!("{kind} default/test");
        if what.is_empty() {
            assert_eq!(load(&texts).1, [], "{text}");
        } else {
            let field = format!("metadata.annotations[shunt.dev/{name}]");
            check_problem(&texts, &resource, &field, what, Warning);
        }
    }
}
