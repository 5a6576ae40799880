//! Many connections: nothing leaks, and running out of descriptors is survived.

use tests::client::{Connection, connect};
use tests::daemon::field;
use tests::server;

use crate::datapath::Datapath;
use crate::scene::{Scene, answer};

twice! {
    two_thousand_connections_leave_every_gauge_at_zero,
    many_connections_at_once_are_all_served,
}

fn two_thousand_connections_leave_every_gauge_at_zero(datapath: Datapath) {
    let scene = Scene::echo("churn", datapath);
    assert_eq!(scene.answers(2_000)["one"], 2_000);
    let metrics = scene.daemon.must_settle();
    assert_eq!(metrics.sum("istio_tcp_connections_opened_total", &[]), 2_000);
    assert_eq!(metrics.sum("istio_tcp_connections_closed_total", &[]), 2_000);
    assert_eq!(metrics.sum("istio_tcp_received_bytes_total", &[]), 2_000 * 6);
    assert_eq!(metrics.sum("istio_tcp_sent_bytes_total", &[]), 2_000 * 10);
    assert_eq!(metrics.sum("shunt_access_log_dropped_total", &[]), 0);
    tests::wait::until("every connection has its line", || scene.daemon.log().len() >= 2_000);
    let log = scene.daemon.log();
    let mut sources: Vec<_> = log.iter().map(|line| field(line, "source")).collect();
    sources.sort();
    sources.dedup();
    assert_eq!((log.len(), sources.len()), (2_000, 2_000), "exactly one line a connection");
}

fn many_connections_at_once_are_all_served(datapath: Datapath) {
    let scene = Scene::echo("crowd", datapath);
    let mut crowd: Vec<Connection> = (0..500).map(|_| connect(&scene.client, scene.vip())).collect();
    for connection in &mut crowd {
        connection.must_echo("hello", "one hello");
    }
    assert_eq!(datapath.open(&scene.daemon.metrics()), 500);
    drop(crowd);
    scene.daemon.must_settle();
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let tcp_echo = |workload: &_| server::tcp_echo(workload, 9000, "one");
    let scene = Scene::set("emfile", Datapath::Steer, |setup| setup.open_files(256), tcp_echo);
    // The kernel completes them all; the daemon can accept only some until others end.
    let mut crowd: Vec<Connection> = (0..300).map(|_| connect(&scene.client, scene.vip())).collect();
    crowd[0].must_echo("hello", "one hello");
    drop(crowd);
    tests::wait::until("new connections are served again", || {
        let mut connection = connect(&scene.client, scene.vip());
        connection.send("hello\n").try_line().is_ok()
    });
    let metrics = scene.daemon.must_settle();
    assert!(metrics.sum("shunt_accept_backoff_total", &[]) > 0, "{}", metrics.text());
    assert_eq!(answer(&scene.client, scene.vip()), "one");
}
