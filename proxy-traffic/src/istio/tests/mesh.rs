//! `tcp` rules on the listeners of services.

use super::*;

const V1: &str = "route: [{destination: {host: db, subset: v1}}]";
const V2: &str = "route: [{destination: {host: db, subset: v2}}]";

#[test]
fn a_service_without_rules_goes_to_itself() {
    check(
        &[DB],
        "10.0.0.5:5432 db:5432, direct
           -> 100% outbound|5432||db
         cluster outbound|5432||db: 10.1.0.1:15432, 10.1.0.2:15432",
    );
}

#[test]
fn weights_are_shares_of_their_sum() {
    for (weights, want) in [
        ([80, 20], "-> 80% outbound|5432|v1|db, 20% outbound|5432|v2|db"),
        ([100, 0], "-> 100% outbound|5432|v1|db, 0% outbound|5432|v2|db"),
        ([1, 3], "-> 25% outbound|5432|v1|db, 75% outbound|5432|v2|db"),
        ([300, 100], "-> 75% outbound|5432|v1|db, 25% outbound|5432|v2|db"),
        ([0, 7], "-> 0% outbound|5432|v1|db, 100% outbound|5432|v2|db"),
    ] {
        let [one, two] = weights;
        let tcp = format!(
            "[{{route: [{{destination: {{host: db, subset: v1}}, weight: {one}}}, \
             {{destination: {{host: db, subset: v2}}, weight: {two}}}]}}]"
        );
        check_rules(&tcp, want);
    }
}

#[test]
fn the_weight_of_an_only_destination_is_ignored() {
    for weight in ["", ", weight: 0", ", weight: 5"] {
        let tcp = format!("[{{route: [{{destination: {{host: db, subset: v1}}{weight}}}]}}]");
        check_rules(&tcp, "-> 100% outbound|5432|v1|db");
    }
}

#[test]
fn rules_keep_their_order_and_the_service_comes_last() {
    check_rules(
        &format!(
            "[{{match: [{{sourceLabels: {{app: a}}}}], {V1}}}, {{match: [{{sourceNamespace: b}}], {V2}}}]"
        ),
        "if source label app=a -> 100% outbound|5432|v1|db
         if source namespace b -> 100% outbound|5432|v2|db
         -> 100% outbound|5432||db",
    );
}

#[test]
fn a_rule_that_takes_everything_ends_the_list() {
    for conditions in ["", "match: [{}],", "match: [{port: 5432}],", "match: [{gateways: [mesh]}],"] {
        check_rules(&format!("[{{{conditions} {V1}}}, {{{V2}}}]"), "-> 100% outbound|5432|v1|db");
    }
}

#[test]
fn conditions_of_a_match_are_anded_and_matches_ored() {
    check_rules(
        &format!(
            "[{{match: [{{destinationSubnets: [10.0.0.0/24, 10.9.9.9], sourceSubnet: 10.2.0.7/16, \
             sourceNamespace: a, sourceLabels: {{x: y, app: b}}}}, {{sourceNamespace: c}}], {V1}}}]"
        ),
        "if destination in 10.0.0.0/24|10.9.9.9/32 and source in 10.2.0.0/16 and source namespace a and source \
         label app=b and source label x=y or source namespace c -> 100% outbound|5432|v1|db
         -> 100% outbound|5432||db",
    );
}

#[test]
fn a_match_after_one_without_conditions_is_dropped() {
    check_rules(
        &format!("[{{match: [{{destinationSubnets: [10.0.0.0/8]}}, {{}}, {{sourceNamespace: a}}], {V1}}}]"),
        "if destination in 10.0.0.0/8 or any -> 100% outbound|5432|v1|db",
    );
}

#[test]
fn port_and_gateways_are_decided_when_compiling() {
    let service = "-> 100% outbound|5432||db";
    let v1 = "-> 100% outbound|5432|v1|db";
    for (conditions, want) in [
        ("{port: 5432}", v1),
        ("{port: 1}", service),
        ("{port: 1}, {port: 5432}", v1),
        ("{gateways: [edge]}", service),
        ("{gateways: [edge, mesh]}", v1),
        ("{gateways: [mesh], port: 1}", service),
    ] {
        check_rules(&format!("[{{match: [{conditions}], {V1}}}]"), want);
    }
}

#[test]
fn gateways_of_the_virtual_service_hold_where_a_match_names_none() {
    let service = "-> 100% outbound|5432||db";
    let v1 = "-> 100% outbound|5432|v1|db";
    for (gateways, conditions, want) in [
        ("[edge]", "", service),
        ("[edge, mesh]", "", v1),
        ("[edge]", "match: [{gateways: [mesh]}],", v1),
        ("[mesh]", "match: [{gateways: [edge]}],", service),
        ("[other/edge]", "match: [{port: 5432}],", service),
    ] {
        let spec = format!("{{hosts: [db], gateways: {gateways}, tcp: [{{{conditions} {V1}}}]}}");
        check_listener(&resource("VirtualService", &spec), want);
    }
}

