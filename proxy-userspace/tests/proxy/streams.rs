//! Bytes, ends and resets, in each direction.

use std::{
    hash::{DefaultHasher, Hasher},
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::harness::{PATIENCE, Proxy, echo, one, reset, server, until};

fn to(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Proxy {
    Proxy::start(vec![(1, one("", server(serve)))])
}

/// Sends `length` bytes in chunks of random sizes; returns their hash.
fn send(mut stream: &TcpStream, length: usize, seed: u64, largest: usize) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut sent, mut hash, mut chunk) = (0, DefaultHasher::new(), vec![0; largest]);
    while sent < length {
        let size = random.usize(1..=largest).min(length - sent);
        random.fill(&mut chunk[..size]);
        for byte in &chunk[..size] {
            hash.write_u8(*byte);
        }
        stream.write_all(&chunk[..size]).unwrap();
        sent += size;
    }
    stream.shutdown(Shutdown::Write).unwrap();
    hash.finish()
}

/// Reads to the end; returns length and hash.
fn receive(mut stream: &TcpStream, pause: impl Fn()) -> (usize, u64) {
    let (mut length, mut hash, mut chunk) = (0, DefaultHasher::new(), vec![0; 100_000]);
    loop {
        let size = stream.read(&mut chunk).unwrap();
        if size == 0 {
            return (length, hash.finish());
        }
        length += size;
        for byte in &chunk[..size] {
            hash.write_u8(*byte);
        }
        pause();
    }
}

/// `length` bytes each way at once, with chunks up to `largest`; the client reads with pauses.
fn both_ways(length: usize, largest: usize, pause: impl Fn() + Copy + Send) {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let (report, reported) = mpsc::channel();
    let proxy = to(move |stream| {
        thread::scope(|scope| {
            let sending = scope.spawn(|| send(&stream, length, seed ^ 1, largest));
            let received = receive(&stream, || {});
            report.send((received, sending.join().unwrap())).unwrap();
        });
    });
    let client = proxy.dial();
    let (sent, received) = thread::scope(|scope| {
        let sending = scope.spawn(|| send(&client, length, seed, largest));
        let received = receive(&client, pause);
        (sending.join().unwrap(), received)
    });
    let (server_received, server_sent) = reported.recv_timeout(PATIENCE).unwrap();
    assert_eq!(server_received, (length, sent));
    assert_eq!(received, (length, server_sent));
    let line = proxy.line();
    assert!(
        line.contains(&format!("sent_bytes={length} received_bytes={length} response_flags=- ")),
        "{line}"
    );
    assert_eq!(proxy.metric("istio_tcp_sent_bytes_total"), length as u64);
    assert_eq!(proxy.metric("istio_tcp_received_bytes_total"), length as u64);
}

#[test]
fn bulk_arrives_whole_both_ways_at_once() {
    both_ways(64 << 20, 1 << 20, || {});
}

#[test]
fn chunks_of_every_size_arrive_whole() {
    both_ways(4 << 20, 300, || {});
    both_ways(16 << 20, 40_000, || {});
}

#[test]
fn a_slow_reader_gets_everything() {
    both_ways(8 << 20, 1 << 18, || thread::sleep(Duration::from_micros(200)));
}

#[test]
fn the_client_may_close_first_and_still_be_answered() {
    let proxy = to(|mut stream| {
        let mut question = String::new();
        stream.read_to_string(&mut question).unwrap();
        stream.write_all(question.to_uppercase().as_bytes()).unwrap();
    });
    let mut client = proxy.dial();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "QUESTION");
    assert!(proxy.line().contains("cause=client_fin"));
}

#[test]
fn the_server_may_close_first_and_still_be_told() {
    let (heard, hears) = mpsc::channel();
    let proxy = to(move |mut stream| {
        stream.write_all(b"greeting").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        heard.send(rest).unwrap();
    });
    let mut client = proxy.dial();
    let mut greeting = String::new();
    client.read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "greeting");
    client.write_all(b"farewell").unwrap();
    drop(client);
    assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), "farewell");
    assert!(proxy.line().contains("cause=server_fin"));
}

