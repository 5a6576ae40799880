//! Gateways: when somebody listens, and which rules hold there.

use super::*;
use crate::ClusterName;

const EDGE: &str = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: edge}, spec: {\
     servers: [{port: {number: 31400, name: tcp, protocol: TCP}, hosts: ['*']}]}}\n---\n";

/// The listing of the gateways' listeners, with these resources next to `db`.
fn gateways(yaml: &str) -> String {
    let (snapshot, _) = load(&[DB, yaml]);
    let lines = snapshot.gateways.iter().map(|(address, listener)| format!("{address} {listener}"));
    short(lines.collect::<Vec<_>>().join("\n"))
}

/// A VirtualService at the edge.
fn bound(name: &str, hosts: &str, gateways: &str, rules: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: {name}}}, \
         spec: {{hosts: {hosts}, gateways: {gateways}, tcp: [{rules}]}}}}\n---\n"
    )
}

const TO_DB: &str = "{route: [{destination: {host: db, subset: v1}}]}";
const LISTING: &str = "0.0.0.0:31400 gateway default/edge:31400\n  -> 100% outbound|5432|v1|db";

#[test]
fn the_example_of_istios_tcp_shifting_does_what_istio_says() {
    let services = include_str!("../../../../config/examples/tcp-echo/services.yaml");
    let routing = include_str!("../../../../config/examples/tcp-echo/routing.yaml");
    let (snapshot, problems) = load(&[services, routing]);
    assert_eq!(problems, []);
    let host = "tcp-echo.default.svc.cluster.local";
    let vip = snapshot.hosts[host].addresses[0];
    let want = format!(
        "{vip}:9000 tcp-echo:9000, direct
           -> 100% outbound|9000||tcp-echo
         {vip}:9001 tcp-echo:9001, direct
           -> 100% outbound|9001||tcp-echo
         gateway 0.0.0.0:31400 gateway default/tcp-echo-gateway:31400
           -> 80% outbound|9000|v1|tcp-echo, 20% outbound|9000|v2|tcp-echo
         cluster outbound|9000|v1|tcp-echo: 127.0.0.11:9000
         cluster outbound|9000|v2|tcp-echo: 127.0.0.12:9000
         cluster outbound|9000||tcp-echo: 127.0.0.11:9000, 127.0.0.12:9000
         cluster outbound|9001||tcp-echo: 127.0.0.11:9001, 127.0.0.12:9001"
    );
    assert_eq!(lines(&short(&snapshot)), lines(&want));

    let all_to_v1 = routing.split("      weight: 80").next().unwrap_or_default();
    let (snapshot, problems) = load(&[services, all_to_v1]);
    assert_eq!(problems, []);
    let listener = &snapshot.gateways[&"0.0.0.0:31400".parse().unwrap()];
    let destinations = &listener.rules[0].route.destinations;
    assert_eq!(destinations.len(), 1);
    assert_eq!(destinations[0].cluster.name, ClusterName::outbound(9000, "v1", host));
}

#[test]
fn nobody_listens_until_a_virtual_service_is_bound() {
    assert_eq!(gateways(EDGE), "");
    assert_eq!(gateways(&(EDGE.to_owned() + &bound("a", "['*']", "[edge]", TO_DB))), LISTING);
}

#[test]
fn a_virtual_service_is_bound_by_gateway_and_by_host() {
    for (hosts, names, rules, want) in [
        ("['*']", "[edge]", TO_DB, true),
        ("['*']", "[default/edge]", TO_DB, true),
        ("['*']", "[other/edge]", TO_DB, false),
        ("[db]", "[mesh]", TO_DB, false),
        ("[db]", "[mesh, edge]", TO_DB, true),
        (
            "[db]",
            "[mesh]",
            "{match: [{gateways: [edge]}], route: [{destination: {host: db, subset: v1}}]}",
            true,
        ),
        ("['*']", "[edge]", "{match: [{port: 31400}], route: [{destination: {host: db, subset: v1}}]}", true),
        ("['*']", "[edge]", "{match: [{port: 5432}], route: [{destination: {host: db, subset: v1}}]}", false),
    ] {
        let listing = gateways(&(EDGE.to_owned() + &bound("a", hosts, names, rules)));
        assert_eq!(listing, if want { LISTING } else { "" }, "{hosts} {names} {rules}");
    }
}

