//! Which rule a connection gets: by port, subnets, labels, namespace, and order.

use tests::server;
use tests::yaml::{rule, service_entry, virtual_service};

use crate::datapath::Datapath;
use crate::scene::{Scene, VIP6, answer, at};
use crate::shifting::must_share;

twice! {
    by_port,
    by_destination_subnet,
    by_source_subnet,
    by_source_labels_all_of_them,
    by_source_namespace,
    the_first_rule_that_matches_wins,
    what_no_rule_matches_goes_to_the_service_itself,
    an_exact_address_goes_before_a_range_and_a_narrow_range_before_a_wide_one,
}

/// Rules that send what `matches` matches to v2 and the rest to v1.
fn two_when(matches: &str) -> String {
    let rules = [rule(matches, "tcp-echo", &[("v2", 1)]), rule("", "tcp-echo", &[("v1", 1)])];
    virtual_service("tcp-echo", &rules)
}

fn by_port(datapath: Datapath) {
    let scene = Scene::echo("port", datapath);
    let services = std::fs::read_to_string(scene.daemon.config("services.yaml")).expect("services");
    let more = "{name: more, port: 9001, targetPort: 9000}";
    let services = services
        .replace("ports: [{name: tcp, port: 9000}]", &format!("ports: [{{name: tcp, port: 9000}}, {more}]"));
    scene.daemon.apply("services.yaml", &services);
    scene.daemon.apply("routing.yaml", &two_when("port: 9001"));
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    assert_eq!(answer(&scene.client, at(crate::scene::VIP4, 9001)), "two");
}

fn by_destination_subnet(datapath: Datapath) {
    let scene = Scene::echo("dst", datapath);
    scene.daemon.apply("routing.yaml", &two_when("destinationSubnets: [\"fd00:96::/32\", 10.97.0.0/16]"));
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    assert_eq!(answer(&scene.client, at(VIP6, 9000)), "two");
}

fn by_source_subnet(datapath: Datapath) {
    let mut scene = Scene::echo("src", datapath);
    let other = scene.mesh.workload("other");
    scene.daemon.enroll(&other, "");
    scene.daemon.apply("routing.yaml", &two_when(&format!("sourceSubnet: {}/32", other.v4())));
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    assert_eq!(answer(&other, scene.vip()), "two");
}

fn by_source_labels_all_of_them(datapath: Datapath) {
    let mut scene = Scene::echo("labels", datapath);
    let (half, whole) = (scene.mesh.workload("half"), scene.mesh.workload("whole"));
    scene.daemon.enroll(&half, "--label app=api");
    scene.daemon.enroll(&whole, "--label app=api --label tier=gold --label extra=1");
    scene.daemon.apply("routing.yaml", &two_when("sourceLabels: {app: api, tier: gold}"));
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    assert_eq!(answer(&half, scene.vip()), "one");
    assert_eq!(answer(&whole, scene.vip()), "two");
}

fn by_source_namespace(datapath: Datapath) {
    let mut scene = Scene::echo("ns", datapath);
    let shop = scene.mesh.workload("shop");
    scene.daemon.enroll(&shop, "--namespace shop");
    scene.daemon.apply("routing.yaml", &two_when("sourceNamespace: shop"));
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    assert_eq!(answer(&shop, scene.vip()), "two");
}

fn the_first_rule_that_matches_wins(datapath: Datapath) {
    let scene = Scene::echo("order", datapath);
    let web = rule("sourceLabels: {app: web}", "tcp-echo", &[("v1", 1)]);
    let port = rule("port: 9000", "tcp-echo", &[("v2", 1)]);
    scene.daemon.apply("routing.yaml", &virtual_service("tcp-echo", &[port.clone(), web.clone()]));
    assert_eq!(answer(&scene.client, scene.vip()), "two");
    scene.daemon.apply("routing.yaml", &virtual_service("tcp-echo", &[web, port]));
    assert_eq!(answer(&scene.client, scene.vip()), "one");
}

fn what_no_rule_matches_goes_to_the_service_itself(datapath: Datapath) {
    let scene = Scene::echo("none", datapath);
    let rule = rule("sourceLabels: {app: nobody}", "tcp-echo", &[("v1", 1)]);
    scene.daemon.apply("routing.yaml", &virtual_service("tcp-echo", &[rule]));
    must_share(&scene.answers(400), &[("one", 50), ("two", 50)]);
}

fn an_exact_address_goes_before_a_range_and_a_narrow_range_before_a_wide_one(datapath: Datapath) {
    let scene = Scene::echo("ranges", datapath);
    let servers = [9100, 9101].map(|port| server::tcp_echo(&scene.at_two, port, &port.to_string()));
    let entry = |host: &str, range: &str, index: usize| {
        service_entry(host, &[range.to_owned()], 9000, servers[index].address())
    };
    let ranges = entry("wide.example", "10.96.0.0/16", 0) + &entry("narrow.example", "10.96.1.0/24", 1);
    scene.daemon.apply("ranges.yaml", &ranges);
    assert_eq!(answer(&scene.client, at("10.96.7.7", 9000)), "9100");
    assert_eq!(answer(&scene.client, at("10.96.1.7", 9000)), "9101");
    assert_eq!(answer(&scene.client, scene.vip()), "one");
}
