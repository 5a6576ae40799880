//! ServiceEntries together: who is reached at any address, who sees whom, and what several say of one host.

use std::{collections::BTreeSet, sync::Arc};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{ClusterKind, ClusterName, Door, Flow, Sniffed, SteerReason, Workload, route};

const TLS: &str = "ports: [{number: 443, name: tls, protocol: TLS}]";
const TCP: &str = "ports: [{number: 443, name: tcp, protocol: TCP}]";

/// ServiceEntries of these names and specs, each in a file of its own.
fn entries<S: AsRef<str>>(all: &[(&str, S)]) -> Vec<String> {
    let one = |(name, spec): &(&str, S)| {
        resource("ServiceEntry", &format!("{{{}}}", spec.as_ref()))
            .replace("name: test}, s", &format!("name: {name}}}, s"))
    };
    all.iter().map(one).collect()
}

fn loaded(texts: &[String]) -> (Snapshot, Vec<Problem>) {
    load(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The rules at any IPv4 address.
fn anywhere(snapshot: &Snapshot) -> Vec<String> {
    let range = snapshot.subnets.iter().find(|range| range.subnet.to_string() == "0.0.0.0/0");
    let rules = range.map(|range| range.listener.rules.iter().map(ToString::to_string).collect());
    rules.unwrap_or_default()
}

/// Where a workload of `namespace` gets who dials `destination` and says `sniffed`.
fn reached(
    snapshot: &Snapshot,
    namespace: &str,
    destination: &str,
    sniffed: &Sniffed,
) -> Option<ClusterName> {
    let workload =
        Workload { name: "client".to_owned(), namespace: namespace.to_owned(), labels: Default::default() };
    let source = "10.2.0.7:1".parse().unwrap();
    let destination = destination.parse().unwrap();
    let flow = Flow { door: Door::Mesh, workload: &workload, source, destination, sniffed };
    let route = route::select(snapshot, &flow).unwrap()?;
    Some(route::draw(route, 0).name.clone())
}

#[test]
fn who_dials_an_address_of_the_entrys_own_has_said_where_to_go() {
    let (of_its_own, port) = ("addresses: [203.0.113.5, 203.0.113.64/26]", "targetPort: 8443");
    let http = "ports: [{number: 443, name: http, protocol: HTTP}]";
    for ports in [TLS, TCP, http] {
        let (snapshot, problems) =
            loaded(&entries(&[("a", format!("hosts: ['*.a.test'], {of_its_own}, {ports}"))]));
        assert_eq!(problems, []);
        let text = snapshot.to_string();
        assert!(text.contains("203.0.113.5:443 *.a.test:443, direct"), "{text}");
        assert!(text.ends_with("cluster outbound|443||*.a.test: the original destination\n"), "{text}");
        let ports = ports.replace("}]", &format!(", {port}}}]"));
        let (snapshot, _) = loaded(&entries(&[("a", format!("hosts: ['*.a.test'], {of_its_own}, {ports}"))]));
        let name = ClusterName::outbound(443, "", "*.a.test");
        assert_eq!(snapshot.clusters[&name].port, Some(8443));
        let listener = &snapshot.listeners[&"203.0.113.5:443".parse().unwrap()];
        assert_eq!(listener.steer, Some(SteerReason::TargetPort(name)));
        assert_eq!(listener.sniff, Default::default());
    }
    // The same if another resource brings the address.
    let two = entries(&[
        ("a", format!("hosts: [a.test], {TLS}")),
        ("b", format!("hosts: [a.test], addresses: [203.0.113.5], {TLS}")),
    ]);
    let (snapshot, problems) = loaded(&two);
    assert_eq!(problems, []);
    assert_eq!(snapshot.clusters.values().next().unwrap().kind, ClusterKind::OriginalDestination);
    assert_eq!((snapshot.listeners.len(), snapshot.subnets.len()), (1, 0));
}

#[test]
fn a_name_leads_to_the_cluster_that_the_address_leads_to() {
    let limit = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, \
                 spec: {host: a.test, trafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}}}}";
    let mut texts = entries(&[("a", format!("hosts: [a.test], resolution: DNS, {TLS}"))]);
    texts.push(limit.to_owned());
    let (snapshot, problems) = loaded(&texts);
    assert_eq!(problems, []);
    let (_, own) = snapshot.listeners.iter().next().unwrap();
    let any = &snapshot.subnets[0].listener;
    assert!(Arc::ptr_eq(
        &own.rules[0].route.destinations[0].cluster,
        &any.rules[0].route.destinations[0].cluster
    ));
    // A limit is counted in one place, and the one at any address has to be the daemon's.
    let name = ClusterName::outbound(443, "", "a.test");
    assert_eq!(own.steer, Some(SteerReason::SharedLimit(name, "*:443".to_owned())));
}

