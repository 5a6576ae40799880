//! A killed daemon: new connections follow the failure policy at once, and the next start cleans up.

use tests::client::{connect, must_be_refused};
use tests::server;

use crate::datapath::Datapath;
use crate::scene::{Scene, VIP6, answer, answers, at};

#[test]
fn with_policy_open_the_next_connection_goes_its_own_way() {
    let mut scene = Scene::with_args("open", Datapath::Steer, "--failure-policy open");
    let native = scene.mesh.workload("native");
    native.claim(&scene.mesh, scene.vip().ip());
    native.claim(&scene.mesh, VIP6.parse().unwrap());
    let _native = server::tcp_echo(&native, 9000, "native");
    let mut open = connect(&scene.client, scene.vip());
    open.must_echo("before", "one before");
    scene.daemon.kill9();
    assert_eq!(answers(&scene.client, scene.vip(), 20)["native"], 20);
    assert_eq!(answer(&scene.client, at(VIP6, 9000)), "native");
    assert!(open.try_line().is_err(), "a steered connection ends with its daemon");
    again(&mut scene);
}

#[test]
fn with_policy_closed_the_next_connection_is_refused() {
    let mut scene = Scene::with_args("closed", Datapath::Steer, "--failure-policy closed");
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    scene.daemon.kill9();
    (0..20).for_each(|_| must_be_refused(&scene.client, scene.vip()));
    must_be_refused(&scene.client, at(VIP6, 9000));
    connect(&scene.client, scene.one.address()).must_echo("unclaimed", "one unclaimed");
    again(&mut scene);
}

/// A fresh daemon captures whom the killed one had enrolled, and its end leaves nothing of either.
fn again(scene: &mut Scene) {
    scene.daemon.start_again();
    assert!(scene.daemon.must("status").contains("default/client app=web"));
    assert_eq!(scene.answers(20)["one"], 20);
    scene.daemon.stop();
}
