//! Names: those of the mesh are answered by the daemon, all others by whom the workload asked, and the client cannot tell.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

use tests::internet::wire::{self, A, AAAA, NO_ERROR, NX_DOMAIN, TXT};
use tests::internet::{RESOLVERS, read_framed, write_framed};
use tests::wait::PATIENCE;
use tests::yaml;

use super::{GOOGLE, Outlook};
use crate::scene::{VIP4, at};

const NAME: &str = "tcp-echo.default.svc.cluster.local";
/// What Kubernetes writes into the file, `resolver` apart.
const KUBERNETES: &str =
    "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:2\n";

/// How a client may ask.
#[derive(Clone, Copy, Debug)]
enum Over {
    /// UDP, and only the resolver's answer is let in.
    Connected,
    /// UDP, and anybody could answer.
    Unconnected,
    Tcp,
}

const WAYS: [Over; 3] = [Over::Connected, Over::Unconnected, Over::Tcp];

#[test]
fn programs_find_the_mesh_by_every_form_of_a_name() {
    let scene = Outlook::new("forms", "REGISTRY_ONLY");
    for resolver in RESOLVERS {
        let file = format!("nameserver {resolver}\n{KUBERNETES}");
        for name in ["tcp-echo", "tcp-echo.default", "tcp-echo.default.svc", NAME] {
            let found = scene.sh(&file, &format!("getent ahostsv4 {name} | head -n 1"));
            assert!(found.starts_with(&format!("{VIP4} ")), "{name} of {resolver}: {found:?}");
        }
    }
    let file = format!("nameserver {}\n{KUBERNETES}", RESOLVERS[0]);
    let found = scene.sh(&file, &format!("busybox nslookup {NAME}. {}", RESOLVERS[0]));
    assert!(found.contains(VIP4), "{found:?}");
    let found = scene.sh(&file, &format!("getent ahostsv4 {} | head -n 1", GOOGLE.0));
    assert!(found.starts_with(GOOGLE.1), "{found:?}");
    assert_eq!(scene.sh(&file, "getent hosts there-is.none"), "");
    // Nobody outside learns the mesh's names.
    assert_eq!(scene.internet.zone().asked(NAME), []);
}

#[test]
fn hosts_of_the_mesh_have_the_families_that_they_have() {
    let scene = Outlook::new("families", "ALLOW_ANY");
    let both = yaml::service("both", &["10.96.0.11", "fd00:96::11"], 9000);
    scene.daemon.apply("both.yaml", &both);
    let six = "fd00:96::11".parse().unwrap();
    for (over, resolver) in WAYS.into_iter().flat_map(|over| RESOLVERS.map(|resolver| (over, resolver))) {
        for (name, kind, addresses) in [
            (NAME, A, vec![VIP4.parse().unwrap()]),
            // It is there, but not in this family.
            (NAME, AAAA, vec![]),
            (NAME, TXT, vec![]),
            ("both.default.svc.cluster.local", A, vec!["10.96.0.11".parse().unwrap()]),
            ("both.default.svc.cluster.local", AAAA, vec![six]),
            ("BOTH.Default.svc.cluster.local", AAAA, vec![six]),
        ] {
            let answer = ask(&scene, resolver, over, &wire::ask(77, name, kind));
            let said = wire::read(&answer).expect("an answer");
            let what = format!("{name} {kind} of {resolver}, {over:?}");
            assert_eq!((said.code, said.addresses), (NO_ERROR, addresses), "{what}");
            assert_eq!(answer[..2], [0, 77], "{what}");
        }
    }
}

#[test]
fn what_is_not_the_meshs_goes_through_as_it_is() {
    let scene = Outlook::new("unchanged", "REGISTRY_ONLY");
    scene.internet.zone().set("six.example", &["2001:db8::77".parse().unwrap()], 30);
    for (over, resolver) in WAYS.into_iter().flat_map(|over| RESOLVERS.map(|resolver| (over, resolver))) {
        for (name, kind, code) in [
            ("wWw.GooGle.cOm", A, NO_ERROR),
            ("www.google.com", AAAA, NO_ERROR),
            ("six.example", AAAA, NO_ERROR),
            ("six.example", TXT, NO_ERROR),
            ("there-is.none", A, NX_DOMAIN),
            ("none.default.svc.cluster.local", A, NX_DOMAIN),
        ] {
            // With an EDNS record and an option that nobody knows.
            let mut query = wire::ask(0x1234, name, kind);
            query[11] = 1;
            query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6, 0xff, 0xfe, 0, 2, 7, 7]);
            let answer = ask(&scene, resolver, over, &query);
            let asked = scene.internet.zone().asked(&name.to_lowercase());
            let last = asked.last().expect("it was asked");
            let what = format!("{name} {kind} of {resolver}, {over:?}");
            assert_eq!((&last.bytes, &last.answer), (&query, &answer), "{what}");
            assert_eq!(wire::read(&answer).expect("an answer").code, code, "{what}");
            assert_eq!(last.tcp, matches!(over, Over::Tcp), "{what}");
            let own: [IpAddr; 2] = [scene.client.v4().into(), scene.client.v6().into()];
            assert!(own.contains(&last.from.ip()), "{what}: asked by {}", last.from);
        }
    }
}

