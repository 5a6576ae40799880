//! What an operator reads of attempts that came to nothing: one line and one count for each.

use std::net::UdpSocket;

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use tests::client::{Dial, connect, must_be_refused};
use tests::daemon::field;
use tests::internet::ECHO;
use tests::wait;

use super::{GOOGLE, Outlook};
use crate::scene::at;

const COUNTER: &str = "shunt_egress_blocked_total";

/// Waits until the counter says `expected` for `labels`, and for all labels together.
#[track_caller]
fn must_count(scene: &Outlook, labels: &[(&str, &str)], expected: u64) {
    wait::until(&format!("{expected} attempts are counted with {labels:?}"), || {
        scene.daemon.metrics().sum(COUNTER, labels) == expected
    });
}

/// The lines about what was denied.
fn denied(scene: &Outlook) -> Vec<Value> {
    let is_it = |line: &Value| field(line, "cluster") == "BlackHoleCluster";
    scene.daemon.log().into_iter().filter(is_it).collect()
}

#[test]
fn every_closed_connection_has_one_line_and_one_count() {
    let scene = Outlook::new("closed-line", "REGISTRY_ONLY");
    let mut connection = connect(&scene.client, at(GOOGLE.1, ECHO));
    let source = connection.local().to_string();
    connection.must_be_closed();
    let line = scene.daemon.must_log(&[("source", &source)]);
    for (key, expected) in [
        ("workload", "default/client"),
        ("original_destination", "203.0.113.10:9000"),
        ("cluster", "BlackHoleCluster"),
        ("response_flags", "UH"),
        ("cause", "egress_denied"),
    ] {
        assert_eq!(field(&line, key), expected, "{key} in {line}");
    }
    let labels = [("source_workload", "client"), ("destination", "203.0.113.10:9000")];
    must_count(&scene, &labels, 1);
    scene.must_curl("https://www.google.com/", 35, 0);
    scene.must_curl("http://www.google.com/", 0, 502);
    for port in [443, 80] {
        must_count(&scene, &[("destination", &format!("203.0.113.10:{port}"))], 1);
    }
    must_count(&scene, &[("source_workload", "client"), ("source_workload_namespace", "default")], 3);
    scene.daemon.must_settle();
    wait::until("each has its line", || denied(&scene).len() == 3);
}

#[test]
fn every_refused_attempt_has_one_line_and_one_count() {
    let scene = Outlook::with_args("refused-line", "REGISTRY_ONLY", "--egress-blocked refuse");
    must_be_refused(&scene.client, at(GOOGLE.1, ECHO));
    Dial::to(at(GOOGLE.1, ECHO)).v4_mapped().try_connect(&scene.client).expect_err("it is refused");
    let socket = scene.client.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let error = socket.send_to(b"hello", at(GOOGLE.1, 4433)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    scene.client.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))).unwrap_err();
    must_count(&scene, &[("source_workload", "client")], 4);
    must_count(&scene, &[("destination", "203.0.113.10:9000"), ("protocol", "tcp")], 2);
    must_count(&scene, &[("destination", "203.0.113.10:4433"), ("protocol", "udp")], 1);
    must_count(&scene, &[("protocol", "icmp")], 1);
    wait::until("each has its line", || denied(&scene).len() == 4);
    scene.daemon.must_log(&[("cause", "socket_denied")]);
    let line = scene.daemon.must_log(&[("original_destination", "203.0.113.10:4433")]);
    for (key, expected) in
        [("workload", "default/client"), ("response_flags", "UH"), ("cause", "datagram_denied")]
    {
        assert_eq!(field(&line, key), expected, "{key} in {line}");
    }
}

#[test]
fn what_is_allowed_is_not_counted() {
    let scene = Outlook::new("uncounted", "ALLOW_ANY");
    scene.must_echo(GOOGLE.1);
    scene.must_curl("https://www.google.com/", 0, 200);
    scene.daemon.must_settle();
    assert_eq!(scene.daemon.metrics().sum(COUNTER, &[]), 0);
    assert_eq!(denied(&scene).len(), 0);
}
