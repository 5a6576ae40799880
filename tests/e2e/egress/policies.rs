//! Whose policy it is: the mesh's, a namespace's, a workload's; and what becomes of connections that it forbids.

use tests::client::{connect, must_be_refused};
use tests::internet::ECHO;
use tests::yaml;

use super::{GOOGLE, Outlook, reaches};
use crate::scene::at;

#[test]
fn sidecars_speak_for_namespaces_and_workloads() {
    let mut scene = Outlook::new("sidecars", "ALLOW_ANY");
    let (shop, audit) = (scene.mesh.workload("shop"), scene.mesh.workload("audit"));
    scene.daemon.enroll(&shop, "--namespace shop --label app=web");
    scene.daemon.enroll(&audit, "--namespace shop --label app=audit");
    let google = GOOGLE.1.parse().unwrap();
    let reach = || [&scene.client, &shop, &audit].map(|workload| reaches(workload, google));
    assert_eq!(reach(), [true, true, true]);
    let namespace = yaml::sidecar("shop", "", "REGISTRY_ONLY");
    scene.daemon.apply("sidecars.yaml", &namespace);
    assert_eq!(reach(), [true, false, false]);
    scene.daemon.apply("sidecars.yaml", &(namespace + &yaml::sidecar("shop", "app: audit", "ALLOW_ANY")));
    assert_eq!(reach(), [true, false, true]);
    scene.daemon.apply("sidecars.yaml", &yaml::sidecar("istio-system", "", "REGISTRY_ONLY"));
    assert_eq!(reach(), [false, false, false]);
}

#[test]
fn refused_is_refused() {
    let scene = Outlook::with_args("refuse", "REGISTRY_ONLY", "--egress-blocked refuse");
    for scheme in ["http", "https"] {
        scene.must_curl(&format!("{scheme}://{}/", GOOGLE.0), 7, 0);
    }
    must_be_refused(&scene.client, at(GOOGLE.1, ECHO));
    scene.the_mesh_works();
    let close = yaml::mesh_config("REGISTRY_ONLY", "shunt.dev/egress-blocked: close");
    scene.daemon.apply("mesh.yaml", &close);
    scene.must_be_closed(GOOGLE.1, ECHO);
    scene.must_curl(&format!("https://{}/", GOOGLE.0), 35, 0);
}

#[test]
fn what_is_open_is_closed_if_one_says_so() {
    let scene = Outlook::new("existing", "ALLOW_ANY");
    let entry = yaml::external("echo.example", "9000/TCP", "addresses: [203.0.113.11], resolution: NONE");
    scene.daemon.apply("entry.yaml", &entry);
    let (mut unknown, mut known) =
        (connect(&scene.client, at(GOOGLE.1, ECHO)), connect(&scene.client, at("203.0.113.11", ECHO)));
    unknown.must_echo("hello", "203.0.113.10 hello");
    known.must_echo("hello", "203.0.113.11 hello");
    let close = yaml::mesh_config("REGISTRY_ONLY", "shunt.dev/egress-existing: close");
    scene.daemon.apply("mesh.yaml", &close);
    let ended = unknown.try_line().expect_err("nobody says anything");
    assert!(ended.kind() != std::io::ErrorKind::WouldBlock, "it is still open: {ended}");
    known.must_echo("still here", "203.0.113.11 still here");
    scene.the_mesh_works();
}

#[test]
fn what_runs_by_exec_has_a_policy_too() {
    let scene = Outlook::new("exec", "REGISTRY_ONLY");
    let http = format!("curl -q -s --noproxy '*' -o /dev/null -w '%{{http_code}}' http://{}/", GOOGLE.1);
    let https = format!("curl -q -s --noproxy '*' -k https://{}/; echo $?", GOOGLE.1);
    assert_eq!(scene.daemon.exec(&http), "502");
    assert_eq!(scene.daemon.exec(&https), "35");
    assert_eq!(scene.daemon.exec("echo hello | busybox nc tcp-echo 9000"), "one hello");
    scene.mode("ALLOW_ANY");
    assert_eq!(scene.daemon.exec(&http), "200");
}
