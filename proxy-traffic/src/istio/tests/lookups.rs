//! ServiceEntries whose endpoints are names, or nobody's to know.

use super::*;

/// What a ServiceEntry with that spec compiles to once `answers` are there: names with addresses.
fn resolved(spec: &str, answers: &[(&str, &[&str])]) -> (Snapshot, Vec<Problem>) {
    let mut store = Store::new();
    store.replace("0.yaml", &resource("ServiceEntry", &format!("{{{spec}}}")));
    assert_eq!(store.problems().collect::<Vec<_>>(), Vec::<&Problem>::new(), "{spec}");
    for (name, addresses) in answers {
        store.resolve(name, addresses.iter().map(|address| address.parse().unwrap()).collect());
    }
    let (snapshot, problems) = compile(store.resources(), &Snapshot::default(), &Settings::default());
    (snapshot, problems.to_vec())
}

#[track_caller]
fn must_be(spec: &str, answers: &[(&str, &[&str])], want: &str) {
    let (snapshot, _) = resolved(spec, answers);
    assert_eq!(lines(&snapshot.to_string()), lines(want), "{spec}");
}

const TCP: &str = "ports: [{number: 5432, name: tcp, protocol: TCP}]";

#[test]
fn names_are_looked_up_and_every_address_serves() {
    let spec = format!("hosts: [db.example.com], addresses: [10.0.0.5], resolution: DNS, {TCP}");
    let cluster = "10.0.0.5:5432 db.example.com:5432, direct
                     -> 100% outbound|5432||db.example.com
                   cluster outbound|5432||db.example.com:";
    must_be(&spec, &[], &format!("{cluster} no endpoint\nlookup db.example.com, outside"));
    let answers: &[(&str, &[&str])] =
        &[("db.example.com", &["203.0.113.1", "203.0.113.2"]), ("x.test", &["203.0.113.9"])];
    must_be(
        &spec,
        answers,
        &format!("{cluster} 203.0.113.1:5432, 203.0.113.2:5432\nlookup db.example.com, outside"),
    );
    let first = spec.replace("DNS", "DNS_ROUND_ROBIN");
    must_be(&first, answers, &format!("{cluster} 203.0.113.1:5432\nlookup db.example.com, outside"));
    let inside = format!("{spec}, location: MESH_INTERNAL");
    must_be(&inside, &[], &format!("{cluster} no endpoint\nlookup db.example.com"));
    let (snapshot, _) = resolved(&spec, &[]);
    assert_eq!(snapshot.lookups["db.example.com"].allowed, ["10.0.0.5/32".parse().unwrap()]);
}

#[test]
fn an_endpoint_that_is_a_name_serves_at_all_its_addresses() {
    must_be(
        "hosts: ['*.example.com'], addresses: [10.0.0.5], resolution: DNS, \
         ports: [{number: 443, name: tls, protocol: TLS}], \
         endpoints: [{address: A.example.net, ports: {tls: 8443}, weight: 2}, {address: 203.0.113.9}]",
        &[("a.example.net", &["203.0.113.1", "203.0.113.2"])],
        "10.0.0.5:443 *.example.com:443, direct
           -> 100% outbound|443||*.example.com
         cluster outbound|443||*.example.com: 203.0.113.1:8443 weight 2, 203.0.113.2:8443 weight 2, 203.0.113.9:443
         lookup a.example.net, outside",
    );
}

#[test]
fn hosts_without_addresses_are_told_apart_by_what_clients_say() {
    let spec = "resolution: DNS, ports: [{number: 443, name: https, protocol: HTTPS}, {number: 80, name: http, protocol: HTTP}]";
    let (snapshot, problems) = resolved(&format!("hosts: [a.example.com, b.example.com], {spec}"), &[]);
    assert_eq!(problems, []);
    let any: Vec<_> = snapshot.subnets.iter().map(|one| (one.subnet.to_string(), one.port)).collect();
    let want = [("0.0.0.0/0", 80), ("::/0", 80), ("0.0.0.0/0", 443), ("::/0", 443)];
    assert_eq!(any, want.map(|(net, port)| (net.to_owned(), port)));
    let listing = |index: usize| snapshot.subnets[index].listener.to_string();
    assert_eq!(
        lines(&listing(0)),
        [
            "*:80",
            "if Host a.example.com -> 100% outbound|80||a.example.com",
            "if Host b.example.com -> 100% outbound|80||b.example.com"
        ]
    );
    assert_eq!(lines(&listing(2))[1], "if SNI a.example.com -> 100% outbound|443||a.example.com");
    let sniffs = |index: usize| {
        (snapshot.subnets[index].listener.sniff.tls, snapshot.subnets[index].listener.sniff.http)
    };
    assert_eq!((sniffs(0), sniffs(2)), ((false, true), (true, false)));
    assert_eq!(snapshot.subnets[0].listener.steer, Some(crate::SteerReason::Sniff));
    // By their own addresses they need no telling.
    let own = snapshot.listeners.iter().map(|(_, listener)| (&*listener.name, listener.steer.clone()));
    let own: Vec<_> = own.filter(|(name, _)| name.starts_with("a.")).collect();
    assert_eq!(own, [("a.example.com:80", None), ("a.example.com:443", None)]);
    assert_eq!(snapshot.http_ports, [80].into());
}

