//! Weights, many connections, stopping, draining, and running out of descriptors.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use nix::sys::resource::{Resource, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::harness::{PATIENCE, Proxy, echo, one, reset, server, until};

fn banner(text: &'static [u8]) -> impl Fn(TcpStream) {
    move |mut stream| stream.write_all(text).unwrap()
}

#[test]
fn connections_are_split_by_weight_and_weight_zero_gets_none() {
    let clusters = [(80, "v1", &b"1"[..]), (20, "v2", b"2"), (0, "v3", b"3")]
        .map(|(weight, subset, text)| (weight, one(subset, server(banner(text)))));
    let proxy = Proxy::start(clusters.into());
    let mut counts = [0; 3];
    for _ in 0..2000 {
        let mut byte = [0];
        proxy.dial().read_exact(&mut byte).unwrap();
        counts[usize::from(byte[0] - b'1')] += 1;
    }
    // 80 % of 2,000 within five standard deviations (18 each).
    assert!((1510..=1690).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    assert_eq!(proxy.settled().len(), 2000);
}

#[test]
fn after_2000_connections_every_gauge_is_zero() {
    let proxy = Proxy::start(vec![(1, one("", server(echo)))]);
    thread::scope(|scope| {
        for worker in 0..8 {
            let proxy = &proxy;
            scope.spawn(move || (0..250).for_each(|round| visit(proxy, worker + round)));
        }
    });
    assert_eq!(proxy.settled().len(), 2000);
    assert_eq!(proxy.metric("istio_tcp_connections_opened_total"), 2000);
    assert_eq!(proxy.metric("istio_tcp_connections_closed_total"), 2000);
    let snapshot = proxy.context.snapshot.load();
    let route = &snapshot.listeners[&proxy.address].rules[0].route;
    assert_eq!(route.destinations[0].cluster.state.active(), 0);
}

/// One connection: closed, half closed, reset early or reset late.
fn visit(proxy: &Proxy, kind: usize) {
    let mut client = proxy.dial();
    if kind.is_multiple_of(4) {
        return reset(client);
    }
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    match kind % 4 {
        1 => reset(client),
        2 => {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        _ => drop(client),
    }
}

#[test]
fn a_stopped_acceptor_refuses_and_its_connections_live_on() {
    let proxy = Proxy::start(vec![(1, one("", server(echo)))]);
    let mut client = proxy.dial();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    proxy.acceptor.stop();
    until("new connections are refused", || TcpStream::connect(proxy.address).is_err());
    client.write_all(b"y").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

#[test]
fn draining_waits_for_those_that_end_and_cuts_the_rest() {
    let proxy = Proxy::start(vec![(1, one("", server(echo)))]);
    let mut clients = [proxy.dial(), proxy.dial()];
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    let [ending, mut staying] = clients;
    let address = proxy.address;
    let draining = thread::spawn(move || proxy.drain(Duration::from_secs(1)));
    until("new connections are refused", || TcpStream::connect(address).is_err());
    drop(ending);
    let (drained, context, lines) = draining.join().unwrap();
    // The dials that tried whether it still accepts may have been open, too.
    assert!(drained.finished >= 1 && drained.cut == 1, "{drained:?}");
    assert_eq!(context.metrics.connections_open(), 0);
    let with = |cause: &str| lines.iter().filter(|line| line.contains(&format!("cause={cause} "))).count();
    assert!(with("client_fin") >= 1 && with("drain") == 1, "{lines:#?}");
    assert!(matches!(staying.read(&mut [0]), Ok(0) | Err(_)));
}

/// Names the child process that runs out of descriptors.
const CHILD: &str = "SHUNT_TEST_FEW_DESCRIPTORS";

#[test]
fn running_out_of_descriptors_backs_off_and_recovers() {
    if std::env::var_os(CHILD).is_some() {
        return run_out_of_descriptors();
    }
    let test = "lifecycle::running_out_of_descriptors_backs_off_and_recovers";
    let child =
        Command::new(std::env::current_exe().unwrap()).args([test, "--exact"]).env(CHILD, "1").output();
    let child = child.unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

fn run_out_of_descriptors() {
    let proxy = Proxy::start(vec![(1, one("", server(echo)))]);
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    setrlimit(Resource::RLIMIT_NOFILE, used + 16, used + 16).unwrap();
    let client = Socket::new(Domain::for_address(proxy.address), Type::STREAM, None).unwrap();
    let fillers: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    // The kernel takes the connection; who is to accept it has no descriptor left.
    client.connect(&proxy.address.into()).unwrap();
    let backed_off = || {
        let text = proxy.context.metrics.text().unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("shunt_accept_backoff_total "));
        count.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    until("accepting backs off", || backed_off() > 0);
    let before = (backed_off(), std::time::Instant::now());
    thread::sleep(Duration::from_millis(600));
    // Two workers, each at most every 50 ms, and some shorter pauses at first: a spinning loop would count thousands.
    let at_most = 2 * (10 + before.1.elapsed().as_millis() as u64 / 50);
    assert!(backed_off() - before.0 <= at_most, "{} pauses", backed_off() - before.0);
    drop(fillers);
    let mut client = TcpStream::from(client);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
}
