//! What a client says first, in pieces: a greeting in single bytes, one that is long, one that stops half-way.

use std::io::{Read as _, Write as _};

use rustls::{ClientConnection, Stream};
use tests::client::{Connection, connect};
use tests::yaml::external;

use super::{CNN, GOOGLE, Outlook};
use crate::scene::at;

fn scene(name: &str) -> Outlook {
    let scene = Outlook::new(name, "REGISTRY_ONLY");
    scene.daemon.apply("google.yaml", &external(GOOGLE.0, "80/HTTP 443/HTTPS", "resolution: DNS"));
    scene.await_curl("https://www.google.com/");
    scene
}

/// What a client greets with.
fn greeting(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("memory takes everything");
    }
    bytes
}

/// What the server says after the greeting.
fn answer(mut client: ClientConnection, mut connection: Connection) -> String {
    let mut session = Stream::new(&mut client, &mut connection.stream);
    session.write_all(b"GET /who HTTP/1.1\r\nhost: www.google.com\r\n\r\n").expect("ask");
    let mut answer = String::new();
    session.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn a_greeting_is_understood_however_it_comes() {
    let scene = scene("pieces");
    for (protocols, piece) in [(0, 1), (60, 6_000), (60, 700), (140, 14_500)] {
        let mut client = scene.internet.tls_client(GOOGLE.0, protocols);
        let mut connection = connect(&scene.client, at(CNN.1, 443));
        let greeting = greeting(&mut client);
        assert!(greeting.len() > 100 * protocols);
        for piece in greeting.chunks(piece) {
            connection.send(piece);
        }
        let said = answer(client, connection);
        let expected = format!("{} at {}\n", GOOGLE.0, GOOGLE.1);
        assert!(said.ends_with(&expected), "{protocols} protocols in pieces of {piece}: {said}");
    }
}

#[test]
fn a_greeting_beyond_measure_or_without_an_end_is_closed() {
    let scene = scene("beyond");
    let seen = scene.internet.requests().len();
    let mut client = scene.internet.tls_client(GOOGLE.0, 170);
    let long = greeting(&mut client);
    assert!(long.len() > 16 * 1024);
    let mut connection = connect(&scene.client, at(GOOGLE.1, 443));
    // What it does not want to read any more it may reset.
    let _ = connection.stream.write_all(&long);
    assert_eq!(connection.stream.read(&mut [0; 64]).unwrap_or(0), 0);
    let mut client = scene.internet.tls_client(GOOGLE.0, 0);
    let mut connection = connect(&scene.client, at(GOOGLE.1, 443));
    connection.send(&greeting(&mut client)[..40]).half_close();
    assert_eq!(connection.stream.read(&mut [0; 64]).unwrap_or(0), 0);
    assert_eq!(scene.internet.requests().len(), seen);
}

#[test]
fn a_request_is_understood_byte_by_byte() {
    let scene = scene("bytes");
    let mut connection = connect(&scene.client, at(CNN.1, 80));
    let request = b"GET /who HTTP/1.1\r\nUser-Agent: slow\r\nHOST: WWW.Google.com:80\r\n\r\n";
    for byte in request.chunks(1) {
        connection.send(byte);
    }
    let said = String::from_utf8(connection.rest()).unwrap();
    assert!(said.ends_with(&format!("at {}\n", GOOGLE.1)), "{said}");
}