#[test]
fn the_most_specific_name_comes_first_and_the_whole_port_last() {
    let tls = "ports: [{number: 443, name: tls, protocol: TLS}], resolution: NONE";
    let entries = [
        ("whole", "hosts: [whole.test], ports: [{number: 443, name: tcp, protocol: TCP}]".to_owned()),
        ("wide", format!("hosts: ['*.test'], {tls}")),
        ("narrow", format!("hosts: ['*.b.test'], {tls}")),
        ("one", format!("hosts: [a.test], {tls}")),
    ];
    let texts = entries.map(|(name, spec)| {
        resource("ServiceEntry", &format!("{{{spec}}}")).replace("test}, s", &format!("{name}}}, s"))
    });
    let (snapshot, _) = load(&texts.each_ref().map(String::as_str));
    assert_eq!(
        lines(&snapshot.subnets[0].listener.to_string()),
        [
            "*:443",
            "if SNI a.test -> 100% outbound|443||a.test",
            "if SNI *.b.test -> 100% outbound|443||*.b.test",
            "if SNI *.test -> 100% outbound|443||*.test",
            "-> 100% outbound|443||whole.test"
        ]
    );
    let kind = |name: &str| {
        let name = crate::ClusterName::outbound(443, "", name);
        snapshot.clusters[&name].kind.clone()
    };
    assert_eq!(kind("a.test"), crate::ClusterKind::Named(None));
    assert_eq!(kind("whole.test"), crate::ClusterKind::OriginalDestination);
}

#[test]
fn without_resolution_connections_go_where_they_were_going() {
    must_be(
        &format!("hosts: [db.test], addresses: [203.0.113.5, 203.0.113.64/26], resolution: NONE, {TCP}"),
        &[],
        "203.0.113.5:5432 db.test:5432, direct
           -> 100% outbound|5432||db.test
         203.0.113.64/26:5432 db.test:5432, direct
           -> 100% outbound|5432||db.test
         cluster outbound|5432||db.test: the original destination",
    );
    must_be(
        "hosts: [db.test], ports: [{number: 5432, name: tcp, protocol: TCP, targetPort: 6432}]",
        &[],
        "0.0.0.0/0:5432 *:5432, steer: outbound|5432||db.test dials another port than its clients (targetPort)
           -> 100% outbound|5432||db.test
         ::/0:5432 *:5432, steer: outbound|5432||db.test dials another port than its clients (targetPort)
           -> 100% outbound|5432||db.test
         cluster outbound|5432||db.test: the original destination, port 6432",
    );
    must_be(
        "hosts: ['*.test'], resolution: DYNAMIC_DNS, ports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}]",
        &[],
        "0.0.0.0/0:443 *:443, steer: a rule asks for what the client says first, a TLS server name or an HTTP host
           if SNI *.test -> 100% outbound|443||*.test
         ::/0:443 *:443, steer: a rule asks for what the client says first, a TLS server name or an HTTP host
           if SNI *.test -> 100% outbound|443||*.test
         cluster outbound|443||*.test: the name that the client says, port 8443",
    );
}

#[test]
fn only_exported_namespaces_see_an_entry() {
    for (export_to, want, seen) in [
        ("['*']", "-> 100% outbound|5432||db.test", None),
        ("['.']", "if source namespace default -> 100% outbound|5432||db.test", Some(vec!["default"])),
        (
            "[b, a]",
            "if source namespace a or source namespace b -> 100% outbound|5432||db.test",
            Some(vec!["a", "b"]),
        ),
        ("['~']", "", Some(vec![])),
    ] {
        let spec = format!(
            "hosts: [db.test], addresses: [10.0.0.5], exportTo: {export_to}, resolution: STATIC, {TCP}, endpoints: [{{address: 10.1.0.1}}]"
        );
        let (snapshot, _) = resolved(&spec, &[]);
        let listener = &snapshot.listeners[&"10.0.0.5:5432".parse().unwrap()];
        assert_eq!(lines(&listener.to_string())[1..].join(""), want, "{export_to}");
        let seen = seen.map(|all| all.into_iter().map(str::to_owned).collect());
        assert_eq!(snapshot.hosts["db.test"].exported, seen, "{export_to}");
    }
}

#[test]
fn datagrams_may_go_where_their_entry_says() {
    let udp = "ports: [{number: 123, name: ntp, protocol: UDP}]";
    for (spec, want) in [
        ("addresses: [203.0.113.5], resolution: NONE", &["203.0.113.5/32"][..]),
        ("resolution: NONE", &["0.0.0.0/0", "::/0"]),
        ("resolution: STATIC, endpoints: [{address: 203.0.113.7}]", &["203.0.113.7/32"]),
        ("resolution: DNS", &["203.0.113.9/32"]),
    ] {
        let (snapshot, _) =
            resolved(&format!("hosts: [ntp.test], {spec}, {udp}"), &[("ntp.test", &["203.0.113.9"])]);
        let found: Vec<_> = snapshot.datagrams.iter().map(|(net, port)| (net.to_string(), *port)).collect();
        let want: Vec<_> = want.iter().map(|net| ((*net).to_owned(), 123)).collect();
        assert_eq!(found, want, "{spec}");
        assert!(
            snapshot
                .hosts
                .iter()
                .next()
                .is_none_or(|(_, host)| host.addresses[0].to_string() == "203.0.113.5")
        );
    }
}

#[test]
fn two_entries_on_one_port_have_an_address_each() {
    let texts = ["a", "b"].map(|name| {
        resource("ServiceEntry", &format!("{{hosts: [{name}.test], resolution: DNS, {TCP}}}"))
            .replace("name: test", &format!("name: {name}"))
    });
    let (snapshot, problems) = load(&texts.each_ref().map(String::as_str));
    assert_eq!(problems, []);
    let addresses: std::collections::BTreeSet<_> =
        snapshot.hosts.values().map(|host| host.addresses[0]).collect();
    assert_eq!((addresses.len(), snapshot.listeners.len()), (2, 2));
    assert!(snapshot.subnets.is_empty());
}
