//! Which listeners the daemon must carry, and why.

use super::*;

/// A ServiceEntry called `NAME.x` at its own address, with one endpoint.
fn entry(name: &str, address: &str, annotations: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}, annotations: {{{annotations}}}}}, \
         spec: {{hosts: [{name}.x], addresses: [{address}], resolution: STATIC, ports: [{{number: 80, name: tcp}}], \
         endpoints: [{{address: 10.1.0.1}}]}}}}\n---\n"
    )
}

/// A VirtualService that sends half of `FROM.x` to `TO.x`.
fn shift(from: &str, to: &str, annotations: &str, conditions: &str) -> String {
    let arm = |name: &str| format!("{{destination: {{host: {name}.x}}, weight: 1}}");
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: from-{from}, annotations: {{{annotations}}}}}, \
         spec: {{hosts: [{from}.x], tcp: [{{{conditions} route: [{}, {}]}}]}}}}\n---\n",
        arm(from),
        arm(to)
    )
}

/// A DestinationRule for `NAME.x` with that `tcp` pool.
fn pool(name: &str, tcp: &str, annotations: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {name}, annotations: {{{annotations}}}}}, \
         spec: {{host: {name}.x, trafficPolicy: {{connectionPool: {{tcp: {{{tcp}}}}}}}}}}}\n---\n"
    )
}

/// The verdict on each captured address: `NAME direct`, `NAME steer: REASON`.
fn verdicts(yaml: &str, settings: &Settings) -> String {
    let mut store = Store::new();
    store.replace("a.yaml", yaml);
    let (snapshot, _) = compile(store.resources(), &Snapshot::default(), settings);
    let listing = snapshot.to_string();
    let heads = listing.lines().filter(|line| line.contains(".x:80, "));
    let shown = heads.map(|line| line.split_once(' ').unwrap().1.replace(".x:80,", ""));
    shown.collect::<Vec<_>>().join("; ")
}

#[track_caller]
fn check_verdicts(yaml: &str, want: &str) {
    assert_eq!(verdicts(yaml, &Settings::default()), want, "{yaml}");
}

#[test]
fn the_setting_steers_everything() {
    let all = entry("a", "10.0.0.1", "shunt.dev/datapath: auto") + &entry("b", "10.0.0.2", "");
    check_verdicts(&all, "a direct; b direct");
    let settings = Settings { steer_all: true, ..Settings::default() };
    assert_eq!(verdicts(&all, &settings), "a steer: --datapath steer; b steer: --datapath steer");
}

#[test]
fn an_annotation_steers_what_its_resource_is_part_of() {
    let (steer, b) = ("shunt.dev/datapath: steer", entry("b", "10.0.0.2", ""));
    let of_entry = "a steer: shunt.dev/datapath: steer on ServiceEntry default/a; b direct";
    check_verdicts(&(entry("a", "10.0.0.1", steer) + &b), of_entry);
    check_verdicts(&(entry("a", "10.0.0.1", "shunt.dev/datapath: auto") + &b), "a direct; b direct");
    let plain = entry("a", "10.0.0.1", "") + &b;
    let of_rule = "a steer: shunt.dev/datapath: steer on VirtualService default/from-a; b direct";
    check_verdicts(&(plain.clone() + &shift("a", "b", steer, "")), of_rule);
    check_verdicts(&(plain + &shift("a", "b", steer, "match: [{gateways: [edge]}],")), "a direct; b direct");
    let service =
        DB.replace("{name: db},\n spec", "{name: db, annotations: {shunt.dev/datapath: steer}},\n spec");
    let (snapshot, problems) = load(&[&service]);
    assert_eq!(problems, []);
    let verdict = "db:5432, steer: shunt.dev/datapath: steer on Service default/db\n";
    assert!(short(&snapshot).contains(verdict), "{snapshot}");
}

#[test]
fn what_the_kernel_cannot_know_or_keep_is_steered() {
    let both = entry("a", "10.0.0.1", "") + &entry("b", "10.0.0.2", "");
    let from = shift("a", "b", "", "match: [{sourceSubnet: 10.0.0.0/8}],");
    let accepted = "a steer: sourceSubnet is known only once a connection is accepted; b direct";
    check_verdicts(&(both.clone() + &from), accepted);
    let short = "connectTimeout of outbound|80||b.x is below 1s, which the kernel cannot keep";
    let quick = pool("b", "connectTimeout: 999ms", "");
    check_verdicts(&(both.clone() + &quick), &format!("a direct; b steer: {short}"));
    let shifted = both.clone() + &quick + &shift("a", "b", "", "");
    check_verdicts(&shifted, &format!("a steer: {short}; b steer: {short}"));
    check_verdicts(&(both.clone() + &pool("b", "connectTimeout: 1s", "")), "a direct; b direct");
    let nobody = both.replace("[{address: 10.1.0.1}]", "[]");
    check_verdicts(&(nobody + &quick), "a direct; b direct");
    check_verdicts(
        &entry("a", "'2001:db8::1'", ""),
        "a steer: the endpoint 10.1.0.1:80 is of another address family",
    );
}

