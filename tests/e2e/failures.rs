//! What a client sees when there is nowhere to go: refused by the kernel, accepted and closed by the
//! daemon, and a flag in the log that says why.

use tests::client::{connect, must_be_refused};
use tests::daemon::field;
use tests::yaml::{rule, service_entry, split, subsets, virtual_service};

use crate::datapath::Datapath;
use crate::scene::{Scene, answer, at};

twice! {
    a_missing_subset_closes_with_nc,
    a_missing_host_closes_with_nc,
    a_subset_without_endpoints_closes_with_uh,
    an_endpoint_that_refuses_closes_with_uf,
    failures_do_not_spread,
}

fn a_missing_subset_closes_with_nc(datapath: Datapath) {
    let scene = Scene::echo("subset", datapath);
    scene.daemon.apply("routing.yaml", &split(&[("v9", 100)]));
    datapath.must_turn_away(&scene.client, scene.vip());
    scene.must_log(&[("response_flags", "NC"), ("endpoint", "-")]);
    scene.daemon.must_settle();
}

fn a_missing_host_closes_with_nc(datapath: Datapath) {
    let scene = Scene::echo("host", datapath);
    scene.daemon.apply("routing.yaml", &virtual_service("tcp-echo", &[rule("", "nowhere", &[("v1", 1)])]));
    datapath.must_turn_away(&scene.client, scene.vip());
    scene.must_log(&[("response_flags", "NC")]);
}

fn a_subset_without_endpoints_closes_with_uh(datapath: Datapath) {
    let scene = Scene::echo("empty", datapath);
    scene.daemon.apply("subsets.yaml", &subsets("tcp-echo", &["v1", "v2", "v3"]));
    scene.daemon.apply("routing.yaml", &split(&[("v3", 100)]));
    datapath.must_turn_away(&scene.client, scene.vip());
    scene.must_log(&[("response_flags", "UH"), ("cause", "no_endpoint")]);
}

fn an_endpoint_that_refuses_closes_with_uf(datapath: Datapath) {
    let scene = Scene::echo("refused", datapath);
    let nobody = (scene.at_one.v4(), 9).into();
    scene.daemon.apply("dead.yaml", &service_entry("dead.example", &["10.96.0.50".to_owned()], 9000, nobody));
    let dead = at("10.96.0.50", 9000);
    match datapath {
        Datapath::Direct => must_be_refused(&scene.client, dead),
        Datapath::Steer => {
            let _ = connect(&scene.client, dead).try_line().expect_err("nobody answers");
        }
    }
    let line = scene.must_log(&[("cause", "connect_refused"), ("endpoint", &nobody.to_string())]);
    assert!(field(&line, "response_flags").contains("UF"), "{line}");
    let metrics = scene.daemon.must_settle();
    assert_eq!(
        metrics.sum("istio_tcp_connections_opened_total", &[("destination_service", "dead.example")]),
        1
    );
}

fn failures_do_not_spread(datapath: Datapath) {
    let scene = Scene::echo("spread", datapath);
    scene.daemon.apply("routing.yaml", &split(&[("v9", 100)]));
    (0..50).for_each(|_| datapath.must_turn_away(&scene.client, scene.vip()));
    scene.daemon.apply("routing.yaml", &split(&[("v1", 100)]));
    assert_eq!(answer(&scene.client, scene.vip()), "one");
}