#[test]
fn a_connection_without_a_byte_ends_cleanly() {
    let proxy = to(echo);
    let mut client = proxy.dial();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert!(proxy.line().contains("sent_bytes=0 received_bytes=0 response_flags=- cause=client_fin"));
}

#[test]
fn a_silent_connection_stays_open_and_its_bytes_count_at_once() {
    let proxy = to(echo);
    let mut client = proxy.dial();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    assert_eq!((proxy.open(), proxy.lines().len()), (1, 0));
    until("live bytes are counted", || proxy.metric("istio_tcp_sent_bytes_total") == 1);
    assert_eq!(proxy.metric("istio_tcp_connections_opened_total"), 1);
    assert_eq!(proxy.metric("istio_tcp_connections_closed_total"), 0);
    drop(client);
    assert!(proxy.line().contains("cause=client_fin"));
}

/// Waits for the stream to break and says how; a clean end would be a lie.
fn breaks(stream: &mut TcpStream) -> ErrorKind {
    let begin = Instant::now();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => panic!("a reset became the end of the stream"),
            Ok(_) => assert!(begin.elapsed() < PATIENCE),
            Err(error) => return error.kind(),
        }
    }
}

#[test]
fn a_clients_reset_reaches_an_idle_server() {
    let (broke, breaking) = mpsc::channel();
    let proxy = to(move |mut stream| {
        stream.write_all(b"hello").unwrap();
        broke.send(breaks(&mut stream)).unwrap();
    });
    let mut client = proxy.dial();
    client.read_exact(&mut [0; 5]).unwrap();
    reset(client);
    assert_eq!(breaking.recv_timeout(PATIENCE).unwrap(), ErrorKind::ConnectionReset);
    assert!(proxy.line().contains("cause=client_rst"));
}

#[test]
fn a_servers_reset_reaches_an_idle_client() {
    let proxy = to(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        reset(stream);
    });
    let mut client = proxy.dial();
    client.write_all(b"x").unwrap();
    assert_eq!(breaks(&mut client), ErrorKind::ConnectionReset);
    assert!(proxy.line().contains("cause=server_rst"));
}

#[test]
fn a_reset_after_the_end_of_the_stream_is_still_passed_on() {
    let (broke, breaking) = mpsc::channel();
    let proxy = to(move |mut stream| {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        // The other direction is open and idle; only a reset can end this wait.
        stream.write_all(b"!").unwrap();
        let gone = socket2::SockRef::from(&stream);
        until("the socket has an error", || gone.take_error().unwrap().is_some());
        broke.send(()).unwrap();
    });
    let mut client = proxy.dial();
    client.shutdown(Shutdown::Write).unwrap();
    client.read_exact(&mut [0]).unwrap();
    reset(client);
    breaking.recv_timeout(PATIENCE).unwrap();
    assert!(proxy.line().contains("cause=client_rst"));
}

#[test]
fn a_reset_passes_a_receiver_that_takes_nothing() {
    let (stuck, go_on) = (mpsc::channel::<()>(), mpsc::channel::<()>());
    let go_on_sender = go_on.0;
    let go_on = std::sync::Mutex::new(go_on.1);
    let proxy = to(move |stream| {
        // Reads nothing until the test is over, however much waits.
        let _ = go_on.lock().unwrap().recv_timeout(PATIENCE);
        drop(stream);
    });
    let mut client = proxy.dial();
    client.set_nonblocking(true).unwrap();
    let chunk = vec![7; 1 << 20];
    let mut idle = Instant::now();
    while idle.elapsed() < Duration::from_millis(200) {
        match client.write(&chunk).map_err(|error| error.kind()) {
            Ok(written) => idle = if written > 0 { Instant::now() } else { idle },
            Err(kind) => assert_eq!(kind, ErrorKind::WouldBlock),
        }
    }
    reset(client);
    assert!(proxy.line().contains("cause=client_rst"));
    drop((go_on_sender, stuck));
}