#[test]
fn a_server_admits_hosts_by_name_and_namespace() {
    for (server, host, want) in [
        ("'*'", "a.example.com", true),
        ("a.example.com", "a.example.com", true),
        ("A.Example.com", "a.example.COM", true),
        ("'*.example.com'", "a.example.com", true),
        ("'a.example.com'", "'*.example.com'", true),
        ("b.example.com", "a.example.com", false),
        ("'*/*'", "a.example.com", true),
        ("'./*'", "a.example.com", true),
        ("default/a.example.com", "a.example.com", true),
        ("'other/*'", "a.example.com", false),
    ] {
        let edge = EDGE.replace("hosts: ['*']", &format!("hosts: [{server}]"));
        let listing = gateways(&(edge + &bound("a", &format!("[{host}]"), "[edge]", TO_DB)));
        assert_eq!(!listing.is_empty(), want, "{server} {host}");
    }
}

#[test]
fn the_selector_must_fit_this_gateway() {
    for (selector, want) in [
        ("{}", true),
        ("{istio: ingressgateway}", true),
        ("{istio: egressgateway}", false),
        ("{istio: ingressgateway, app: x}", false),
    ] {
        let edge = EDGE.replace("servers:", &format!("selector: {selector}, servers:"));
        let listing = gateways(&(edge + &bound("a", "['*']", "[edge]", TO_DB)));
        assert_eq!(!listing.is_empty(), want, "{selector}");
    }
}

#[test]
fn the_server_binds_where_it_says() {
    let edge = EDGE.replace("hosts:", "bind: '::1', hosts:");
    let listing = gateways(&(edge + &bound("a", "['*']", "[edge]", TO_DB)));
    assert!(listing.starts_with("[::1]:31400 "), "{listing}");
}

#[test]
fn the_first_rule_wins_entirely() {
    let two =
        "{route: [{destination: {host: db, subset: v1}}]}, {route: [{destination: {host: db, subset: v2}}]}";
    assert_eq!(gateways(&(EDGE.to_owned() + &bound("a", "['*']", "[edge]", two))), LISTING);
    let second = bound("b", "['*']", "[edge]", "{route: [{destination: {host: db, subset: v2}}]}");
    assert_eq!(gateways(&(EDGE.to_owned() + &bound("a", "['*']", "[edge]", TO_DB) + &second)), LISTING);
}

#[test]
fn the_first_gateway_has_the_address() {
    let other = EDGE.replace("name: edge", "name: later");
    let both = bound("a", "['*']", "[edge, later]", TO_DB);
    assert_eq!(gateways(&(EDGE.to_owned() + &other + &both)), LISTING);
    let only_later = bound("a", "['*']", "[later]", TO_DB);
    let listing = gateways(&(EDGE.to_owned() + &other + &only_later));
    assert!(listing.starts_with("0.0.0.0:31400 gateway default/later:31400"), "{listing}");
}

#[test]
fn a_gateway_looks_at_the_clients_address_and_not_at_its_labels() {
    let rule = "{match: [{sourceSubnet: 10.0.0.0/8, sourceLabels: {a: b}, sourceNamespace: x, \
                destinationSubnets: [1.1.1.1]}], route: [{destination: {host: db}}]}";
    assert_eq!(
        gateways(&(EDGE.to_owned() + &bound("a", "['*']", "[edge]", rule))),
        "0.0.0.0:31400 gateway default/edge:31400\n  if source in 10.0.0.0/8 -> 100% outbound|5432||db"
    );
}