#[test]
fn a_port_taken_whole_has_rules_and_annotations_of_its_own() {
    let rule = resource(
        "VirtualService",
        "{hosts: [a.test], tcp: [{match: [{destinationSubnets: [203.0.113.0/24]}], route: [{destination: {host: db, port: {number: 5432}}}]}]}",
    );
    let texts =
        [vec![DB.to_owned()], entries(&[("a", format!("hosts: [a.test], {TCP}"))]), vec![rule]].concat();
    let (snapshot, _) = loaded(&texts);
    let want = [
        "if destination in 203.0.113.0/24 -> 100% outbound|5432||db.default.svc.cluster.local",
        "-> 100% outbound|443||a.test",
    ];
    assert_eq!(anywhere(&snapshot), want);
    assert_eq!(snapshot.subnets[0].listener.steer, None);

    let annotated = |text: &str| texts[1].replace("name: a}", &format!("name: a, annotations: {{{text}}}}}"));
    let limit = resource(
        "DestinationRule",
        "{host: a.test, trafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}}}",
    );
    for (annotation, want) in [
        ("shunt.dev/datapath: steer", SteerReason::Annotation("ServiceEntry default/a".to_owned())),
        ("shunt.dev/overflow: close", SteerReason::OverflowCloses(ClusterName::outbound(443, "", "a.test"))),
    ] {
        let (snapshot, _) = loaded(&[annotated(annotation), limit.clone()]);
        assert_eq!(snapshot.subnets[0].listener.steer, Some(want));
    }
}

#[test]
fn a_gateway_leads_to_names_that_are_looked_up() {
    let edge = resource("Gateway", "{servers: [{port: {number: 9, name: t, protocol: TCP}, hosts: ['*']}]}");
    let rule = resource(
        "VirtualService",
        "{hosts: ['*'], gateways: [test], tcp: [{route: [{destination: {host: a.test}}]}]}",
    );
    let with = |resolution: &str, ports: &str| {
        let mut texts = entries(&[("a", format!("hosts: [a.test], resolution: {resolution}, {ports}"))]);
        texts.extend([edge.clone(), rule.clone()]);
        let mut store = Store::new();
        texts
            .iter()
            .enumerate()
            .for_each(|(index, text)| drop(store.replace(&format!("{index}.yaml"), text)));
        store.resolve("a.test", vec!["203.0.113.9".parse().unwrap()]);
        let (snapshot, problems) = compile(store.resources(), &Snapshot::default(), &Settings::default());
        let listener = snapshot.gateways.values().next().unwrap().clone();
        (listener.rules[0].route.destinations[0].cluster.clone(), problems)
    };
    let (cluster, problems) = with("DNS", TCP);
    assert_eq!(cluster.to_string(), "cluster outbound|443||a.test: 203.0.113.9:443");
    assert_eq!(problems.to_vec(), []);
    for (ports, part) in [(TLS, "the name that a client says"), (TCP, "which is the gateway itself")] {
        let (cluster, problems) = with("NONE", ports);
        assert!(matches!(cluster.kind, ClusterKind::Missing(_)), "{cluster}");
        let told = |one: &Problem| one.field == "tcp[0].route[0].destination" && one.what.contains(part);
        assert!(problems.iter().any(told), "{problems:?}");
    }
}