#[test]
fn hosts_are_short_full_or_wildcards_in_any_case() {
    let service = "-> 100% outbound|5432||db";
    let v1 = "-> 100% outbound|5432|v1|db";
    for (host, want) in [
        ("db", v1),
        ("DB", v1),
        ("db.default.svc.cluster.local", v1),
        ("'*.default.svc.cluster.local'", v1),
        ("'*.svc.cluster.local'", v1),
        ("db.default", service),
        ("'*.other.svc.cluster.local'", service),
        ("other", service),
    ] {
        check_listener(&resource("VirtualService", &format!("{{hosts: [{host}], tcp: [{{{V1}}}]}}")), want);
    }
}

#[test]
fn the_oldest_virtual_service_comes_first_then_the_name() {
    let named = |name: &str, created: &str, route: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, \
             metadata: {{name: {name}, creationTimestamp: {created}}}, spec: {{hosts: [db], \
             tcp: [{{match: [{{sourceNamespace: {name}}}], {route}}}]}}}}\n---\n"
        )
    };
    let young = named("a", "'2026-01-02T00:00:00Z'", V1);
    let old = named("b", "'2026-01-01T00:00:00Z'", V2);
    let from_file = named("c", "null", V1);
    check_listener(
        &(young + &old + &from_file),
        "if source namespace c -> 100% outbound|5432|v1|db
         if source namespace b -> 100% outbound|5432|v2|db
         if source namespace a -> 100% outbound|5432|v1|db
         -> 100% outbound|5432||db",
    );
}

#[test]
fn a_destination_without_port_means_the_only_port_else_the_listeners() {
    let many = |ports: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: many}}, spec: {{clusterIP: 10.0.0.6, \
             selector: {{app: many}}, ports: [{ports}]}}}}\n---\n"
        )
    };
    let one = many("{port: 7}");
    let with = many("{name: a, port: 7}, {name: b, port: 5432}");
    let without = many("{name: a, port: 7}, {name: b, port: 8}");
    for (service, port, want) in [
        (&one, "", "-> 100% outbound|7||many"),
        (&with, "", "-> 100% outbound|5432||many"),
        (&with, ", port: {number: 7}", "-> 100% outbound|7||many"),
        (&without, "", "-> 100% outbound|5432||many"),
    ] {
        let tcp = format!("[{{route: [{{destination: {{host: many{port}}}}}]}}]");
        check_listener(&format!("{service}{}", virtual_service(&tcp)), want);
    }
}

#[test]
fn what_does_not_exist_keeps_its_share_and_says_so() {
    for (destination, want) in [
        (
            "host: nobody",
            "cluster outbound|5432||nobody: missing, no Service or ServiceEntry has the host nobody",
        ),
        (
            "host: db, subset: v9",
            "cluster outbound|5432|v9|db: missing, DestinationRule default/db has no subset v9",
        ),
        ("host: db, port: {number: 1}", "cluster outbound|1||db: missing, db has no TCP port 1"),
    ] {
        let tcp = format!(
            "[{{route: [{{destination: {{{destination}}}, weight: 1}}, {{destination: {{host: db}}, weight: 1}}]}}]"
        );
        let (snapshot, _) = load(&[DB, &virtual_service(&tcp)]);
        let listing = short(&snapshot);
        assert!(listing.lines().any(|line| line == want), "{want} in {listing}");
        assert!(listing.contains("-> 50% "), "{listing}");
    }
}

#[test]
fn tcp_rules_leave_ports_of_other_protocols_alone() {
    for (port, applies) in [
        ("{name: tcp-db, port: 5432}", true),
        ("{name: mysql, port: 5432}", true),
        ("{port: 5432}", true),
        ("{name: anything, port: 5432}", true),
        ("{name: http, port: 5432, appProtocol: tcp}", true),
        ("{name: http, port: 5432}", false),
        ("{name: GRPC-web, port: 5432}", false),
        ("{name: https-db, port: 5432}", false),
        ("{name: tcp, port: 5432, appProtocol: kubernetes.io/h2c}", false),
    ] {
        let service = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: db}}, spec: {{clusterIP: 10.0.0.5, \
             selector: {{app: db}}, ports: [{port}]}}}}"
        );
        let db = DB.split_once("---").map(|(_, rest)| rest).unwrap_or_default();
        let (snapshot, _) = load(&[&service, db, &virtual_service(&format!("[{{{V1}}}]"))]);
        let want = if applies { "-> 100% outbound|5432|v1|db" } else { "-> 100% outbound|5432||db" };
        assert!(short(&snapshot).contains(want), "{port}: {snapshot}");
    }
}
