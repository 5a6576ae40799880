//! `connectTimeout` and `tcpKeepalive`: how long an endpoint may keep silent, before and after it has answered.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use socket2::SockRef;

use tests::client::{Dial, connect};
use tests::yaml;

use crate::datapath::Datapath;
use crate::fleet::Fleet;
use crate::scene::{Scene, at};

twice! {
    an_endpoint_that_never_answers_costs_the_connect_timeout,
    an_idle_connection_is_probed_as_the_policy_says,
}

/// A ServiceEntry at 10.96.0.90 whose endpoint is behind a hole in the node, with a `connectTimeout`.
fn hole(scene: &Scene, timeout: &str) {
    scene.mesh.node().ip("route add blackhole 10.97.0.0/24");
    let entry = yaml::service_entry("hole.example", &["10.96.0.90".to_owned()], 9000, at("10.97.0.1", 9000));
    let policy = format!("connectionPool: {{tcp: {{connectTimeout: {timeout}}}}}");
    scene.daemon.apply("hole.yaml", &(entry + &yaml::traffic_policy("hole.example", &policy, "")));
}

/// Connects to the hole: what came of it, and after how long.
fn fall(scene: &Scene) -> (io::Result<String>, Duration) {
    let begin = Instant::now();
    let dial = Dial::to(at("10.96.0.90", 9000)).try_connect(&scene.client);
    (dial.and_then(|mut connection| connection.try_line()), begin.elapsed())
}

fn an_endpoint_that_never_answers_costs_the_connect_timeout(datapath: Datapath) {
    let scene = Scene::echo("hole", datapath);
    hole(&scene, "2s");
    let (outcome, after) = fall(&scene);
    let error = outcome.expect_err("nobody is there");
    if datapath == Datapath::Direct {
        assert_eq!(error.raw_os_error(), Some(nix::libc::ETIMEDOUT), "{error}");
    }
    // The kernel looks at the clock when it would send the next SYN: after 1 s, then 3 s.
    let (least, most) = (Duration::from_millis(1_900), Duration::from_millis(4_500));
    assert!(least < after && after < most, "{after:?}");
    let line = scene.must_log(&[("cause", "connect_timeout"), ("endpoint", "10.97.0.1:9000")]);
    assert_eq!(line["response_flags"], "UF,URX");
    scene.daemon.must_settle();
}

#[test]
fn a_connect_timeout_below_a_second_is_the_daemons() {
    let scene = Scene::echo("short", Datapath::Direct);
    hole(&scene, "300ms");
    let (outcome, after) = fall(&scene);
    assert!(outcome.is_err() && after < Duration::from_secs(1), "{after:?}");
    let row = scene.route(at("10.96.0.90", 9000));
    let reason = "connectTimeout of outbound|9000||hole.example is below 1s, which the kernel cannot keep";
    assert_eq!((&row["verdict"], &row["reason"]), (&"steer".into(), &reason.into()));
}

#[test]
fn the_applications_own_timeout_is_given_back() {
    let fleet = Fleet::new("given", Datapath::Direct, 1, "connectionPool: {tcp: {connectTimeout: 2s}}");
    let plain = connect(&fleet.scene.client, fleet.vip());
    assert_eq!(SockRef::from(&plain.stream).tcp_user_timeout().expect("an option"), None);
    let own = Some(Duration::from_secs(77));
    let theirs = fleet.scene.client.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_tcp_user_timeout(own)?;
        socket.connect(&fleet.vip().into())?;
        socket.tcp_user_timeout()
    });
    assert_eq!(theirs.expect("a connection"), own);
}

fn an_idle_connection_is_probed_as_the_policy_says(datapath: Datapath) {
    let probed = "connectionPool: {tcp: {tcpKeepalive: {time: 100s, interval: 7s, probes: 3}}}";
    let fleet = Fleet::new("probes", datapath, 1, probed);
    let mut open = connect(&fleet.scene.client, fleet.vip());
    open.must_echo("hello", "0 hello");
    let target = fleet.endpoint(0).to_string();
    // Both the client's socket and the daemon's are in the client's namespace, whoever talks to the endpoint.
    let ss = fleet.scene.client.output(Command::new("ss").args(["-Htno", "dst", &target]));
    let shown = String::from_utf8_lossy(&ss.expect("start ss").stdout).into_owned();
    assert!(shown.contains("timer:(keepalive,1min"), "{shown:?}");
    if datapath == Datapath::Direct {
        let socket = SockRef::from(&open.stream);
        let (idle, interval) = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
        assert_eq!(idle.expect("an option"), Duration::from_secs(100));
        assert_eq!(interval.expect("an option"), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), 3);
    }
}
