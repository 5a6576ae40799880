//! What holds for any input.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::route;

/// Pieces that YAML and the resources are made of, so that random text gets past the first lines.
const PIECES: &[&str] = &[
    "apiVersion: v1\n",
    "apiVersion: networking.istio.io/v1\n",
    "kind: Service\n",
    "kind: Pod\n",
    "kind: VirtualService\n",
    "kind: DestinationRule\n",
    "kind: ServiceEntry\n",
    "kind: WorkloadEntry\n",
    "kind: Gateway\n",
    "kind: List\n",
    "items:\n",
    "- ",
    "metadata: {name: a}\n",
    "metadata:\n",
    "  name: b\n",
    "spec:\n",
    "  hosts: [a, '*']\n",
    "  host: a\n",
    "  tcp:\n",
    "  - route:\n",
    "    - destination: {host: a, subset: v1}\n",
    "      weight: 3\n",
    "  - match: [{port: 80, destinationSubnets: [10.0.0.0/8]}]\n",
    "  gateways: [mesh, a]\n",
    "  servers: [{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}]\n",
    "  ports: [{port: 80, number: 80, name: tcp, protocol: TCP, targetPort: x}]\n",
    "  resolution: STATIC\n",
    "  resolution: DNS\n",
    "  hosts: ['*.a.test', b.test]\n",
    "  ports: [{number: 443, name: tls}, {number: 53, name: udp}, {number: 80, name: http, targetPort: 8080}]\n",
    "  exportTo: ['.', b]\n",
    "  endpoints: [{address: a.test}]\n",
    "  selector: {a: b}\n",
    "  clusterIP: None\n",
    "  addresses: [10.0.0.1, ::/0]\n",
    "  endpoints: [{address: 1.2.3.4}]\n",
    "  subsets: [{name: v1, labels: {a: b}}]\n",
    "status: {podIP: 1.2.3.4}\n",
    "metadata: {name: a, annotations: {shunt.dev/datapath: steer, shunt.dev/overflow: close}}\n",
    "  trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}, connectionPool: {tcp: {maxConnections: 3}}}\n",
    "  trafficPolicy: {outlierDetection: {}, portLevelSettings: [{port: {number: 80}}]}\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "&a ",
    "*a",
    "!x ",
    "? ",
    ": ",
    "[",
    "{",
    "}",
    "]",
    "\"",
    "'",
    "|\n",
    ">\n",
    "\t",
    "é",
    "\u{feff}",
    "null",
    "~",
    "-1",
    "99999999999999999999",
    "1.5",
    "\n",
    "<<: *a\n",
];

/// Both steps, twice, so that the second time meets what the first left.
fn survives(text: &str) {
    let mut store = Store::new();
    let settings = Settings::default();
    store.replace("a.yaml", DB);
    store.replace("b.yaml", text);
    let (first, _) = compile(store.resources(), &Snapshot::default(), &settings);
    let half: String = text.chars().take(text.chars().count() / 2).collect();
    store.replace("b.yaml", &half);
    let (second, problems) = compile(store.resources(), &first, &settings);
    let (third, again) = compile(store.resources(), &second, &settings);
    assert_eq!((third.to_string(), again), (second.to_string(), problems));
    let same = third.listeners.values().zip(second.listeners.values()).all(|(a, b)| Arc::ptr_eq(a, b));
    assert!(same && third.subnets == second.subnets && third.hosts == second.hosts);
    assert!(third.clusters.values().zip(second.clusters.values()).all(|(a, b)| Arc::ptr_eq(a, b)));
}

