//! Rows of data: YAML in, the snapshot's listing or a problem out.

mod anywhere;
mod egress;
mod gateway;
mod incremental;
mod locality;
mod lookups;
mod mesh;
mod policy;
mod problems;
mod properties;
mod reuse;
mod services;
mod store;
mod traffic;
mod verdict;

use super::{Problem, Settings, Severity, Store, compile};
use crate::Snapshot;

/// A service with two versions, written as flow YAML to keep rows short.
const DB: &str = r#"
{apiVersion: v1, kind: Service, metadata: {name: db},
 spec: {clusterIP: 10.0.0.5, selector: {app: db}, ports: [{name: tcp, port: 5432, targetPort: 15432}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db-1, labels: {app: db, version: v1}}, status: {podIP: 10.1.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db-2, labels: {app: db, version: v2}}, status: {podIP: 10.1.0.2}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: db}, spec: {host: db,
 subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}}
"#;

/// What a store holding `texts`, one file each, compiles to, and everything that is wrong with them.
fn load(texts: &[&str]) -> (Snapshot, Vec<Problem>) {
    let mut store = Store::new();
    for (index, text) in texts.iter().enumerate() {
        store.replace(&format!("{index}.yaml"), text);
    }
    let (snapshot, compiled) = compile(store.resources(), &Snapshot::default(), &Settings::default());
    let problems = store.problems().cloned().chain(compiled).collect();
    (snapshot, problems)
}

/// A VirtualService for `db` with these `tcp` rules.
fn virtual_service(tcp: &str) -> String {
    resource("VirtualService", &format!("{{hosts: [db], tcp: {tcp}}}"))
}

/// A resource of Istio called `test` with that spec.
fn resource(kind: &str, spec: &str) -> String {
    format!("{{apiVersion: networking.istio.io/v1, kind: {kind}, metadata: {{name: test}}, spec: {spec}}}\n")
}

/// The listing with the tail of full names cut off, to keep rows short.
fn short(listing: impl std::fmt::Display) -> String {
    listing.to_string().replace(".default.svc.cluster.local", "")
}

/// The lines of a listing without their indentation, which rows use for their own.
fn lines(text: &str) -> Vec<&str> {
    text.trim().lines().map(str::trim).collect()
}

/// Compares the whole listing, and insists that nothing is wrong.
fn check(yaml: &[&str], want: &str) {
    let (snapshot, problems) = load(yaml);
    assert_eq!(lines(&short(&snapshot)), lines(want), "{yaml:?}");
    assert_eq!(problems, [], "{yaml:?}");
}

/// Compares the rules of `db`'s listener under a VirtualService with these `tcp` rules.
fn check_rules(tcp: &str, want: &str) {
    check_listener(&virtual_service(tcp), want);
}

/// Compares the rules of `db`'s listener next to `yaml`.
fn check_listener(yaml: &str, want: &str) {
    let (snapshot, _) = load(&[DB, yaml]);
    let listener = &snapshot.listeners[&"10.0.0.5:5432".parse().unwrap()];
    assert_eq!(lines(&short(listener))[1..], lines(want), "{yaml}");
}

/// Insists on a problem at `field` of `resource` in the last of `yaml` whose words contain `what`.
fn check_problem(yaml: &[&str], resource: &str, field: &str, what: &str, severity: Severity) {
    let (_, problems) = load(yaml);
    let file = format!("{}.yaml", yaml.len() - 1);
    let fits = |one: &Problem| {
        one.file == file
            && one.resource == resource
            && one.field == field
            && one.what.contains(what)
            && one.severity == severity
    };
    assert!(problems.iter().any(fits), "no {resource}: {field}: {what} ({severity:?}) among {problems:#?}");
}