#[test]
fn a_selector_stands_in_for_the_name() {
    let workload = "{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: w}, \
                    spec: {address: 10.1.0.9, labels: {app: x}}}";
    let selector = "workloadSelector: {labels: {app: x}}";
    let mut texts = entries(&[(
        "a",
        format!("hosts: [a.test], addresses: [10.0.0.5], resolution: DNS, {TCP}, {selector}"),
    )]);
    texts.push(workload.to_owned());
    let (snapshot, problems) = loaded(&texts);
    assert_eq!(problems, []);
    let want = "10.0.0.5:443 a.test:443, direct
                  -> 100% outbound|443||a.test
                cluster outbound|443||a.test: 10.1.0.9:443";
    assert_eq!(lines(&snapshot.to_string()), lines(want));
}

#[test]
fn names_and_datagrams_are_for_those_who_may_see_them() {
    let both = "ports: [{number: 443, name: tls, protocol: TLS}, {number: 123, name: ntp, protocol: UDP}]";
    for (export_to, want, ways) in [
        (
            "[., other]",
            &[
                "if source namespace default and SNI a.test or source namespace other and SNI a.test -> 100% outbound|443||a.test",
            ][..],
            2,
        ),
        ("['~']", &[], 0),
        ("[]", &["if SNI a.test -> 100% outbound|443||a.test"], 2),
    ] {
        let (snapshot, problems) =
            loaded(&entries(&[("a", format!("hosts: [a.test], exportTo: {export_to}, {both}"))]));
        assert_eq!(problems, []);
        assert_eq!(
            (anywhere(&snapshot), snapshot.datagrams.len()),
            (want.iter().map(|one| (*one).to_owned()).collect(), ways)
        );
    }
}

#[test]
fn what_entries_of_one_host_disagree_on_is_told() {
    let base = format!("hosts: [a.test], resolution: STATIC, {TCP}, endpoints: [{{address: 10.1.0.1}}]");
    for (other, field, what) in [
        (base.replace("TCP", "TLS"), "ports", "port 443 is another protocol in ServiceEntry default/a"),
        (format!("hosts: [a.test], {TCP}"), "resolution", "ServiceEntry default/a finds who serves port 443"),
        (format!("{base}, exportTo: [x]"), "exportTo", "whoever may see one of them sees the host"),
    ] {
        let texts = entries(&[("a", base.clone()), ("test", other)]);
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        check_problem(&texts, "ServiceEntry default/test", field, what, Severity::Warning);
    }
    let seen = |one: &str, other: &str| {
        let texts = entries(&[
            ("a", format!("{base}, exportTo: [{one}]")),
            ("b", format!("{base}, exportTo: [{other}]")),
        ]);
        loaded(&texts).0.hosts["a.test"].exported.clone()
    };
    assert_eq!(seen("x", "."), Some(BTreeSet::from(["default".to_owned(), "x".to_owned()])));
    assert_eq!(seen("'~'", "x"), Some(BTreeSet::from(["x".to_owned()])));
    assert_eq!(seen("x", "'*'"), None);
}

#[test]
fn a_range_that_holds_every_address_takes_every_name() {
    let texts = entries(&[
        ("a", format!("hosts: [a.test], addresses: [0.0.0.0/0], {TCP}")),
        ("test", format!("hosts: [b.test], resolution: DNS, {TLS}")),
    ]);
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let what = "0.0.0.0/0:443 belongs to a.test:443, which takes all names";
    check_problem(&texts, "ServiceEntry default/test", "addresses", what, Severity::Warning);
    let (snapshot, _) = load(&texts);
    assert_eq!(anywhere(&snapshot), ["-> 100% outbound|443||a.test"]);
}

#[test]
fn several_hosts_may_pass_connections_on_by_one_port() {
    let several = format!("hosts: [a.test, b.test], addresses: [203.0.113.0/24], {TCP}");
    let (_, problems) = loaded(&entries(&[("a", several)]));
    assert!(problems.iter().all(|one| one.severity == Severity::Warning), "{problems:?}");
}

