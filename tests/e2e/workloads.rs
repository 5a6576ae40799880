//! Enrolled network namespaces: each has its own identity, and can be let go again.

use std::fs;
use std::process::Command;

use tests::client::connect;
use tests::server;
use tests::sweep::{cgroup2, remove_cgroup};
use tests::yaml::{rule, virtual_service};

use crate::datapath::Datapath;
use crate::scene::{Scene, answer};

twice! {
    two_namespaces_get_two_routes,
    an_unenrolled_namespace_is_left_alone_and_its_open_connections_live_on,
    a_cgroup_narrows_a_workload_down,
    a_workload_that_comes_back_outlives_its_predecessors_last_connection,
}

fn two_namespaces_get_two_routes(datapath: Datapath) {
    let mut scene = Scene::echo("two", datapath);
    let api = scene.mesh.workload("api");
    scene.daemon.enroll(&api, "--label app=api");
    let for_app =
        |app: &str, subset: &str| rule(&format!("sourceLabels: {{app: {app}}}"), "tcp-echo", &[(subset, 1)]);
    let rules = [for_app("web", "v1"), for_app("api", "v2")];
    scene.daemon.apply("routing.yaml", &virtual_service("tcp-echo", &rules));
    for _ in 0..5 {
        assert_eq!(answer(&scene.client, scene.vip()), "one");
        assert_eq!(answer(&api, scene.vip()), "two");
    }
    scene.daemon.must_log(&[("workload", "default/api")]);
    scene.daemon.stop();
}

fn an_unenrolled_namespace_is_left_alone_and_its_open_connections_live_on(datapath: Datapath) {
    let scene = Scene::echo("unenroll", datapath);
    let native = scene.mesh.workload("native");
    native.claim(&scene.mesh, scene.vip().ip());
    let _native = server::tcp_echo(&native, 9000, "native");
    let mut open = connect(&scene.client, scene.vip());
    open.must_echo("before", "one before");
    scene.daemon.must("unenroll client");
    assert_eq!(answer(&scene.client, scene.vip()), "native");
    open.must_echo("after", "one after");
    drop(open);
    scene.daemon.must_settle();
    assert!(!scene.daemon.must("status").contains("default/client"));
    let unknown = scene.daemon.cli("unenroll client");
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("client"));
}

fn a_cgroup_narrows_a_workload_down(datapath: Datapath) {
    let scene = Scene::echo("cgroup", datapath);
    let native = scene.mesh.workload("native");
    native.claim(&scene.mesh, scene.vip().ip());
    let _native = server::tcp_echo(&native, 9000, "native");
    let narrow = scene.mesh.workload("narrow");
    let cgroup = cgroup2().join(format!("{}-narrow", scene.mesh.id()));
    fs::create_dir(&cgroup).expect("a cgroup");
    let _removed = Removed(&cgroup);
    let (netns, place) = (narrow.path(), cgroup.display());
    scene.daemon.must(&format!("enroll --name narrow --cgroup {place} --netns {}", netns.display()));
    assert_eq!(answer(&narrow, scene.vip()), "native", "a process outside the cgroup");
    let script = format!("echo $$ > {place}/cgroup.procs; echo hi | busybox nc 10.96.0.10 9000");
    let output = narrow.output(Command::new("timeout").args(["20", "sh", "-c", &script])).expect("start sh");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one hi\n");
    scene.daemon.must("unenroll narrow");
}

struct Removed<'path>(&'path std::path::Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        remove_cgroup(self.0);
    }
}

#[test]
fn enrolling_what_cannot_be_is_one_clear_sentence() {
    let scene = Scene::echo("enroll", Datapath::Steer);
    let taken = scene.mesh.workload("taken");
    for (words, expected) in [
        (format!("enroll --name client --netns {}", taken.path().display()), "client"),
        (format!("enroll --name again --netns {}", scene.client.path().display()), "client"),
        (format!("enroll --name a?b --netns {}", taken.path().display()), "a?b"),
        (
            format!("enroll --name far --cgroup /tmp --netns {}", taken.path().display()),
            "no cgroup v2 folder",
        ),
        ("unenroll client?other".to_owned(), "client?other"),
        ("enroll --name nowhere --netns /run/netns/there-is-none".to_owned(), "/run/netns/there-is-none"),
    ] {
        let output = scene.daemon.cli(&words);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && complaint.contains(expected), "{words}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
    assert_eq!(answer(&scene.client, scene.vip()), "one");
}

fn a_workload_that_comes_back_outlives_its_predecessors_last_connection(datapath: Datapath) {
    let scene = Scene::echo("back", datapath);
    let mut open = connect(&scene.client, scene.vip());
    open.must_echo("before", "one before");
    scene.daemon.must("unenroll client");
    let netns = scene.client.path();
    scene.daemon.must(&format!("enroll --name client --label app=web --netns {}", netns.display()));
    open.must_echo("after", "one after").half_close().must_be_closed();
    scene.daemon.must_say("its last connection has ended");
    assert_eq!(scene.answers(20)["one"], 20);
}

#[test]
fn a_cgroup_that_has_vanished_stands_in_nobodys_way() {
    let scene = Scene::echo("vanished", Datapath::Steer);
    let cgroup = cgroup2().join(format!("{}-short", scene.mesh.id()));
    fs::create_dir(&cgroup).unwrap();
    let (short, other) = (scene.mesh.workload("short"), scene.mesh.workload("other"));
    let (place, netns) = (cgroup.display(), short.path());
    scene.daemon.must(&format!("enroll --name short --cgroup {place} --netns {}", netns.display()));
    remove_cgroup(&cgroup);
    scene.daemon.must(&format!("enroll --name other --netns {}", other.path().display()));
    assert_eq!(answer(&other, scene.vip()), "one");
    scene.daemon.must_say("the cgroup of workload short is gone");
    assert!(!scene.daemon.must("status").contains("default/short"));
}
