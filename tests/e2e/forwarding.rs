//! Bytes, FINs and resets cross the proxy as they would cross a wire.

use std::io::{ErrorKind, Read};
use std::sync::mpsc;
use std::thread;

use tests::client::{Connection, connect};
use tests::server::{self, Pace};

use crate::datapath::Datapath;
use crate::scene::Scene;

twice! {
    a_gibibyte_crosses_each_way_at_once_unharmed,
    a_half_close_leaves_the_other_direction_open,
    a_reset_by_the_client_is_a_reset_for_the_server,
    a_reset_by_the_server_is_a_reset_for_the_client,
    a_server_may_speak_first,
    a_silent_connection_stays,
}

fn a_gibibyte_crosses_each_way_at_once_unharmed(datapath: Datapath) {
    const GIBIBYTE: u64 = 1 << 30;
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let scene = Scene::with_server("bulk", datapath, |workload| server::bulk(workload, 9000, GIBIBYTE, seed));
    exchange(&mut connect(&scene.client, scene.vip()), GIBIBYTE, seed.wrapping_add(1));
    let (received, sent) = (GIBIBYTE.to_string(), (GIBIBYTE + 64).to_string());
    scene.must_log(&[("received_bytes", &received), ("sent_bytes", &sent), ("response_flags", "-")]);
}

/// Sends `bytes` while reading as many, and compares checksums with a [`server::bulk`].
pub(crate) fn exchange(connection: &mut Connection, bytes: u64, seed: u64) {
    let mut reader = connection.stream.try_clone().expect("a second handle");
    let reading = thread::spawn(move || server::receive(&mut reader, bytes, Pace::Slow));
    let sent = server::send(&mut connection.stream, bytes, seed).expect("all is sent");
    let read = reading.join().expect("no panic").expect("all arrives");
    let mut verdict = [0; 64];
    connection.stream.read_exact(&mut verdict).expect("both checksums");
    assert!(verdict[..32] == read, "what the server sent arrived damaged (seed {seed})");
    assert!(verdict[32..] == sent, "what the client sent arrived damaged (seed {seed})");
    connection.must_be_closed();
}

fn a_half_close_leaves_the_other_direction_open(datapath: Datapath) {
    let scene = Scene::with_server("half", datapath, |workload| server::echo(workload, 9000));
    let mut connection = connect(&scene.client, scene.vip());
    connection.send("first ").send("second").half_close();
    assert_eq!(connection.rest(), b"first second");
    scene.must_log(&[("cause", "client_fin"), ("received_bytes", "12"), ("sent_bytes", "12")]);
}

fn a_reset_by_the_client_is_a_reset_for_the_server(datapath: Datapath) {
    let (tell, ended) = mpsc::channel();
    let scene = Scene::with_server("crst", datapath, move |workload| server::witness(workload, 9000, tell));
    let mut connection = connect(&scene.client, scene.vip());
    connection.send("abc");
    tests::wait::until("the server has it", || scene.one.accepted() == 1);
    connection.reset();
    let ended = ended.recv().expect("the server tells").expect_err("a reset");
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
    scene.must_log(&[("cause", "client_rst")]);
}

fn a_reset_by_the_server_is_a_reset_for_the_client(datapath: Datapath) {
    let scene = Scene::with_server("srst", datapath, |workload| server::resetter(workload, 9000));
    connect(&scene.client, scene.vip()).send("bye\n").must_be_reset();
    scene.must_log(&[("cause", "server_rst")]);
}

fn a_server_may_speak_first(datapath: Datapath) {
    let scene = Scene::with_server("banner", datapath, |workload| server::who_am_i(workload, 9000, "one"));
    let mut connection = connect(&scene.client, scene.vip());
    assert_eq!(connection.line(), format!("one {}", scene.client.v4()));
    connection.must_echo("and now me", "and now me");
}

fn a_silent_connection_stays(datapath: Datapath) {
    let scene = Scene::echo("silent", datapath);
    let mut silent = connect(&scene.client, scene.vip());
    scene.answers(200);
    silent.must_echo("still there?", "one still there?");
}