/// Labels that names of a small world are made of.
fn any_name() -> impl Strategy<Value = String> {
    vec(prop::sample::select(vec!["a", "b", "ab"]), 1..4).prop_map(|labels| labels.join(".") + ".test")
}

/// The host that a client means: itself, else the longest wildcard that has it.
fn meant<'h>(hosts: &'h BTreeSet<String>, name: &str) -> Option<&'h String> {
    let has = |host: &&String| {
        host.strip_prefix('*').is_some_and(|tail| name.ends_with(tail) && name.len() > tail.len())
    };
    hosts.get(name).or_else(|| hosts.iter().filter(has).max_by_key(|host| host.len()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_says_a_name_gets_to_the_host_that_it_means(
        hosts in vec((any_name(), any::<bool>()), 1..8),
        names in vec(any_name(), 1..8),
        resolution in prop::sample::select(vec!["NONE", "DNS"]),
    ) {
        let wild = |(name, is_wild): (String, bool)| if is_wild && resolution == "NONE" { format!("*.{name}") } else { name };
        let hosts: BTreeSet<_> = hosts.into_iter().map(wild).collect();
        let all: Vec<_> = hosts.iter().map(|host| format!("'{host}'")).collect();
        let ports = "ports: [{number: 443, name: tls, protocol: TLS}, {number: 80, name: http, protocol: HTTP}]";
        let (snapshot, problems) =
            loaded(&entries(&[("a", format!("hosts: [{}], resolution: {resolution}, {ports}", all.join(", ")))]));
        prop_assert_eq!(problems, []);
        for name in names {
            let said = Some(name.as_str().into());
            for (destination, sniffed, other, port) in [
                ("203.0.113.7:443", Sniffed::Tls(said.clone()), Sniffed::Http(said.clone()), 443),
                ("[2001:db8::7]:80", Sniffed::Http(said.clone()), Sniffed::Tls(said.clone()), 80),
            ] {
                let want = meant(&hosts, &name).map(|host| ClusterName::outbound(port, "", host));
                prop_assert_eq!(reached(&snapshot, "default", destination, &sniffed), want, "{}", name);
                prop_assert_eq!(reached(&snapshot, "default", destination, &other), None);
                prop_assert_eq!(reached(&snapshot, "default", destination, &Sniffed::Nothing), None);
            }
            prop_assert_eq!(reached(&snapshot, "default", "169.254.169.254:80", &Sniffed::Http(said)), None);
        }
    }

    #[test]
    fn an_entry_is_for_those_it_is_exported_to(
        export_to in prop_oneof![
            vec(prop::sample::select(vec![".", "a", "b"]), 0..3),
            prop::sample::select(vec!["*", "~"]).prop_map(|one| vec![one]),
        ],
        resolution in prop::sample::select(vec!["NONE", "DNS", "DNS_ROUND_ROBIN"]),
    ) {
        let list: Vec<_> = export_to.iter().map(|one| format!("'{one}'")).collect();
        let spec = format!("hosts: [a.test], exportTo: [{}], resolution: {resolution}, {TLS}", list.join(", "));
        let (snapshot, _) = loaded(&entries(&[("e", spec)]));
        for namespace in ["default", "a", "b"] {
            let sees = export_to.is_empty()
                || export_to.iter().any(|one| *one == "*" || *one == namespace || (*one == "." && namespace == "default"));
            let sniffed = Sniffed::Tls(Some("a.test".into()));
            let own = snapshot.hosts.get("a.test").map(|host| format!("{}:443", host.addresses[0]));
            for destination in own.into_iter().chain(["203.0.113.7:443".to_owned()]) {
                let found = reached(&snapshot, namespace, &destination, &sniffed);
                prop_assert_eq!(found.is_some(), sees, "{} {} {:?}", namespace, destination, export_to);
            }
        }
    }
}
