//! The books: whoever carries a connection, it is counted while it lives, and nothing is left of it afterwards.

use serde_json::Value;

use tests::client::{Connection, connect};
use tests::daemon::field;
use tests::yaml;

use crate::datapath::Datapath;
use crate::fleet::Fleet;
use crate::scene::{Scene, answers, at};
use crate::shifting::must_share;

twice! {
    bytes_of_an_open_connection_are_counted_while_it_lives,
    connects_refusals_resets_kills_and_edits_leave_nothing_open,
    ipv6_is_carried_end_to_end,
}

fn bytes_of_an_open_connection_are_counted_while_it_lives(datapath: Datapath) {
    let scene = Scene::echo("live", datapath);
    let mut long = connect(&scene.client, scene.vip());
    for round in 1..=3 {
        long.must_echo("hello", "one hello");
        tests::wait::until("the bytes are counted", || {
            let metrics = scene.daemon.metrics();
            let bytes = ["istio_tcp_received_bytes_total", "istio_tcp_sent_bytes_total"];
            bytes.map(|name| metrics.sum(name, &[("destination_version", "v1")])) == [6 * round, 10 * round]
        });
    }
    assert_eq!(datapath.open(&scene.daemon.metrics()), 1);
    drop(long);
    let metrics = scene.daemon.must_settle();
    assert_eq!(metrics.sum("istio_tcp_received_bytes_total", &[]), 18, "counted once");
    assert_eq!(metrics.sum("istio_tcp_sent_bytes_total", &[]), 30, "counted once");
}

fn connects_refusals_resets_kills_and_edits_leave_nothing_open(datapath: Datapath) {
    let mut fleet = Fleet::new("nothing", datapath, 2, "connectionPool: {tcp: {maxConnections: 20}}");
    for round in 0..3 {
        let open: Vec<Connection> = (0..30).filter_map(|_| fleet.hello()).collect();
        assert_eq!(open.len(), 20, "round {round}");
        let (closed, reset): (Vec<_>, Vec<_>) =
            open.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
        reset.into_iter().for_each(|(_, one)| one.reset());
        let rule = yaml::traffic_policy("fleet", "connectionPool: {tcp: {maxConnections: 20}}", "");
        fleet.scene.daemon.apply("fleet.yaml", &(fleet.members(&[round % 2]) + &rule));
        drop(closed);
        tests::wait::until("all have ended", || datapath.open(&fleet.scene.daemon.metrics()) == 0);
        fleet.stop(round % 2);
        (0..5).for_each(|_| assert!(fleet.hello().is_none(), "nobody serves"));
        fleet.serve(round % 2);
        fleet.scene.daemon.apply("fleet.yaml", &(fleet.members(&[0, 1]) + &rule));
    }
    let metrics = fleet.scene.daemon.must_settle();
    let flagged = |flag: &str| metrics.sum("istio_tcp_connections_opened_total", &[("response_flags", flag)]);
    assert_eq!((flagged("-"), flagged("UO"), flagged("UF,URX")), (60, 30, 15), "{}", metrics.text());
    let lines = || fleet.scene.daemon.log().len();
    tests::wait::until("each has its line", || lines() == 105);
    let status: Value = serde_json::from_str(&fleet.scene.daemon.must("status -o json")).expect("JSON");
    for trouble in ["table_failed", "untracked", "record_lost", "mark_failed"] {
        assert_eq!(field(&status["connects"], trouble), "0", "{trouble} in {status}");
    }
}

fn ipv6_is_carried_end_to_end(datapath: Datapath) {
    let scene = Scene::echo("six", datapath);
    let (one, two) = ((scene.at_one.v6(), 9000).into(), (scene.at_two.v6(), 9000).into());
    let vip = at("fd00:96::60", 9000);
    let text = [
        yaml::service("six", &["fd00:96::60"], 9000),
        yaml::workload_entry("six", "v1", one),
        yaml::workload_entry("six", "v2", two),
        yaml::traffic_policy("six", "loadBalancer: {simple: RANDOM}", ""),
    ];
    scene.daemon.apply("six.yaml", &text.concat());
    assert_eq!(scene.route(vip)["verdict"], datapath.verdict());
    must_share(&answers(&scene.client, vip, 400), &[("one", 50), ("two", 50)]);
    let mut connection = connect(&scene.client, vip);
    assert_eq!(connection.peer(), vip);
    let source = connection.local().to_string();
    connection.send("hello\n").line();
    connection.half_close().must_be_closed();
    let line = scene.must_log(&[("source", &source), ("original_destination", "[fd00:96::60]:9000")]);
    assert!([one, two].iter().any(|endpoint| field(&line, "endpoint") == endpoint.to_string()), "{line}");
    assert_eq!(field(&line, "received_bytes"), "6");
}

#[test]
fn the_log_can_be_thinned_out_and_the_metrics_not() {
    let scene = Scene::with_args("thin", Datapath::Direct, "--direct-log 0");
    assert_eq!(scene.answers(50)["one"], 50);
    let metrics = scene.daemon.must_settle();
    assert_eq!(metrics.sum("istio_tcp_connections_opened_total", &[]), 50);
    assert!(scene.daemon.log().is_empty(), "{:?}", scene.daemon.log());
}

#[test]
fn a_refusals_line_says_what_is_known() {
    let scene = Scene::echo("line", Datapath::Direct);
    scene.daemon.apply("routing.yaml", &yaml::split(&[("v9", 100)]));
    Datapath::Direct.must_turn_away(&scene.client, scene.vip());
    let line = scene.must_log(&[("response_flags", "NC")]);
    let cluster = format!("outbound|9000|v9|{}", yaml::fqdn("tcp-echo"));
    for (key, expected) in [
        ("workload", "default/client"),
        ("original_destination", "10.96.0.10:9000"),
        ("cluster", &cluster),
        ("endpoint", "-"),
        ("received_bytes", "0"),
        ("sent_bytes", "0"),
        ("cause", "no_cluster"),
        ("route", "default/tcp-echo"),
    ] {
        assert_eq!(field(&line, key), expected, "{key} in {line}");
    }
}
