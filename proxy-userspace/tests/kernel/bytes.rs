//! What the record of a connection says: how many bytes went each way, and who ended it.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use proxy_common::direct::{Event, EventCause, EventKind};
use socket2::Socket;

use crate::{
    stage::{SERVED, Stage},
    world::PATIENCE,
};

const BYTES: [u8; 1000] = [7; 1000];

type Story = fn(TcpStream, TcpStream);

/// Name, story, cause; bytes that the client sent, and got.
const CASES: &[(&str, Story, EventCause, u64, u64)] = &[
    ("client closes at once", client_closes, EventCause::ClientFin, 0, 0),
    (
        "client closes",
        |client, server| talked(client, server, client_closes),
        EventCause::ClientFin,
        1000,
        1000,
    ),
    ("server closes at once", |client, server| client_closes(server, client), EventCause::ServerFin, 0, 0),
    (
        "server closes",
        |client, server| talked(client, server, |client, server| client_closes(server, client)),
        EventCause::ServerFin,
        1000,
        1000,
    ),
    ("client half closes", half_closes, EventCause::ClientFin, 1000, 1000),
    ("server half closes", |client, server| half_closes(server, client), EventCause::ServerFin, 1000, 1000),
    ("client half closes, then leaves", left, EventCause::ClientFin, 1000, 1000),
    ("client resets at once", |client, _server| reset(client), EventCause::ClientReset, 0, 0),
    (
        "client resets",
        |client, server| talked(client, server, |client, _server| reset(client)),
        EventCause::ClientReset,
        1000,
        1000,
    ),
    ("server resets at once", |client, server| reset_by(server, client), EventCause::ServerReset, 0, 0),
    (
        "server resets",
        |client, server| talked(client, server, |client, server| reset_by(server, client)),
        EventCause::ServerReset,
        1000,
        1000,
    ),
    ("client leaves bytes unread", unread, EventCause::ClientReset, 0, 1000),
];

#[test]
fn records_tell_exact_bytes_and_who_ended_it() {
    let mut stage = Stage::new();
    let mut wrong = Vec::new();
    for (name, story, cause, received, sent) in CASES {
        stage.next(&[SERVED]);
        let (client, server) = stage.pair();
        let port = client.local_addr().unwrap().port();
        story(client, server);
        let event = record(&mut stage);
        let sum = stage.settled();
        assert_eq!((sum.received, sum.sent), (event.received, event.sent), "{name}: the account");
        assert_eq!(
            (event.kind, u16::from_be_bytes(event.source_port)),
            (EventKind::Closed as u32, port),
            "{name}"
        );
        if (event.cause, event.received, event.sent) != (*cause as u32, *received, *sent) {
            wrong.push(format!("{name}: cause {}, {} and {}", event.cause, event.received, event.sent));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn record(stage: &mut Stage) -> Event {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut events = stage.events();
        if let Some(event) = events.pop() {
            assert!(events.is_empty(), "{events:?}");
            return event;
        }
        assert!(Instant::now() < deadline, "no record");
        std::thread::yield_now();
    }
}

fn to_end(stream: &mut TcpStream) -> usize {
    stream.read_to_end(&mut Vec::new()).unwrap()
}

fn talked(mut client: TcpStream, mut server: TcpStream, then: Story) {
    client.write_all(&BYTES).unwrap();
    server.read_exact(&mut [0; BYTES.len()]).unwrap();
    server.write_all(&BYTES).unwrap();
    client.read_exact(&mut [0; BYTES.len()]).unwrap();
    then(client, server);
}

fn client_closes(first: TcpStream, mut second: TcpStream) {
    drop(first);
    assert_eq!(to_end(&mut second), 0);
}

fn half_closes(mut first: TcpStream, mut second: TcpStream) {
    first.write_all(&BYTES).unwrap();
    first.shutdown(Shutdown::Write).unwrap();
    assert_eq!(to_end(&mut second), BYTES.len());
    second.write_all(&BYTES).unwrap();
    drop(second);
    assert_eq!(to_end(&mut first), BYTES.len());
}

/// The server has more to say, and nobody listens.
fn left(mut client: TcpStream, mut server: TcpStream) {
    client.write_all(&BYTES).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(to_end(&mut server), BYTES.len());
    server.write_all(&BYTES).unwrap();
    client.read_exact(&mut [0; BYTES.len()]).unwrap();
    drop(client);
}

fn reset(stream: TcpStream) {
    Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn reset_by(first: TcpStream, mut second: TcpStream) {
    reset(first);
    second.read(&mut [0]).unwrap_err();
}

fn unread(client: TcpStream, mut server: TcpStream) {
    server.write_all(&BYTES).unwrap();
    assert_eq!(client.peek(&mut [0; BYTES.len()]).unwrap(), BYTES.len());
    drop(client);
    server.read(&mut [0]).unwrap_err();
}
