//! `shunt routes` says who carries a listener's connections, and why it is not the kernel.

use tests::yaml::{self, fqdn, rule, virtual_service};

use crate::datapath::Datapath;
use crate::scene::{Scene, VIP6, answer, at};

/// Asserts the verdict on the service's address, and that connections go well whatever it is.
#[track_caller]
fn must_say(scene: &Scene, verdict: &str, reason: &str) {
    let row = scene.route(scene.vip());
    let told = row["reason"].as_str().unwrap_or_default();
    assert_eq!((row["verdict"].as_str(), told), (Some(verdict), reason), "{row}");
    let text = scene.daemon.must("routes");
    let line = text.lines().find(|line| line.starts_with("10.96.0.10:9000 ")).expect("a line");
    assert!(line.contains(verdict) && line.contains(reason), "{line}");
    answer(&scene.client, scene.vip());
}

#[test]
fn what_the_kernel_can_route_is_direct() {
    must_say(&Scene::echo("can", Datapath::Direct), "direct", "");
}

#[test]
fn a_setting_steers_everything() {
    must_say(&Scene::echo("setting", Datapath::Steer), "steer", "--datapath steer");
}

#[test]
fn an_annotation_steers_its_service_or_its_virtual_service() {
    let scene = Scene::echo("notes", Datapath::Direct);
    let steered = "annotations: {shunt.dev/datapath: steer}";
    for (file, name) in [("services.yaml", "Service"), ("routing.yaml", "VirtualService")] {
        let text = std::fs::read_to_string(scene.daemon.config(file)).expect("resources");
        let noted = text.replacen("name: tcp-echo}", &format!("name: tcp-echo, {steered}}}"), 1);
        scene.daemon.apply(file, &noted);
        must_say(&scene, "steer", &format!("shunt.dev/datapath: steer on {name} default/tcp-echo"));
        scene.daemon.apply(file, &noted.replace("datapath: steer", "datapath: auto"));
        must_say(&scene, "direct", "");
    }
    let entry = yaml::service_entry("noted.example", &["10.96.0.99".to_owned()], 9000, scene.one.address());
    let noted = entry.replace("name: noted-example}", &format!("name: noted-example, {steered}}}"));
    scene.daemon.apply("noted.yaml", &noted);
    let row = scene.route(at("10.96.0.99", 9000));
    assert_eq!(row["reason"], "shunt.dev/datapath: steer on ServiceEntry default/noted-example");
}

#[test]
fn an_unknown_annotation_is_a_problem() {
    let scene = Scene::echo("unknown", Datapath::Direct);
    let text = std::fs::read_to_string(scene.daemon.config("services.yaml")).expect("resources");
    for (note, word) in [("shunt.dev/datapath: sideways", "sideways"), ("shunt.dev/colour: red", "colour")] {
        let noted =
            text.replacen("{name: tcp-echo}", &format!("{{name: tcp-echo, annotations: {{{note}}}}}"), 1);
        scene.daemon.write("services.yaml", &noted);
        tests::wait::until("status tells it", || scene.daemon.must("status").contains(word));
        answer(&scene.client, scene.vip());
    }
}

#[test]
fn a_source_subnet_is_the_daemons() {
    let scene = Scene::echo("subnet", Datapath::Direct);
    let rules =
        [rule("sourceSubnet: 10.0.9.0/24", "tcp-echo", &[("v2", 1)]), rule("", "tcp-echo", &[("v1", 1)])];
    scene.daemon.apply("routing.yaml", &virtual_service("tcp-echo", &rules));
    must_say(&scene, "steer", "sourceSubnet is known only once a connection is accepted");
}

#[test]
fn a_limit_that_closes_and_one_that_is_shared_are_the_daemons() {
    let scene = Scene::echo("shared", Datapath::Direct);
    // An address of IPv6 that leads to IPv4 endpoints would be steered, and with it the limit.
    let services = std::fs::read_to_string(scene.daemon.config("services.yaml")).expect("resources");
    let services = services.replace(", \"fd00:96::10\"", "");
    scene.daemon.apply("services.yaml", &services);
    let cluster = format!("outbound|9000|v1|{}", fqdn("tcp-echo"));
    let subsets = yaml::subsets("tcp-echo", &["v1", "v2"])
        .replace("spec: {", "spec: {trafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}}, ");
    scene.daemon.apply("subsets.yaml", &subsets);
    must_say(&scene, "direct", "");
    let noted = |text: &str, note: &str| {
        text.replacen("name: tcp-echo}", &format!("name: tcp-echo, annotations: {{{note}}}}}"), 1)
    };
    scene.daemon.apply("services.yaml", &noted(&services, "shunt.dev/overflow: close"));
    must_say(&scene, "steer", &format!("shunt.dev/overflow: close, and {cluster} has a limit"));
    scene.daemon.apply("services.yaml", &services);
    must_say(&scene, "direct", "");
    // Another host's connections reach the same cluster, and are steered for a reason of their own.
    let other = yaml::service("other", &["10.96.0.11"], 9000);
    let other = other.replacen("{name: other}", "{name: other, annotations: {shunt.dev/datapath: steer}}", 1);
    let to_echo = virtual_service("other", &[rule("", "tcp-echo", &[("v1", 1)])]);
    scene.daemon.apply("other.yaml", &(other + &to_echo));
    let listener = format!("{}:9000", fqdn("other"));
    let reason = format!("the daemon counts the connections of {cluster}: it carries those of {listener}");
    must_say(&scene, "steer", &reason);
}

#[test]
fn an_endpoint_of_the_other_family_is_the_daemons() {
    let scene = Scene::echo("family", Datapath::Direct);
    let row = scene.route(at(VIP6, 9000));
    let reason = format!("the endpoint {} is of another address family", scene.one.address());
    assert_eq!((row["verdict"].as_str(), row["reason"].as_str()), (Some("steer"), Some(reason.as_str())));
    assert_eq!(answer(&scene.client, at(VIP6, 9000)), "one");
}

#[test]
fn a_rule_for_some_workloads_is_shown_for_each() {
    let mut scene = Scene::echo("scopes", Datapath::Direct);
    let api = scene.mesh.workload("api");
    scene.daemon.enroll(&api, "--label app=api");
    let rules =
        [rule("sourceLabels: {app: api}", "tcp-echo", &[("v2", 1)]), rule("", "tcp-echo", &[("v1", 1)])];
    scene.daemon.apply("routing.yaml", &virtual_service("tcp-echo", &rules));
    must_say(&scene, "direct", "");
    assert_eq!((answer(&scene.client, scene.vip()), answer(&api, scene.vip())), ("one".into(), "two".into()));
}
