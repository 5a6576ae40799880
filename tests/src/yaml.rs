//! Small builders for the resources that stories share; anything unusual a story writes out.

use std::net::SocketAddr;

/// The host name that Kubernetes gives the Service `name` in the namespace `default`.
pub fn fqdn(name: &str) -> String {
    format!("{name}.default.svc.cluster.local")
}

/// A Kubernetes Service with one TCP port, which selects `app: NAME`. Without addresses it gets one from Shunt.
pub fn service(name: &str, addresses: &[&str], port: u16) -> String {
    let addresses: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let addresses = match addresses.is_empty() {
        true => String::new(),
        false => format!("clusterIPs: [{}], ", addresses.join(", ")),
    };
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{{addresses}selector: {{app: {name}}}, ports: [{{name: tcp, port: {port}}}]}}
"
    )
}

/// A WorkloadEntry at `address`, labelled `app: APP, version: VERSION`; the port `tcp` of its services is the address's.
pub fn workload_entry(app: &str, version: &str, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {app}-{version}}}
spec: {{address: \"{ip}\", ports: {{tcp: {port}}}, labels: {{app: {app}, version: {version}}}}}
"
    )
}

/// A ServiceEntry in the mesh with fixed addresses and one endpoint.
pub fn service_entry(host: &str, addresses: &[String], port: u16, endpoint: SocketAddr) -> String {
    let name = host.replace('.', "-");
    let addresses = addresses.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{host}]
  addresses: [{addresses}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: {port}, name: tcp, protocol: TCP}}]
  endpoints: [{{address: \"{}\", ports: {{tcp: {}}}}}]
",
        endpoint.ip(),
        endpoint.port()
    )
}

/// A DestinationRule whose subsets are called after the `version` that they select.
pub fn subsets(host: &str, versions: &[&str]) -> String {
    let subset = |version: &&str| format!("{{name: {version}, labels: {{version: {version}}}}}");
    let subsets = versions.iter().map(subset).collect::<Vec<_>>().join(", ");
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {host}}}
spec: {{host: {host}, subsets: [{subsets}]}}
"
    )
}

/// A VirtualService of the mesh for `host`; `rules` are the items of `tcp`, as [`rule`] writes them, in order.
pub fn virtual_service(host: &str, rules: &[String]) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {host}}}
spec:
  hosts: [{host}]
  tcp:
{}",
        rules.concat()
    )
}

/// A rule for what `matches` matches (empty: everything, `port: 9000, sourceLabels: {app: web}`): `host`'s subsets by weight.
pub fn rule(matches: &str, host: &str, weights: &[(&str, u32)]) -> String {
    let matches = match matches.is_empty() {
        true => String::new(),
        false => format!("match: [{{{matches}}}], "),
    };
    let branch = |(subset, weight): &(&str, u32)| {
        format!(
            "{{destination: {{host: {host}, subset: {subset}, port: {{number: 9000}}}}, weight: {weight}}}"
        )
    };
    let branches = weights.iter().map(branch).collect::<Vec<_>>().join(", ");
    format!("  - {{{matches}route: [{branches}]}}\n")
}

/// The whole mesh's split of `tcp-echo`: one VirtualService with one rule.
pub fn split(weights: &[(&str, u32)]) -> String {
    virtual_service("tcp-echo", &[rule("", "tcp-echo", weights)])
}

/// A DestinationRule with one traffic policy, `connectionPool: {…}`, and annotations, `shunt.dev/limit-scope: node` or
/// none.
pub fn traffic_policy(host: &str, policy: &str, annotations: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {host}, annotations: {{{annotations}}}}}
spec: {{host: {host}, trafficPolicy: {{{policy}}}}}
"
    )
}

/// The ConfigMap of the mesh's settings with this `outboundTrafficPolicy.mode`, and annotations or none.
pub fn mesh_config(mode: &str, annotations: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system, annotations: {{{annotations}}}}}
data:
  mesh: |-
    accessLogFile: /dev/stdout
    outboundTrafficPolicy:
      mode: {mode}
"
    )
}

/// A ServiceEntry of a host outside of the mesh; `ports` are `80/HTTP`, separated by blanks, `more` is further fields:
/// `resolution: DNS, addresses: [203.0.113.1]`.
pub fn external(host: &str, ports: &str, more: &str) -> String {
    let port = |text: &str| {
        let (number, protocol) = text.split_once('/').expect("80/HTTP");
        format!("{{number: {number}, name: {}-{number}, protocol: {protocol}}}", protocol.to_lowercase())
    };
    let ports = ports.split(' ').map(port).collect::<Vec<_>>().join(", ");
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {}}}
spec: {{hosts: [\"{host}\"], location: MESH_EXTERNAL, ports: [{ports}], {more}}}
",
        host.replace('.', "-").replace('*', "all")
    )
}

/// A Sidecar of `namespace` with this `outboundTrafficPolicy.mode`, for workloads with `labels` (`app: web`) or all.
pub fn sidecar(namespace: &str, labels: &str, mode: &str) -> String {
    let (name, selector) = match labels.is_empty() {
        true => ("default", String::new()),
        false => ("some", format!("workloadSelector: {{labels: {{{labels}}}}}, ")),
    };
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{selector}outboundTrafficPolicy: {{mode: {mode}}}}}
"
    )
}
