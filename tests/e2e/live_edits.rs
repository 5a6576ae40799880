//! Edits take effect for new connections at once and never touch open ones.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tests::client::{Connection, connect};
use tests::yaml;

use crate::datapath::Datapath;
use crate::scene::{Scene, answer};

twice! {
    an_edit_takes_effect_within_moments,
    weight_edits_break_no_open_connection,
}

fn an_edit_takes_effect_within_moments(datapath: Datapath) {
    let scene = Scene::echo("moments", datapath);
    let mut worst = Duration::ZERO;
    for (subset, who) in [("v2", "two"), ("v1", "one"), ("v2", "two")] {
        scene.daemon.write("routing.yaml", &yaml::split(&[(subset, 100)]));
        let written = Instant::now();
        while answer(&scene.client, scene.vip()) != who {
            assert!(written.elapsed() < Duration::from_secs(1), "{subset} is not in force after a second");
        }
        worst = worst.max(written.elapsed());
    }
    eprintln!("the slowest of three edits took {} ms from write to first connection", worst.as_millis());
}

fn weight_edits_break_no_open_connection(datapath: Datapath) {
    let scene = Scene::echo("edits", datapath);
    // A connection is open to its client before the daemon has accepted it, and has its way only then.
    let one = |_| {
        let mut connection = connect(&scene.client, scene.vip());
        connection.must_echo("first", "one first");
        connection
    };
    let open = || (0..50).map(one).collect::<Vec<_>>();
    let (mut idle, streaming) = (open(), open());
    let edited = AtomicBool::new(false);
    let rounds: Vec<_> = thread::scope(|scope| {
        let streams: Vec<_> =
            streaming.into_iter().map(|one| scope.spawn(|| stream_until(one, &edited))).collect();
        for edit in 1..=20 {
            scene.daemon.apply("routing.yaml", &yaml::split(&[("v1", 100 - edit), ("v2", edit)]));
            scene.answers(5);
        }
        edited.store(true, Ordering::SeqCst);
        streams.into_iter().map(|stream| stream.join().expect("no panic")).collect()
    });
    assert!(rounds.iter().all(|&rounds| rounds > 0), "{rounds:?}");
    for connection in &mut idle {
        connection.must_echo("still here", "one still here");
    }
}

/// Says something and hears it again and again until `done`; how many times.
fn stream_until(mut connection: Connection, done: &AtomicBool) -> usize {
    let mut rounds = 0;
    while !done.load(Ordering::SeqCst) {
        connection.must_echo("and again", "one and again");
        rounds += 1;
    }
    rounds
}

#[test]
fn a_broken_edit_is_reported_and_the_last_good_stays() {
    let scene = Scene::echo("broken", Datapath::Steer);
    scene.daemon.apply("routing.yaml", &yaml::split(&[("v2", 100)]));
    scene
        .daemon
        .write("routing.yaml", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nspec: [oops\n");
    scene.daemon.must_say("routing.yaml");
    tests::wait::until("status tells it", || scene.daemon.must("status").contains("routing.yaml"));
    assert_eq!(answer(&scene.client, scene.vip()), "two");
    scene.daemon.apply("routing.yaml", &yaml::split(&[("v1", 100)]));
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    tests::wait::until("the problem is gone", || !scene.daemon.must("status").contains("routing.yaml"));
}

#[test]
fn a_broken_resource_costs_only_itself() {
    let scene = Scene::echo("one-bad", Datapath::Steer);
    let bad = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: crooked}\nspec: {hosts: 7}\n";
    scene.daemon.apply("routing.yaml", &(yaml::split(&[("v2", 100)]) + bad));
    scene.daemon.must_say("crooked");
    assert_eq!(answer(&scene.client, scene.vip()), "two");
}
