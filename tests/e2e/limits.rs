//! `maxConnections`: never one more, and never one less than there is room for.

use std::sync::Barrier;
use std::thread;

use tests::client::{Connection, connect};
use tests::yaml;

use crate::datapath::Datapath;
use crate::fleet::{Fleet, hello, hello_here};
use crate::scene::Scene;

twice! {
    three_of_ten_connections_live_and_each_workload_has_its_own_three,
    closing_one_makes_room_for_one,
    a_limit_of_the_node_counts_all_workloads_together,
    a_limit_of_each_endpoint_counts_each_for_itself,
    a_burst_of_sixty_four_at_a_limit_of_ten_gives_exactly_ten,
    a_limit_that_is_edited_counts_what_is_open,
    refused_and_reset_and_killed_connections_give_their_room_back,
}

/// Names the fields of a limit.
fn limit(count: u32) -> String {
    format!("connectionPool: {{tcp: {{maxConnections: {count}}}}}")
}

/// Who of `count` connections live.
fn open(fleet: &Fleet, count: usize) -> Vec<Connection> {
    (0..count).filter_map(|_| fleet.hello()).collect()
}

fn three_of_ten_connections_live_and_each_workload_has_its_own_three(datapath: Datapath) {
    let mut fleet = Fleet::new("three", datapath, 2, &limit(3));
    let other = fleet.scene.mesh.workload("other");
    fleet.scene.daemon.enroll(&other, "");
    let mut mine = open(&fleet, 10);
    let theirs: Vec<_> = (0..10).filter_map(|_| hello(&other, fleet.vip())).collect();
    assert_eq!((mine.len(), theirs.len()), (3, 3));
    datapath.must_turn_away(&fleet.scene.client, fleet.vip());
    mine.iter_mut().for_each(|one| drop(one.send("still\n").line()));
    let line = fleet.scene.must_log(&[("response_flags", "UO"), ("workload", "default/other")]);
    assert_eq!((&line["cause"], &line["endpoint"]), (&"overflow".into(), &"-".into()));
    let turned_away = |workload: &str| {
        let labels = [("response_flags", "UO"), ("source_workload", workload)];
        fleet.scene.daemon.metrics().sum("istio_tcp_connections_opened_total", &labels)
    };
    tests::wait::until("seven and eight are counted", || {
        (turned_away("other"), turned_away("client")) == (7, 8)
    });
    drop((mine, theirs));
    fleet.scene.daemon.must_settle();
}

fn closing_one_makes_room_for_one(datapath: Datapath) {
    let fleet = Fleet::new("room", datapath, 2, &limit(3));
    let mut all = open(&fleet, 5);
    assert_eq!(all.len(), 3);
    for _ in 0..20 {
        drop(all.remove(0));
        all.push(tests::wait::find("there is room again", || fleet.hello()));
        datapath.must_turn_away(&fleet.scene.client, fleet.vip());
    }
}

fn a_limit_of_the_node_counts_all_workloads_together(datapath: Datapath) {
    let rule = yaml::traffic_policy("fleet", &limit(3), "shunt.dev/limit-scope: node");
    let mut fleet = Fleet::with(Scene::echo("node", datapath), 2, &rule);
    let other = fleet.scene.mesh.workload("other");
    fleet.scene.daemon.enroll(&other, "");
    let mine = open(&fleet, 2);
    let theirs: Vec<_> = (0..5).filter_map(|_| hello(&other, fleet.vip())).collect();
    assert_eq!((mine.len(), theirs.len()), (2, 1));
    drop(mine);
    let more = tests::wait::find("there is room again", || hello(&other, fleet.vip()));
    drop((more, theirs));
}

