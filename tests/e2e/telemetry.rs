//! What an operator reads afterwards: Istio's metrics, and one log line a connection.

use std::os::unix::fs::PermissionsExt;

use tests::client::connect;
use tests::daemon::field;
use tests::yaml::fqdn;

use crate::datapath::Datapath;
use crate::scene::{Scene, answer};

twice! {
    metrics_have_istios_labels_and_the_right_bytes,
    the_kernels_verdicts_are_counted,
    a_log_line_tells_the_whole_connection,
    routes_and_status_say_what_is_in_force,
}

fn metrics_have_istios_labels_and_the_right_bytes(datapath: Datapath) {
    let scene = Scene::echo("labels", datapath);
    let mut connection = connect(&scene.client, scene.vip());
    connection.must_echo("hello", "one hello");
    assert_eq!(datapath.open(&scene.daemon.metrics()), 1);
    connection.half_close().must_be_closed();
    let metrics = scene.daemon.must_settle();
    let service = fqdn("tcp-echo");
    let labels = [
        ("reporter", "source"),
        ("source_workload", "client"),
        ("source_workload_namespace", "default"),
        ("source_app", "web"),
        ("destination_app", "tcp-echo"),
        ("destination_version", "v1"),
        ("destination_service", service.as_str()),
        ("destination_service_name", "tcp-echo"),
        ("destination_service_namespace", "default"),
        ("request_protocol", "tcp"),
        ("response_flags", "-"),
        ("connection_security_policy", "unknown"),
    ];
    for (name, expected) in [
        ("istio_tcp_connections_opened_total", 1),
        ("istio_tcp_connections_closed_total", 1),
        ("istio_tcp_received_bytes_total", 6),
        ("istio_tcp_sent_bytes_total", 10),
    ] {
        let series: Vec<_> = metrics.series(name).collect();
        assert_eq!(metrics.sum(name, &labels), expected, "{name}: {series:#?}");
    }
}

fn the_kernels_verdicts_are_counted(datapath: Datapath) {
    let scene = Scene::echo("verdicts", datapath);
    assert_eq!(scene.answers(3)["one"], 3);
    connect(&scene.client, scene.two.address()).must_echo("direct", "two direct");
    for (verdict, expected) in [(datapath.counted(), 3), ("passed", 1)] {
        tests::wait::until(&format!("{expected} connects are counted as {verdict}"), || {
            scene.daemon.metrics().sum("shunt_connects_total", &[("verdict", verdict)]) == expected
        });
    }
}

fn a_log_line_tells_the_whole_connection(datapath: Datapath) {
    let scene = Scene::echo("line", datapath);
    let mut connection = connect(&scene.client, scene.vip());
    let source = connection.local().to_string();
    connection.must_echo("hello", "one hello").half_close().must_be_closed();
    let line = scene.must_log(&[("source", &source)]);
    for (key, expected) in [
        ("workload", "default/client"),
        ("original_destination", "10.96.0.10:9000"),
        ("cluster", &format!("outbound|9000|v1|{}", fqdn("tcp-echo"))),
        ("endpoint", &scene.one.address().to_string()),
        ("received_bytes", "6"),
        ("sent_bytes", "10"),
        ("response_flags", "-"),
        ("cause", "client_fin"),
        ("path", datapath.path()),
    ] {
        assert_eq!(field(&line, key), expected, "{key} in {line}");
    }
    let time = field(&line, "time");
    assert!(time.len() == 24 && time.ends_with('Z') && time.contains('T'), "{time}");
    assert!(field(&line, "duration_ms").parse::<f64>().is_ok(), "{line}");
    assert_eq!(scene.daemon.log().len(), 1);
}

#[test]
fn the_tcp_door_serves_three_paths_and_no_more() {
    let scene = Scene::echo("door", Datapath::Steer);
    for path in ["/metrics", "/healthz/live", "/healthz/ready"] {
        assert_eq!(scene.daemon.get(path).0, 200, "{path}");
    }
    for path in ["/", "/config_dump", "/routes", "/status", "/workloads", "/exec", "/metrics/../status"] {
        assert_eq!(scene.daemon.get(path).0, 404, "{path}");
    }
}

#[test]
fn the_admin_socket_is_for_root_only() {
    let scene = Scene::echo("socket", Datapath::Steer);
    let socket = scene.daemon.run_dir().join("admin.sock");
    assert_eq!(std::fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
}

fn routes_and_status_say_what_is_in_force(datapath: Datapath) {
    let scene = Scene::echo("status", datapath);
    let routes = scene.daemon.must("routes");
    for expected in ["10.96.0.10:9000", &format!("outbound|9000|v1|{}", fqdn("tcp-echo"))] {
        assert!(routes.contains(expected), "{expected} in {routes}");
    }
    let status = scene.daemon.must("status");
    assert!(status.contains("default/client") && status.contains("app=web"), "{status}");
    for words in ["routes -o json", "status -o json"] {
        let json: Result<serde_json::Value, _> = serde_json::from_str(&scene.daemon.must(words));
        assert!(json.is_ok(), "{words}");
    }
    assert_eq!(answer(&scene.client, scene.vip()), "one");
}
