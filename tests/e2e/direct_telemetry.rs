//! What an operator reads of connections that the kernel routes: the same as of those that the daemon carries, and the
//! bytes of those that are still open.

use tests::client::connect;
use tests::daemon::field;
use tests::yaml::fqdn;

use crate::datapath::Datapath;
use crate::scene::{Scene, VIP4, answer, at};

#[test]
fn bytes_of_a_direct_connection_are_seen_while_it_is_open_and_after() {
    let scene = Scene::echo("live", Datapath::Direct);
    let service = fqdn("tcp-echo");
    let labels = [("source_workload", "client"), ("destination_service", &*service), ("response_flags", "-")];
    let read = |name: &str| scene.daemon.metrics().sum(name, &labels);
    let counts = || {
        (
            read("istio_tcp_connections_opened_total"),
            read("istio_tcp_connections_closed_total"),
            read("istio_tcp_received_bytes_total"),
            read("istio_tcp_sent_bytes_total"),
        )
    };
    let open = || scene.daemon.metrics().sum("shunt_direct_connections_open", &[]);
    let mut connection = connect(&scene.client, scene.vip());
    connection.must_echo("hello", "one hello");
    tests::wait::until("its bytes are seen", || counts() == (1, 0, 6, 10));
    assert_eq!(open(), 1);
    connection.must_echo("again", "one again");
    tests::wait::until("more bytes are seen", || counts() == (1, 0, 12, 20));
    connection.half_close().must_be_closed();
    tests::wait::until("it is over", || counts() == (1, 1, 12, 20));
    assert_eq!(open(), 0);
    let seconds = "shunt_direct_rtt_seconds_count";
    assert_eq!(scene.daemon.metrics().sum(seconds, &[("endpoint", &scene.one.address().to_string())]), 1);
}

#[test]
fn a_refused_connect_has_its_flag_in_the_log_and_in_the_metrics() {
    let scene = Scene::echo("flags", Datapath::Direct);
    drop(scene.one);
    let dialled = scene.client.enter(|| std::net::TcpStream::connect(at(VIP4, 9000)));
    assert_eq!(dialled.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    let line = scene.daemon.must_log(&[("response_flags", "UF,URX")]);
    for (key, expected) in [("cause", "connect_refused"), ("path", "direct"), ("workload", "default/client")]
    {
        assert_eq!(field(&line, key), expected, "{key} in {line}");
    }
    let failed = [("response_flags", "UF,URX"), ("destination_version", "v1")];
    for name in ["istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total"] {
        assert_eq!(scene.daemon.metrics().sum(name, &failed), 1, "{name}");
    }
}

#[test]
fn routes_and_status_tell_who_routes_and_why() {
    let scene = Scene::with_args("who", Datapath::Direct, "--lease 30s");
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    let routes = scene.daemon.must("routes");
    assert!(routes.contains("10.96.0.10:9000  direct  tcp-echo.default"), "{routes}");
    let status = scene.daemon.must("status");
    for expected in [
        "datapath: the kernel routes what it can (auto)",
        "pins: none",
        "the lease has 29 s left",
        "CLUSTERS 1 of 65536",
        "direct 1",
    ] {
        assert!(status.contains(expected), "{expected} in {status}");
    }
}

#[test]
fn pins_survive_a_kill_and_the_next_daemon_takes_them_over_with_its_counts() {
    let mut scene = Scene::with_args("pins", Datapath::Direct, "--pin");
    assert_eq!(scene.answers(3)["one"], 3);
    assert!(scene.daemon.must("status").contains("made by this one"), "{}", scene.daemon.must("status"));
    scene.daemon.kill9();
    assert_eq!(scene.answers(2)["one"], 2, "the kernel goes on");
    scene.daemon.start_again();
    assert_eq!(scene.answers(4)["one"], 4);
    let status = scene.daemon.must("status");
    assert!(status.contains("taken over from an earlier daemon"), "{status}");
    tests::wait::until("all nine are counted", || {
        scene.daemon.metrics().sum("istio_tcp_connections_closed_total", &[("source_workload", "client")])
            == 9
    });
    scene.daemon.terminate();
    scene.daemon.must_end_clean();
    assert!(!scene.daemon.run_dir().join("pins").exists());
}
