//! `shunt exec`: commands inside the mesh, that use names and half-close the way shells do.

use crate::datapath::Datapath;
use crate::gateway::SEED_V1;
use crate::scene::Scene;

twice! {
    every_form_of_a_name_reaches_the_service,
}

/// Both kinds of `nc`, told to pass on the end of their input; busybox always does.
const CLIENTS: [&str; 2] = ["nc.openbsd -N", "busybox nc"];

fn every_form_of_a_name_reaches_the_service(datapath: Datapath) {
    let scene = Scene::echo("names", datapath);
    for name in ["tcp-echo", "tcp-echo.default", "tcp-echo.default.svc.cluster.local"] {
        for nc in CLIENTS {
            let said = scene.daemon.exec(&format!("(echo hello; sleep 1) | {nc} {name} 9000"));
            assert_eq!(said, "one hello", "{nc} {name}");
        }
    }
}

#[test]
fn the_seeds_half_close_works_through_the_gateway() {
    let scene = Scene::unrouted("nc-gateway", Datapath::Steer);
    let gateway = scene.gateway();
    scene.daemon.apply("tcp-echo.yaml", SEED_V1);
    for nc in CLIENTS {
        let script = format!("(date; sleep 1) | timeout 20 {nc} {} {}", gateway.ip(), gateway.port());
        let output = scene.client.output(std::process::Command::new("sh").args(["-c", &script])).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.starts_with("one ") && said.len() > 10, "{nc}: {said:?}");
    }
}

#[test]
fn names_stay_inside() {
    let scene = Scene::echo("inside", Datapath::Steer);
    let before = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    assert!(scene.daemon.exec("cat /etc/hosts").contains("tcp-echo.default.svc.cluster.local"));
    assert_eq!(std::fs::read_to_string("/etc/hosts").unwrap_or_default(), before);
}

#[test]
fn the_commands_exit_status_is_kept() {
    let scene = Scene::echo("status", Datapath::Steer);
    assert_eq!(scene.daemon.cli("exec false").status.code(), Some(1));
    assert_eq!(scene.daemon.exec("exit 0"), "");
}

#[test]
fn without_a_captured_workload_nothing_is_run() {
    let scene = Scene::echo("no-local", Datapath::Steer);
    scene.daemon.must("unenroll local");
    let output = scene.daemon.cli("exec true");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && complaint.contains("local"), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
}