#[test]
fn all_name_servers_may_be_asked_from_one_socket() {
    let scene = Outlook::new("musl", "ALLOW_ANY");
    let servers: [SocketAddr; 2] = [at(RESOLVERS[0], 53), at(RESOLVERS[1], 53)];
    let socket = unconnected(&scene, servers[0]);
    for (name, address) in [(NAME, VIP4), GOOGLE] {
        for server in servers {
            socket.send_to(&wire::ask(1, name, A), server).unwrap();
        }
        let mut from: Vec<_> = servers.iter().map(|_| receive(&socket, name, address)).collect();
        from.sort();
        assert_eq!(from, servers, "{name}");
    }
}

#[test]
fn without_the_daemon_names_are_what_they_were() {
    for policy in ["open", "closed"] {
        let mut scene = Outlook::with_args("orphan", "ALLOW_ANY", &format!("--failure-policy {policy}"));
        let find = |scene: &Outlook, name: &str| {
            scene.sh(&scene.internet.resolv_conf(), &format!("getent ahostsv4 {name} | head -n 1"))
        };
        assert!(find(&scene, NAME).starts_with(VIP4));
        scene.daemon.kill9();
        assert!(find(&scene, GOOGLE.0).starts_with(GOOGLE.1), "policy {policy}");
        assert_eq!(find(&scene, NAME), "", "policy {policy}");
        scene.daemon.start_again();
        assert!(find(&scene, NAME).starts_with(VIP4));
        scene.daemon.stop();
    }
}

#[test]
fn switched_off_it_is_off() {
    let scene = Outlook::with_args("no-dns", "ALLOW_ANY", "--dns off");
    let answer = ask(&scene, RESOLVERS[0], Over::Unconnected, &wire::ask(5, NAME, A));
    assert_eq!(wire::read(&answer).expect("an answer").code, NX_DOMAIN);
    assert_eq!(scene.internet.zone().asked(NAME).len(), 1);
}

/// The answer of `resolver` to `query` of the client.
#[track_caller]
fn ask(scene: &Outlook, resolver: &str, over: Over, query: &[u8]) -> Vec<u8> {
    let resolver = at(resolver, 53);
    let answer = match over {
        Over::Tcp => over_tcp(scene, resolver, query),
        Over::Connected | Over::Unconnected => over_udp(scene, resolver, over, query),
    };
    answer.unwrap_or_else(|error| panic!("{resolver}, {over:?}: {error}"))
}

fn over_tcp(scene: &Outlook, resolver: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = scene.client.enter(|| TcpStream::connect_timeout(&resolver, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    assert_eq!(stream.peer_addr()?, resolver);
    write_framed(&mut stream, query)?;
    read_framed(&mut stream)
}

fn over_udp(scene: &Outlook, resolver: SocketAddr, over: Over, query: &[u8]) -> io::Result<Vec<u8>> {
    let socket = unconnected(scene, resolver);
    match over {
        Over::Connected => {
            socket.connect(resolver)?;
            socket.send(query)?;
        }
        _ => drop(socket.send_to(query, resolver)?),
    }
    let mut buffer = [0; 4096];
    let (size, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, resolver, "an answer from somebody else");
    Ok(buffer[..size].to_vec())
}

/// A socket of the client, of the family of `resolver`.
fn unconnected(scene: &Outlook, resolver: SocketAddr) -> UdpSocket {
    let any = if resolver.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = scene.client.enter(|| UdpSocket::bind(any)).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    socket
}

/// Who has answered that `name` has `address`.
#[track_caller]
fn receive(socket: &UdpSocket, name: &str, address: &str) -> SocketAddr {
    let mut buffer = [0; 4096];
    let (size, from) = socket.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{name}: {error}"));
    let said = wire::read(&buffer[..size]).expect("an answer");
    assert_eq!(said.addresses, [address.parse::<IpAddr>().expect("an address")], "{name}");
    from
}