/// A ServiceEntry without addresses for each number.
fn entries(numbers: &[u16]) -> String {
    let one = |number: &u16| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: e{number}}}, spec: {{resolution: STATIC, \
             hosts: [e{number}.example.com], ports: [{{number: 80, name: tcp, protocol: TCP}}], endpoints: [{{address: 10.1.0.9}}]}}}}\n---\n"
        )
    };
    numbers.iter().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..400)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_text_like_yaml_is_survived(pieces in vec(prop::sample::select(PIECES), 0..40)) {
        survives(&pieces.concat());
    }

    #[test]
    fn a_good_document_survives_any_neighbour(pieces in vec(prop::sample::select(PIECES), 0..40)) {
        let mut store = Store::new();
        store.replace("a.yaml", &format!("{DB}\n---\n{}", pieces.concat()));
        prop_assert!(store.resources().services.iter().any(|one| one.key.name == "db"));
    }

    #[test]
    fn weights_are_drawn_exactly(weights in vec(0u32..50, 1..6)) {
        prop_assume!(weights.iter().sum::<u32>() > 0);
        let arms = weights.iter().enumerate().map(|(arm, weight)| {
            format!("{{destination: {{host: host{arm}}}, weight: {weight}}}")
        });
        let tcp = format!("[{{route: [{}]}}]", arms.collect::<Vec<_>>().join(", "));
        let (snapshot, _) = load(&[DB, &virtual_service(&tcp)]);
        let route = &snapshot.listeners[&"10.0.0.5:5432".parse().unwrap()].rules[0].route;
        // One draw in the middle of each of `sum` equal parts of all draws: each arm must get its weight.
        let sum = u64::from(if weights.len() == 1 { 1 } else { weights.iter().sum() });
        let part = u64::MAX / sum;
        let mut drawn = vec![0; weights.len()];
        for index in 0..sum {
            let cluster = route::draw(route, index * part + part / 2);
            drawn[route.destinations.iter().position(|one| one.cluster.name == cluster.name).unwrap()] += 1;
        }
        prop_assert_eq!(drawn, if weights.len() == 1 { vec![1] } else { weights });
    }

    #[test]
    fn hosts_keep_their_addresses_when_others_come_and_go(
        first in vec(0u16..2000, 1..40),
        second in vec(0u16..2000, 0..40),
    ) {
        let settings = Settings::default();
        let mut store = Store::new();
        store.replace("a.yaml", &entries(&first));
        let (before, _) = compile(store.resources(), &Snapshot::default(), &settings);
        store.replace("b.yaml", &entries(&second));
        let (after, _) = compile(store.resources(), &Snapshot::with_hosts(before.hosts.clone()), &settings);
        for (host, addresses) in &before.hosts {
            prop_assert_eq!(addresses, &after.hosts[host]);
        }
        let mut given: Vec<_> = after.hosts.values().flat_map(|host| &host.addresses).collect();
        given.sort();
        let count = given.len();
        given.dedup();
        prop_assert_eq!((given.len(), count), (after.hosts.len(), after.hosts.len()));
        store.replace("b.yaml", "");
        let (again, _) = compile(store.resources(), &after, &settings);
        prop_assert_eq!(again.hosts, before.hosts);
    }

    #[test]
    fn compiling_is_deterministic(pieces in vec(prop::sample::select(PIECES), 0..40)) {
        let text = pieces.concat();
        let (one, problems) = load(&[DB, &text]);
        let (two, same) = load(&[DB, &text]);
        prop_assert_eq!(one.to_string(), two.to_string());
        prop_assert_eq!(one.hosts, two.hosts);
        prop_assert_eq!(problems, same);
    }
}

#[test]
fn an_address_that_is_no_longer_free_is_given_up() {
    let settings = Settings::default();
    let mut store = Store::new();
    store.replace("a.yaml", &entries(&[1]));
    let (before, _) = compile(store.resources(), &Snapshot::default(), &settings);
    let taken = before.hosts["e1.example.com"].addresses[0];
    assert!(taken.to_string().starts_with("240.240."));
    store.replace("b.yaml", &DB.replace("10.0.0.5", &taken.to_string()));
    let (after, _) = compile(store.resources(), &before, &settings);
    assert_eq!(after.hosts["db.default.svc.cluster.local"].addresses, [taken]);
    assert_ne!(after.hosts["e1.example.com"].addresses, [taken]);
}

#[test]
fn clusters_of_the_same_name_keep_their_state() {
    let settings = Settings::default();
    let mut store = Store::new();
    store.replace("a.yaml", DB);
    let (before, _) = compile(store.resources(), &Snapshot::default(), &settings);
    store.replace("a.yaml", &DB.replace("10.1.0.2", "10.1.0.3"));
    let (after, _) = compile(store.resources(), &before, &settings);
    let (name, cluster) = before.clusters.first_key_value().unwrap();
    assert!(Arc::ptr_eq(&cluster.state, &after.clusters[name].state));
    assert_ne!(cluster.to_string(), after.clusters[name].to_string());
}
