//! ConfigMap `istio`: MeshConfig.

use super::*;

/// What `mesh` says, field, part of the words, severity.
const ROWS: &[Row] = &[
    ("a: b: c", "data.mesh", "not YAML", Error),
    ("[a]", "data.mesh", "invalid type: list", Error),
    ("accessLogFile: /dev/stdout", "data.mesh: accessLogFile", "is not served yet", Warning),
    ("tcpKeepalive: {time: 1s}", "data.mesh: tcpKeepalive", "is not served yet", Warning),
    (
        "conectTimeout: 1s",
        "data.mesh: conectTimeout",
        "not a field of MeshConfig and has no effect; did you mean connectTimeout?",
        Warning,
    ),
    ("connectTimeout: 0s", "data.mesh: connectTimeout", "at least 1ms", Error),
    (
        "{trustDomain: a, defaultConfig: {discoveryAddress: x}, enablePrometheusMerge: true}",
        "data.mesh",
        "trustDomain, defaultConfig, enablePrometheusMerge are about sidecars",
        Warning,
    ),
    ("rootNamespace: other", "data.mesh: rootNamespace", "--root-namespace says istio-system", Warning),
    (
        "outboundTrafficPolicy: {}",
        "data.mesh: outboundTrafficPolicy.mode",
        "which means REGISTRY_ONLY",
        Warning,
    ),
    (
        "outboundTrafficPolicy: {mode: 7}",
        "data.mesh: outboundTrafficPolicy.mode",
        "\"7\" is not a mode",
        Error,
    ),
    (
        "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}",
        "data.mesh: outboundTrafficPolicy.mode",
        "the mode in force is ALLOW_ANY",
        Warning,
    ),
    (
        "outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {}}",
        "data.mesh: outboundTrafficPolicy.egressProxy",
        "is not a field of a mesh",
        Warning,
    ),
];

const ISTIO: &str = "metadata: {name: istio, namespace: istio-system}";

/// Metadata and the rest of a ConfigMap, resource, field, part of the words, severity.
const MAPS: &[(&str, &str, &str, &str, &str, Severity)] = &[
    (ISTIO, "data: {}", "ConfigMap istio-system/istio", "data.mesh", "is missing", Warning),
    (ISTIO, "spec: {}", "ConfigMap istio-system/istio", "spec", "is it part of data.mesh?", Warning),
    (ISTIO, "data: {mesh: {a: b}}", "ConfigMap istio-system/istio", "data.mesh", "is not text", Error),
    (
        "metadata: {name: istio}",
        "data: {mesh: ''}",
        "ConfigMap default/istio",
        "metadata.namespace",
        "is not used: the mesh's own is in the namespace istio-system",
        Warning,
    ),
    (
        "metadata: {name: istio-canary, namespace: istio-system}",
        "data: {mesh: ''}",
        "ConfigMap istio-system/istio-canary",
        "metadata.name",
        "not used: the mesh's own is called istio",
        Warning,
    ),
];

#[test]
fn every_fault_of_a_mesh_config_is_told() {
    for (mesh, field, what, severity) in ROWS {
        let text = format!("{{apiVersion: v1, kind: ConfigMap, {ISTIO}, data: {{mesh: '{mesh}'}}}}");
        check_problem(&[DB, &text], "ConfigMap istio-system/istio", field, what, *severity);
    }
    for (metadata, rest, resource, field, what, severity) in MAPS {
        let text = format!("{{apiVersion: v1, kind: ConfigMap, {metadata}, {rest}}}");
        check_problem(&[DB, &text], resource, field, what, *severity);
    }
}

/// As an installation of Istio leaves it: one line for everything that is about sidecars.
#[test]
fn the_default_profile_has_one_warning() {
    let text = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system, labels: {istio.io/rev: default}}
data:
  mesh: |-
    defaultConfig:
      discoveryAddress: istiod.istio-system.svc:15012
    defaultProviders:
      metrics:
      - prometheus
    enablePrometheusMerge: true
    outboundTrafficPolicy:
      mode: ALLOW_ANY
    rootNamespace: istio-system
    trustDomain: cluster.local
  meshNetworks: 'networks: {}'
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-root-ca.crt, namespace: istio-system}
data: {ca.crt: x}
";
    let told: Vec<_> = load(&[text]).1.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "0.yaml: ConfigMap istio-system/istio: data.mesh: defaultConfig, defaultProviders, enablePrometheusMerge, \
          trustDomain are about sidecars and their certificates, and have no effect"
        ]
    );
}