#[test]
fn an_overflow_that_closes_is_steered() {
    let limit = pool("a", "maxConnections: 3", "");
    let why = "a steer: shunt.dev/overflow: close, and outbound|80||a.x has a limit";
    let closes = Settings { overflow_closes: true, ..Settings::default() };
    for (annotation, limit, settings, want) in [
        ("shunt.dev/overflow: close", limit.as_str(), &Settings::default(), why),
        ("shunt.dev/overflow: close", "", &Settings::default(), "a direct"),
        ("shunt.dev/overflow: refuse", &limit, &Settings::default(), "a direct"),
        ("", &limit, &Settings::default(), "a direct"),
        ("", &limit, &closes, why),
        ("shunt.dev/overflow: refuse", &limit, &closes, "a direct"),
    ] {
        let got = verdicts(&(entry("a", "10.0.0.1", annotation) + limit), settings);
        assert_eq!(got, want, "{annotation} {limit}");
    }
}

#[test]
fn a_limit_is_counted_in_one_place() {
    let entries = |first: &str| {
        let others = ["b", "c", "d"].iter().zip(2..);
        let others = others.map(|(name, last)| entry(name, &format!("10.0.0.{last}"), ""));
        entry("a", "10.0.0.1", first) + &others.collect::<String>()
    };
    let shared = |cluster: &str, by: &str| {
        format!(
            "steer: the daemon counts the connections of outbound|80||{cluster}.x: it carries those of {by}.x:80"
        )
    };
    let limits = pool("b", "maxConnections: 3", "") + &pool("c", "maxConnections: 3", "");
    let chain = limits + &shift("a", "b", "", "") + &shift("b", "c", "", "");
    check_verdicts(&(entries("") + &chain), "a direct; b direct; c direct; d direct");
    let steered = "a steer: shunt.dev/datapath: steer on ServiceEntry default/a";
    let want = format!("{steered}; b {}; c {}; d direct", shared("b", "a"), shared("c", "b"));
    check_verdicts(&(entries("shunt.dev/datapath: steer") + &chain), &want);
    // What is never drawn counts nothing.
    let never = chain.replace("{host: b.x}, weight: 1}]", "{host: b.x}, weight: 0}]");
    check_verdicts(
        &(entries("shunt.dev/datapath: steer") + &never),
        &format!("{steered}; b direct; c direct; d direct"),
    );
}

#[test]
fn a_limit_at_addresses_of_both_families_is_steered_as_a_whole() {
    let both = entry("a", "10.0.0.1, '2001:db8::1'", "");
    let family = "a steer: the endpoint 10.1.0.1:80 is of another address family";
    check_verdicts(&both, &format!("a direct; {family}"));
    let shared = |other: &str| {
        format!(
            "a steer: the daemon counts the connections of outbound|80||a.x: it carries those of a.x:80 over {other}"
        )
    };
    let limit = pool("a", "maxConnections: 3", "");
    check_verdicts(&(both.clone() + &limit), &format!("{}; {family}", shared("IPv6")));
    let v6 = both.replace("{address: 10.1.0.1}", "{address: '2001:db8::2'}");
    let family = family.replace("10.1.0.1:80", "[2001:db8::2]:80");
    check_verdicts(&(v6 + &limit), &format!("{family}; {}", shared("IPv4")));
    let mixed = both.replace("{address: 10.1.0.1}", "{address: 10.1.0.1}, {address: '2001:db8::2'}");
    let v4 = family.replace("[2001:db8::2]:80", "10.1.0.1:80");
    check_verdicts(&(mixed + &limit), &format!("{family}; {v4}"));
}

#[test]
fn a_gateway_shares_what_is_counted_for_the_node() {
    let edge = resource("Gateway", "{servers: [{port: {number: 1, name: a, protocol: TCP}, hosts: ['*']}]}");
    let bound = resource(
        "VirtualService",
        "{hosts: ['*'], gateways: [test], tcp: [{route: [{destination: {host: a.x}}]}]}",
    );
    let all = entry("a", "10.0.0.1", "") + &edge + "---\n" + &bound + "---\n";
    let limit = |scope: &str| pool("a", "maxConnections: 3", scope);
    check_verdicts(&(all.clone() + &limit("")), "a direct");
    let want = "a steer: the daemon counts the connections of outbound|80||a.x: it carries those of gateway default/test:1";
    check_verdicts(&(all + &limit("shunt.dev/limit-scope: node")), want);
}

#[test]
fn a_gateway_passes_nothing_through() {
    let edge = resource("Gateway", "{servers: [{port: {number: 1, name: a, protocol: TCP}, hosts: ['*']}]}");
    let bound = resource(
        "VirtualService",
        "{hosts: ['*'], gateways: [test], tcp: [{route: [{destination: {host: a.x}}]}]}",
    );
    let rule =
        resource("DestinationRule", "{host: a.x, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}");
    let all = [entry("a", "10.0.0.1", ""), edge, rule, bound];
    let texts: Vec<_> = all.iter().map(String::as_str).collect();
    let name = "VirtualService default/test";
    check_problem(&texts, name, "tcp[0].route[0].destination", "the gateway itself", Severity::Warning);
    let (snapshot, _) = load(&texts);
    let to = |listener: &crate::Listener| listener.rules[0].route.destinations[0].cluster.to_string();
    assert!(to(snapshot.gateways.values().next().unwrap()).contains("missing, PASSTHROUGH"));
    assert!(to(snapshot.listeners.values().next().unwrap()).contains("the original destination"));
}