fn a_limit_of_each_endpoint_counts_each_for_itself(datapath: Datapath) {
    let policy = limit(3) + ", loadBalancer: {simple: RANDOM}";
    let rule = yaml::traffic_policy("fleet", &policy, "shunt.dev/limit-scope: endpoint");
    let fleet = Fleet::with(Scene::echo("endpoint", datapath), 2, &rule);
    // Whichever endpoint is drawn may be full while the other is not; a hundred draws miss neither.
    let all = open(&fleet, 100);
    let each = |index: usize| fleet.accepted(index);
    assert_eq!((all.len(), each(0), each(1)), (6, 3, 3));
}

fn a_burst_of_sixty_four_at_a_limit_of_ten_gives_exactly_ten(datapath: Datapath) {
    let fleet = Fleet::new("burst", datapath, 2, &limit(10));
    for round in 0..100 {
        let start = Barrier::new(64);
        let live: Vec<Connection> = fleet.scene.client.enter(|| {
            thread::scope(|scope| {
                let dial = || {
                    start.wait();
                    hello_here(fleet.vip())
                };
                let all: Vec<_> = (0..64).map(|_| scope.spawn(dial)).collect();
                all.into_iter().filter_map(|one| one.join().expect("no panic")).collect()
            })
        });
        assert_eq!(live.len(), 10, "round {round}");
        drop(live);
        fleet.scene.daemon.must_settle();
    }
}

fn a_limit_that_is_edited_counts_what_is_open(datapath: Datapath) {
    let fleet = Fleet::new("edited", datapath, 2, &limit(3));
    let mut all = open(&fleet, 3);
    let apply = |count: u32| {
        let text = fleet.members(&[0, 1]) + &yaml::traffic_policy("fleet", &limit(count), "");
        fleet.scene.daemon.apply("fleet.yaml", &text);
    };
    apply(5);
    all.extend(open(&fleet, 4));
    assert_eq!(all.len(), 5);
    apply(2);
    drop(all.split_off(2));
    datapath.must_turn_away(&fleet.scene.client, fleet.vip());
    all.iter_mut().for_each(|one| drop(one.send("still\n").line()));
    drop(all);
    tests::wait::until("two live again", || open(&fleet, 4).len() == 2);
}

fn refused_and_reset_and_killed_connections_give_their_room_back(datapath: Datapath) {
    let mut fleet = Fleet::new("back", datapath, 1, &limit(3));
    fleet.stop(0);
    (0..10).for_each(|_| assert!(fleet.hello().is_none(), "nobody serves"));
    fleet.serve(0);
    open(&fleet, 3).into_iter().for_each(Connection::reset);
    tests::wait::until("the resets are forgotten", || open(&fleet, 4).len() == 3);
    let script =
        format!("exec 3<>/dev/tcp/{}/9000; echo hello >&3; head -1 <&3; kill -9 $$", fleet.vip().ip());
    for _ in 0..5 {
        tests::wait::find("there is room again", || fleet.hello());
        let mut bash = std::process::Command::new("timeout");
        let output = fleet.scene.client.output(bash.args(["20", "bash", "-c", &script])).expect("start bash");
        let said = String::from_utf8_lossy(&output.stdout);
        tests::wait::until("the killed are forgotten", || open(&fleet, 4).len() == 3);
        assert!(said.is_empty() || said == "0 hello\n", "{said}");
    }
    fleet.scene.daemon.must_settle();
}

#[test]
fn an_overflow_closes_where_an_annotation_says_so() {
    let scene = Scene::echo("closes", Datapath::Direct);
    let fleet = Fleet::with(scene, 1, &yaml::traffic_policy("fleet", &limit(2), ""));
    let text = std::fs::read_to_string(fleet.scene.daemon.config("fleet.yaml")).expect("the fleet");
    let closing =
        text.replacen("{name: fleet}", "{name: fleet, annotations: {shunt.dev/overflow: close}}", 1);
    fleet.scene.daemon.apply("fleet.yaml", &closing);
    let _two = open(&fleet, 2);
    connect(&fleet.scene.client, fleet.vip()).must_be_closed();
    fleet.scene.daemon.must_log(&[("response_flags", "UO"), ("path", "proxy")]);
}
