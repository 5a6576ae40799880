//! A service's port need not be its endpoints' port.

use tests::server;

use crate::datapath::Datapath;
use crate::scene::{Scene, answer, at};

twice! {
    a_target_port_by_number_and_by_name,
    a_service_entrys_endpoint_has_its_own_port,
    an_endpoint_over_ipv6_serves_an_ipv4_client,
}

fn service(target: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: ported}}
spec: {{clusterIPs: [10.96.0.20], selector: {{app: ported}}, ports: [{{name: tcp, port: 80, targetPort: {target}}}]}}
"
    )
}

fn pod(scene: &Scene) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: ported-1, labels: {{app: ported}}}}
spec: {{containers: [{{name: server, ports: [{{name: talk, containerPort: 9100}}]}}]}}
status: {{podIP: {}, phase: Running, conditions: [{{type: Ready, status: \"True\"}}]}}
",
        scene.at_two.v4()
    )
}

fn a_target_port_by_number_and_by_name(datapath: Datapath) {
    let scene = Scene::echo("target", datapath);
    let server = server::tcp_echo(&scene.at_two, 9100, "ported");
    for target in ["9100", "talk"] {
        scene.daemon.apply("ported.yaml", &(service(target) + &pod(&scene)));
        assert_eq!(answer(&scene.client, at("10.96.0.20", 80)), "ported", "targetPort: {target}");
    }
    assert_eq!(server.accepted(), 2);
}

fn a_service_entrys_endpoint_has_its_own_port(datapath: Datapath) {
    let scene = Scene::echo("entry", datapath);
    let server = server::tcp_echo(&scene.at_two, 9100, "entry");
    let addresses = ["10.96.0.30".to_owned(), "fd00:96::30".to_owned()];
    scene
        .daemon
        .apply("entry.yaml", &tests::yaml::service_entry("entry.example", &addresses, 443, server.address()));
    assert_eq!(answer(&scene.client, at("10.96.0.30", 443)), "entry");
    assert_eq!(answer(&scene.client, at("fd00:96::30", 443)), "entry");
}

fn an_endpoint_over_ipv6_serves_an_ipv4_client(datapath: Datapath) {
    let scene = Scene::echo("crossed", datapath);
    let addresses = ["10.96.0.40".to_owned()];
    let endpoint = (scene.at_two.v6(), 9000).into();
    scene
        .daemon
        .apply("entry.yaml", &tests::yaml::service_entry("crossed.example", &addresses, 9000, endpoint));
    assert_eq!(answer(&scene.client, at("10.96.0.40", 9000)), "two");
}
