//! Beginning and end: a drained stop, a second start, addresses that stay.

use std::process::Stdio;

use serde_json::Value;

use tests::client::{connect, must_be_refused};
use tests::daemon::field;
use tests::yaml::service;

use crate::datapath::Datapath;
use crate::gateway::SEED_V1;
use crate::scene::{Scene, answer};

twice! {
    a_stop_leaves_nothing_behind,
    sigterm_lets_open_connections_finish,
}

fn a_stop_leaves_nothing_behind(datapath: Datapath) {
    let mut scene = Scene::echo("stop", datapath);
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    scene.daemon.exec("true");
    scene.daemon.stop();
}

fn sigterm_lets_open_connections_finish(datapath: Datapath) {
    let mut scene = Scene::unrouted("drain", datapath);
    scene.daemon.apply("tcp-echo.yaml", SEED_V1);
    let mut captured = connect(&scene.client, scene.vip());
    let mut through_gateway = connect(&scene.client, scene.gateway());
    let (first, second) = (answered(&mut captured), answered(&mut through_gateway));
    scene.daemon.terminate();
    tests::wait::until("the gateway has closed", || {
        tests::client::Dial::to(scene.gateway()).try_connect(&scene.client).is_err()
    });
    must_be_refused(&scene.client, scene.gateway());
    captured.must_echo("draining", &format!("{first} draining")).half_close().must_be_closed();
    through_gateway.must_echo("draining", &format!("{second} draining")).half_close().must_be_closed();
    scene.daemon.must_end_clean();
    let finished = |line: &&Value| field(line, "received_bytes") == "15";
    assert_eq!(scene.daemon.log().iter().filter(finished).count(), 2);
}

/// Which version a connection got.
fn answered(connection: &mut tests::client::Connection) -> String {
    connection.send("hello\n").line().replace(" hello", "")
}

#[test]
fn what_does_not_finish_in_time_is_cut() {
    let mut scene = Scene::with_args("cut", Datapath::Steer, "--drain-timeout 300ms");
    let mut open = connect(&scene.client, scene.vip());
    open.must_echo("hello", "one hello");
    scene.daemon.stop();
    assert!(open.try_line().is_err(), "the connection is gone");
    scene.daemon.must_log(&[("cause", "drain")]);
}

#[test]
fn a_second_daemon_with_the_same_run_folder_is_refused() {
    let scene = Scene::echo("second", Datapath::Steer);
    let mut second = scene.daemon.command();
    let output = scene.mesh.node().output(second.stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "a second daemon started");
    assert!(complaint.contains(&scene.daemon.run_dir().display().to_string()), "{complaint}");
    assert!(complaint.contains(&scene.daemon.pid().to_string()), "{complaint}");
    assert_eq!(answer(&scene.client, scene.vip()), "one");
}

#[test]
fn addresses_stay_over_a_restart() {
    let mut scene = Scene::echo("stay", Datapath::Steer);
    let names = ["alpha", "beta", "gamma"].map(|name| service(name, &[], 9000)).concat();
    scene.daemon.apply("names.yaml", &names);
    let before = scene.daemon.exec("cat /etc/hosts");
    assert!(before.contains("240.240.") && before.contains("gamma.default"), "{before}");
    scene.daemon.stop();
    // A newcomer that is read first must not push anybody off an address.
    scene.daemon.write("a-first.yaml", &service("aardvark", &[], 9000));
    scene.daemon.start_again();
    let after = scene.daemon.exec("cat /etc/hosts");
    let lost: Vec<_> = before.lines().filter(|line| !after.lines().any(|other| other == *line)).collect();
    assert!(lost.is_empty(), "{lost:?} not in\n{after}");
    assert!(after.contains("aardvark"));
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let scene = Scene::echo("failing", Datapath::Steer);
    let folder = |name: &str| std::env::temp_dir().join(format!("{}-{name}", scene.mesh.id()));
    let (run, instance) = (folder("run"), format!("{}-second", scene.mesh.id()));
    let cgroup = tests::sweep::cgroup2().join(&instance);
    let rules = || scene.mesh.node().ip("rule list\nroute list table all");
    let before = rules();
    // The first daemon has the address of the metrics, the second folder is not there.
    for config in [scene.daemon.config(""), folder("nowhere")] {
        let mut command = tests::setup::limited(tests::setup::binary());
        command.arg("run").arg("--config").arg(&config).arg("--run-dir").arg(&run);
        command.arg("--state-dir").arg(&run).args(["--instance", &instance]);
        command.args(["--mark", "77", "--route-table", "77", "--failure-policy", "closed"]);
        let output = scene.mesh.node().output(command.stdout(Stdio::null()).stderr(Stdio::piped())).unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!cgroup.exists() && !run.join("lock").exists() && !run.join("pins").exists());
        assert_eq!(rules(), before);
        drop(std::fs::remove_dir_all(&run));
    }
    assert_eq!(answer(&scene.client, scene.vip()), "one");
}
