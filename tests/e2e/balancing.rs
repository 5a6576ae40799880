//! `loadBalancer`: who of a cluster's endpoints is chosen.

use std::collections::BTreeMap;

use tests::client::Connection;
use tests::server;
use tests::yaml;

use crate::datapath::Datapath;
use crate::fleet::{Fleet, hello};
use crate::scene::{Scene, answer, answers, at};
use crate::shifting::must_share;

twice! {
    at_random_all_get_their_share,
    round_robin_goes_round,
    the_least_loaded_of_two_drawn_is_taken,
    one_source_address_stays_with_one_endpoint,
    connections_are_distributed_by_place_in_shares,
    passthrough_goes_where_the_client_wanted,
    an_endpoints_weight_counts,
}

fn simple(name: &str) -> String {
    format!("loadBalancer: {{simple: {name}}}")
}

fn at_random_all_get_their_share(datapath: Datapath) {
    let fleet = Fleet::new("random", datapath, 4, &simple("RANDOM"));
    must_share(&fleet.answers(1_000), &[("0", 25), ("1", 25), ("2", 25), ("3", 25)]);
}

fn round_robin_goes_round(datapath: Datapath) {
    let fleet = Fleet::new("robin", datapath, 3, &simple("ROUND_ROBIN"));
    let seen = fleet.answers(99);
    assert!(seen.len() == 3 && seen.values().all(|count| *count == 33), "{seen:?}");
    let thrice: Vec<_> = (0..6).map(|_| answer(&fleet.scene.client, fleet.vip())).collect();
    assert_eq!(thrice[..3], thrice[3..], "the same turn again");
}

fn the_least_loaded_of_two_drawn_is_taken(datapath: Datapath) {
    let fleet = Fleet::new("least", datapath, 2, &simple("LEAST_REQUEST"));
    let rule = yaml::traffic_policy("fleet", &simple("LEAST_REQUEST"), "");
    fleet.scene.daemon.apply("fleet.yaml", &(fleet.members(&[0]) + &rule));
    let held: Vec<Connection> = (0..50).filter_map(|_| fleet.hello()).collect();
    assert_eq!(held.len(), 50);
    fleet.scene.daemon.apply("fleet.yaml", &(fleet.members(&[0, 1]) + &rule));
    // Drawn twice by one connection in four, the loaded one is taken all the same, as by Envoy.
    must_share(&fleet.answers(400), &[("0", 25), ("1", 75)]);
}

fn one_source_address_stays_with_one_endpoint(datapath: Datapath) {
    let policy = "loadBalancer: {consistentHash: {useSourceIp: true}}";
    let mut fleet = Fleet::new("hash", datapath, 5, policy);
    let more: Vec<_> = (0..6).map(|n| fleet.scene.mesh.workload(&format!("w{n}"))).collect();
    more.iter().for_each(|one| fleet.scene.daemon.enroll(one, ""));
    let home = |fleet: &Fleet| {
        let everybody = std::iter::once(&fleet.scene.client).chain(&more);
        let seen = everybody.map(|one| answers(one, fleet.vip(), 20));
        seen.map(|seen| {
            assert_eq!(seen.len(), 1, "{seen:?}");
            seen.into_keys().next().expect("one")
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(fleet.answers(100).len(), 1);
    let before = home(&fleet);
    assert!(before.iter().any(|one| *one != before[0]), "all of {before:?}");
    let gone = (0..5).find(|index| index.to_string() == before[0]).expect("an endpoint");
    let rest: Vec<_> = (0..5).filter(|index| *index != gone).collect();
    let rule = yaml::traffic_policy("fleet", policy, "");
    fleet.scene.daemon.apply("fleet.yaml", &(fleet.members(&rest) + &rule));
    for (before, after) in before.iter().zip(home(&fleet)) {
        assert!(
            *before == gone.to_string() || *before == after,
            "moved from {before} to {after} without need"
        );
    }
}

fn connections_are_distributed_by_place_in_shares(datapath: Datapath) {
    let scene = Scene::with_args("places", datapath, "--locality here/a");
    let servers = [9101, 9102].map(|port| server::tcp_echo(&scene.at_two, port, &port.to_string()));
    let endpoint = |index: usize, place: &str| {
        let address = servers[index].address();
        format!("{{address: \"{}\", ports: {{tcp: {}}}, locality: {place}}}", address.ip(), address.port())
    };
    let text = format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: placed}}
spec:
  hosts: [placed.example]
  addresses: [10.96.0.80]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 9000, name: tcp, protocol: TCP}}]
  endpoints: [{}, {}]
",
        endpoint(0, "here/a"),
        endpoint(1, "there/b")
    );
    let distribute = "loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: true, \
                      distribute: [{from: here/a, to: {here/a: 80, there/b: 20}}]}}";
    let rule = yaml::traffic_policy("placed.example", distribute, "");
    scene.daemon.apply("placed.yaml", &(text + &rule));
    must_share(&answers(&scene.client, at("10.96.0.80", 9000), 1_000), &[("9101", 80), ("9102", 20)]);
}

fn passthrough_goes_where_the_client_wanted(datapath: Datapath) {
    let fleet = Fleet::new("pass", datapath, 2, &simple("PASSTHROUGH"));
    let native = fleet.scene.mesh.workload("native");
    native.claim(&fleet.scene.mesh, fleet.vip().ip());
    let _native = server::tcp_echo(&native, 9000, "native");
    assert_eq!(fleet.answers(10), BTreeMap::from([("native".to_owned(), 10)]));
    fleet.scene.must_log(&[("endpoint", &fleet.vip().to_string()), ("response_flags", "-")]);
    drop(hello(&fleet.scene.client, fleet.vip()));
    fleet.scene.daemon.must_settle();
}

fn an_endpoints_weight_counts(datapath: Datapath) {
    let fleet = Fleet::new("weight", datapath, 2, &simple("RANDOM"));
    let members = fleet.members(&[0, 1]);
    let heavy = members
        .replace("version: v1}}", "version: v1}, weight: 3}")
        .replace("version: v0}}", "version: v0}, weight: 1}");
    assert_ne!(members, heavy);
    let rule = yaml::traffic_policy("fleet", &simple("RANDOM"), "");
    fleet.scene.daemon.apply("fleet.yaml", &(heavy + &rule));
    must_share(&fleet.answers(800), &[("0", 25), ("1", 75)]);
}
