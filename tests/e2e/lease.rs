//! The end of the daemon, wanted or not: what the kernel does without it, and for how long.

use std::time::{Duration, Instant};

use tests::client::{Dial, connect, must_be_refused};
use tests::objects::{self, KINDS};
use tests::server;

use crate::datapath::Datapath;
use crate::scene::{Scene, answer};
use crate::survival::pinned;

#[test]
fn without_pins_open_connections_live_on_and_new_ones_go_their_own_way() {
    let mut scene = Scene::with_args("unpinned", Datapath::Direct, "--failure-policy open");
    let native = scene.mesh.workload("native");
    native.claim(&scene.mesh, scene.vip().ip());
    let _native = server::tcp_echo(&native, 9000, "native");
    let mut open = connect(&scene.client, scene.vip());
    open.must_echo("before", "one before");
    scene.daemon.kill9();
    tests::wait::until("the programs are gone", || answer(&scene.client, scene.vip()) == "native");
    open.must_echo("after", "one after");
    scene.daemon.start_again();
    assert_eq!(scene.answers(20)["one"], 20);
    scene.daemon.stop();
}

#[test]
fn when_the_lease_is_over_policy_open_lets_connections_go_their_own_way() {
    let mut scene = pinned("lease-open", "--lease 2s --failure-policy open");
    let native = scene.mesh.workload("native");
    native.claim(&scene.mesh, scene.vip().ip());
    let _native = server::tcp_echo(&native, 9000, "native");
    let mut open = connect(&scene.client, scene.vip());
    open.must_echo("before", "one before");
    scene.daemon.kill9();
    let killed = Instant::now();
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    tests::wait::until("the lease is over", || answer(&scene.client, scene.vip()) == "native");
    must_be_a_lease_of_two_seconds(killed.elapsed());
    open.must_echo("after", "one after");
    scene.daemon.start_again();
    assert_eq!(scene.answers(20)["one"], 20);
    scene.daemon.stop();
}

#[test]
fn when_the_lease_is_over_policy_closed_refuses() {
    let mut scene = Scene::with_args("lease-closed", Datapath::Direct, "--lease 2s --failure-policy closed");
    let mut open = connect(&scene.client, scene.vip());
    scene.daemon.kill9();
    let killed = Instant::now();
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    let refused = || Dial::to(scene.vip()).try_connect(&scene.client).is_err();
    tests::wait::until("the lease is over", refused);
    must_be_a_lease_of_two_seconds(killed.elapsed());
    (0..20).for_each(|_| must_be_refused(&scene.client, scene.vip()));
    open.must_echo("after", "one after");
    scene.daemon.start_again();
    assert_eq!(scene.answers(20)["one"], 20);
    scene.daemon.stop();
}

/// It was renewed half a second before the kill at the earliest.
#[track_caller]
fn must_be_a_lease_of_two_seconds(after: Duration) {
    let (least, most) = (Duration::from_millis(1_200), Duration::from_secs(6));
    assert!(least < after && after < most, "the lease ended {after:?} after the kill");
}

#[test]
fn a_stop_takes_pins_programs_and_tables_away() {
    let mut scene = pinned("away", "");
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    let mut held = objects::held_by(scene.daemon.pid());
    assert!(KINDS.iter().all(|kind| held.iter().any(|(one, _)| one == kind)), "{held:?}");
    scene.daemon.kill9();
    scene.daemon.start_again();
    held.extend(objects::held_by(scene.daemon.pid()));
    scene.daemon.stop();
    // Pins are gone too, or the stop would not be clean.
    tests::wait::until("nobody holds any of it", || held.is_disjoint(&objects::held_by_anybody()));
}

#[test]
fn a_stopped_daemon_leaves_open_direct_connections_alone() {
    let mut scene = Scene::echo("leaves", Datapath::Direct);
    let mut open = connect(&scene.client, scene.vip());
    open.must_echo("before", "one before");
    scene.daemon.stop();
    open.must_echo("after", "one after").half_close().must_be_closed();
}
