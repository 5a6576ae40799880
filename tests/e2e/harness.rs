//! The harness itself: the mesh connects, and leaves nothing behind.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;

use tests::client::{Dial, connect, must_be_refused};
use tests::mesh::Mesh;
use tests::server;

use crate::forwarding::exchange;

#[test]
fn workloads_reach_each_other_through_the_node() {
    let mesh = Mesh::new("ping");
    let (left, right) = (mesh.workload("left"), mesh.workload("right"));
    let extra = "10.9.9.9".parse().unwrap();
    right.claim(&mesh, extra);
    for target in [right.v4().into(), right.v6().into(), extra] {
        let listener = right.enter(|| TcpListener::bind((target, 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        left.enter(|| TcpStream::connect((target, port)).unwrap_or_else(|error| panic!("{target}: {error}")));
    }
}

#[test]
fn a_dropped_mesh_is_gone() {
    let mesh = Mesh::new("gone");
    let path = mesh.workload("client").path();
    let node = mesh.node().path();
    drop(mesh);
    assert!(!path.exists() && !node.exists());
    assert!(Path::new("/run/netns").exists());
}

#[test]
fn servers_and_clients_talk_over_both_families() {
    let mesh = Mesh::new("talk");
    let (client, server) = (mesh.workload("client"), mesh.workload("server"));
    let echo = server::tcp_echo(&server, 9000, "one");
    let who = server::who_am_i(&server, 9001, "who");
    connect(&client, echo.address()).must_echo("hello", "one hello").half_close().must_be_closed();
    connect(&client, (server.v6(), 9000).into()).must_echo("hello", "one hello");
    Dial::to(echo.address()).v4_mapped().from_port(5000).connect(&client).must_echo("mapped", "one mapped");
    assert_eq!(echo.accepted(), 3);
    assert_eq!(connect(&client, who.address()).line(), format!("who {}", client.v4()));
    must_be_refused(&client, (server.v4(), 9).into());
}

#[test]
fn resets_and_checksums_are_what_they_are() {
    let mesh = Mesh::new("sums");
    let (client, server) = (mesh.workload("client"), mesh.workload("server"));
    let resetter = server::resetter(&server, 9000);
    connect(&client, resetter.address()).send("bye\n").must_be_reset();
    let (tell, ended) = mpsc::channel();
    let witness = server::witness(&server, 9001, tell);
    connect(&client, witness.address()).reset();
    assert_eq!(ended.recv().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    let bulk = server::bulk(&server, 9002, 20 << 20, 7);
    let mut connection = connect(&client, bulk.address());
    exchange(&mut connection, 20 << 20, 8);
}
