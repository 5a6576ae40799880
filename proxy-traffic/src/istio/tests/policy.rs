//! DestinationRules: lookup, merge and what they say about connecting.

use super::*;
use crate::ClusterName;

/// A DestinationRule of that name and namespace for `db`.
fn rule(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {name}, namespace: {namespace}}}, \
         spec: {{host: db.default.svc.cluster.local, {spec}}}}}\n---\n"
    )
}

/// How long connecting to a subset of `db` may take, with these rules instead of its own.
fn timeout(rules: &str, subset: &str) -> String {
    let bare = DB.rsplit_once("---").map(|(rest, _)| rest).unwrap_or_default();
    let tcp = format!("[{{route: [{{destination: {{host: db, subset: '{subset}'}}}}]}}]");
    let (snapshot, _) = load(&[bare, rules, &virtual_service(&tcp)]);
    let name = ClusterName::outbound(5432, subset, "db.default.svc.cluster.local");
    format!("{:?}", snapshot.clusters[&name].connect_timeout)
}

const TOP: &str = "trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1s}}";

#[test]
fn the_connect_timeout_of_the_narrowest_level_counts() {
    let pool = |time: &str| format!("connectionPool: {{tcp: {{connectTimeout: {time}}}}}");
    let port = |number: u16, time: &str| {
        format!("portLevelSettings: [{{port: {{number: {number}}}, {}}}]", pool(time))
    };
    let subset = |policy: &str| {
        format!("subsets: [{{name: v1, labels: {{version: v1}}, trafficPolicy: {{{policy}}}}}]")
    };
    for (spec, want) in [
        ("subsets: [{name: v1, labels: {version: v1}}]".to_owned(), "10s"),
        (format!("{TOP}}}, subsets: [{{name: v1, labels: {{version: v1}}}}]"), "1s"),
        (format!("{TOP}}}, {}", subset(&pool("2s"))), "2s"),
        (format!("{TOP}}}, {}", subset("connectionPool: {tcp: {}}")), "10s"),
        (format!("{TOP}}}, {}", subset("")), "1s"),
        (format!("{TOP}, {}}}, {}", port(5432, "3s"), subset("")), "3s"),
        (format!("{TOP}, {}}}, {}", port(1, "3s"), subset("")), "1s"),
        (format!("{TOP}, {}}}, {}", port(5432, "3s"), subset(&port(5432, "4s"))), "4s"),
        (format!("{TOP}, portLevelSettings: [{{port: {{number: 5432}}}}]}}, {}", subset("")), "10s"),
    ] {
        assert_eq!(timeout(&rule("a", "default", &spec), "v1"), want, "{spec}");
    }
}

#[test]
fn the_services_namespace_speaks_first_then_the_root_then_any_other() {
    let time = |time: &str| format!("trafficPolicy: {{connectionPool: {{tcp: {{connectTimeout: {time}}}}}}}");
    let (home, root, other) = (
        rule("z", "default", &time("1s")),
        rule("y", "istio-system", &time("2s")),
        rule("x", "other", &time("3s")),
    );
    for (rules, want) in [
        (home.clone() + &root + &other, "1s"),
        (root.clone() + &other, "2s"),
        (other.clone(), "3s"),
        (String::new(), "10s"),
    ] {
        assert_eq!(timeout(&rules, ""), want);
    }
}

#[test]
fn the_most_specific_host_wins() {
    let exact = rule("z", "default", "trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1s}}}");
    let wider = exact
        .replace("db.default.svc", "'*.default.svc")
        .replace("local,", "local',")
        .replace("name: z", "name: b")
        .replace("1s", "2s");
    let widest = exact
        .replace("db.default.svc.cluster.local", "'*'")
        .replace("name: z", "name: a")
        .replace("1s", "3s");
    for (rules, want) in
        [(exact.clone() + &wider + &widest, "1s"), (wider.clone() + &widest, "2s"), (widest.clone(), "3s")]
    {
        assert_eq!(timeout(&rules, ""), want, "{rules}");
    }
}

#[test]
fn rules_of_one_host_pool_their_subsets_and_the_first_policy_counts() {
    let first = rule("a", "default", &format!("{TOP}}}, subsets: [{{name: v1, labels: {{version: v1}}}}]"));
    let second = rule(
        "b",
        "default",
        "trafficPolicy: {connectionPool: {tcp: {connectTimeout: 9s}}}, \
         subsets: [{name: v1, labels: {version: v9}}, {name: v2, labels: {version: v2}}]",
    );
    assert_eq!(timeout(&(first.clone() + &second), "v2"), "1s");
    let bare = DB.rsplit_once("---").map(|(rest, _)| rest).unwrap_or_default();
    let tcp = "[{route: [{destination: {host: db, subset: v1}, weight: 1}, {destination: {host: db, subset: v2}, weight: 1}]}]";
    let (snapshot, _) = load(&[bare, &(first + &second), &virtual_service(tcp)]);
    let listing = short(&snapshot);
    assert!(
        listing.contains("cluster outbound|5432|v1|db: 10.1.0.1:15432; connectTimeout 1s\n"),
        "{listing}"
    );
    assert!(
        listing.contains("cluster outbound|5432|v2|db: 10.1.0.2:15432; connectTimeout 1s\n"),
        "{listing}"
    );
}

#[test]
fn a_subset_that_nobody_is_in_is_empty_and_not_missing() {
    let subsets = rule("a", "default", "subsets: [{name: v9, labels: {version: v9}}]");
    let bare = DB.rsplit_once("---").map(|(rest, _)| rest).unwrap_or_default();
    let tcp = "[{route: [{destination: {host: db, subset: v9}}]}]";
    let (snapshot, _) = load(&[bare, &subsets, &virtual_service(tcp)]);
    assert!(short(&snapshot).contains("cluster outbound|5432|v9|db: no endpoint"), "{snapshot}");
}
