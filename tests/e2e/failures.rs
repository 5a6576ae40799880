//! What a client sees when there is nowhere to go: accepted, then closed, and a flag in the log that says why.

use tests::client::connect;
use tests::daemon::field;
use tests::yaml::{rule, service_entry, split, subsets, virtual_service};

use crate::scene::{Scene, answer, at};

#[test]
fn a_missing_subset_closes_with_nc() {
    let scene = Scene::echo("subset");
    scene.daemon.apply("routing.yaml", &split(&[("v9", 100)]));
    connect(&scene.client, scene.vip()).must_be_closed();
    scene.daemon.must_log(&[("response_flags", "NC"), ("endpoint", "-")]);
    scene.daemon.must_settle();
}

#[test]
fn a_missing_host_closes_with_nc() {
    let scene = Scene::echo("host");
    scene.daemon.apply("routing.yaml", &virtual_service("tcp-echo", &[rule("", "nowhere", &[("v1", 1)])]));
    connect(&scene.client, scene.vip()).must_be_closed();
    scene.daemon.must_log(&[("response_flags", "NC")]);
}

#[test]
fn a_subset_without_endpoints_closes_with_uh() {
    let scene = Scene::echo("empty");
    scene.daemon.apply("subsets.yaml", &subsets("tcp-echo", &["v1", "v2", "v3"]));
    scene.daemon.apply("routing.yaml", &split(&[("v3", 100)]));
    connect(&scene.client, scene.vip()).must_be_closed();
    scene.daemon.must_log(&[("response_flags", "UH"), ("cause", "no_endpoint")]);
}

#[test]
fn an_endpoint_that_refuses_closes_with_uf() {
    let scene = Scene::echo("refused");
    let nobody = (scene.at_one.v4(), 9).into();
    scene.daemon.apply("dead.yaml", &service_entry("dead.example", &["10.96.0.50".to_owned()], 9000, nobody));
    let mut connection = connect(&scene.client, at("10.96.0.50", 9000));
    let _ = connection.try_line().expect_err("nobody answers");
    let line = scene.daemon.must_log(&[("cause", "connect_refused"), ("endpoint", &nobody.to_string())]);
    assert!(field(&line, "response_flags").contains("UF"), "{line}");
    let metrics = scene.daemon.must_settle();
    assert_eq!(
        metrics.sum("istio_tcp_connections_opened_total", &[("destination_service", "dead.example")]),
        1
    );
}

#[test]
fn failures_do_not_spread() {
    let scene = Scene::echo("spread");
    scene.daemon.apply("routing.yaml", &split(&[("v9", 100)]));
    (0..50).for_each(|_| connect(&scene.client, scene.vip()).must_be_closed());
    scene.daemon.apply("routing.yaml", &split(&[("v1", 100)]));
    assert_eq!(answer(&scene.client, scene.vip()), "one");
}
