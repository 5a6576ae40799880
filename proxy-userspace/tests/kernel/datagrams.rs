//! Datagrams and other kinds of sockets of a workload under REGISTRY_ONLY.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

use nix::libc;
use proxy_common::{FailurePolicy, direct::Denied};
use proxy_traffic::EgressVerdict::{self, Allow, Close, Refuse};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    address,
    policy::{count, denied, denied_as, inside, rules, world},
    world::{PATIENCE, World, disconnect},
};

/// Where datagrams may go in these stories, and where they may not: another address, another port, both families.
const WAYS: [(&str, u16); 3] = [("10.98.7.0/24", 5000), ("10.98.9.9/32", 5001), ("fd98:7::/64", 5000)];
const OPEN: [&str; 3] = ["10.98.7.7:5000", "[fd98:7::7]:5000", "[::ffff:10.98.7.8]:5000"];
const SHUT: [&str; 5] =
    ["10.98.8.7:5000", "10.98.7.7:5001", "[fd98:8::7]:5000", "[fd98:7::7]:5001", "[::ffff:10.98.8.7]:5000"];
/// The latter as the programs see them.
const SEEN: [&str; 5] =
    ["10.98.8.7:5000", "10.98.7.7:5001", "[fd98:8::7]:5000", "[fd98:7::7]:5001", "10.98.8.7:5000"];

/// Receives whatever comes to a port, of any address and either family.
struct Inbox(UdpSocket);

impl Inbox {
    fn open(world: &World, port: u16) -> Self {
        let open = || {
            let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
            socket.set_only_v6(false).unwrap();
            socket.bind(&address(&format!("[::]:{port}"))).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.into()
        };
        Self(world.server.enter(open).unwrap())
    }

    fn next(&self) -> String {
        let mut text = [0; 64];
        let length = self.0.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    }
}

/// An unbound socket of the workload.
fn socket(world: &World, domain: Domain) -> Socket {
    world.in_workload(|| Socket::new(domain, Type::DGRAM, None).unwrap())
}

fn domain(to: &str) -> Domain {
    Domain::for_address(to.parse::<SocketAddr>().unwrap())
}

/// Connects, and sends the address itself.
fn connect_and_send(world: &World, to: &str) -> io::Result<usize> {
    let socket = socket(world, domain(to));
    socket.connect(&address(to))?;
    socket.send(to.as_bytes())
}

fn send_to(world: &World, to: &str) -> io::Result<usize> {
    socket(world, domain(to)).send_to(to.as_bytes(), &address(to))
}

/// An IPv4 socket lets its destination have no family, and sends to it all the same.
fn send_to_no_family(world: &World, to: &str) -> io::Result<usize> {
    let to_v4 = address(to).as_socket_ipv4().expect("only those have that way");
    // SAFETY: zero is a valid value of every field.
    let mut bare: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    bare.sin_family = libc::AF_UNSPEC as libc::sa_family_t;
    bare.sin_port = to_v4.port().to_be();
    bare.sin_addr.s_addr = u32::from_ne_bytes(to_v4.ip().octets());
    let fill = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: the storage is larger than any address, and both are ours to write.
        unsafe {
            storage.cast::<libc::sockaddr_in>().write(bare);
            length.write(size_of::<libc::sockaddr_in>() as libc::socklen_t);
        }
        Ok(())
    };
    // SAFETY: the address is initialised, and of the length that was written.
    let ((), bare) = unsafe { SockAddr::try_init(fill) }?;
    socket(world, Domain::IPV4).send_to(to.as_bytes(), &bare)
}

fn assert_refused<T: std::fmt::Debug>(outcome: io::Result<T>, what: &str) {
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{what}");
}

#[test]
fn datagrams_go_where_an_entry_lets_them_and_nowhere_else() {
    for verdict in [Close, Refuse] {
        let mut world = world(FailurePolicy::Open, verdict, &WAYS);
        let inbox = Inbox::open(&world, 5000);
        for send in [connect_and_send, send_to] {
            for to in SHUT {
                assert_refused(send(&world, to), to);
            }
            assert_eq!(denied_as(&mut world, Denied::Udp), SEEN);
            for to in OPEN {
                send(&world, to).unwrap();
                assert_eq!(inbox.next(), to, "nothing else arrived before");
            }
        }
        assert_eq!(count(&world, "datagram_refused"), 10);
        assert_eq!(denied(&mut world), [], "{verdict:?}");
    }
}

#[test]
fn a_destination_without_a_family_is_looked_at_by_what_it_is() {
    let world = world(FailurePolicy::Open, Refuse, &WAYS);
    let inbox = Inbox::open(&world, 5000);
    assert_refused(send_to_no_family(&world, SHUT[0]), SHUT[0]);
    send_to_no_family(&world, OPEN[0]).unwrap();
    assert_eq!(inbox.next(), OPEN[0]);
}

#[test]
fn an_ipv6_socket_reaches_over_ipv4_what_an_ipv4_socket_does() {
    let world = world(FailurePolicy::Open, Refuse, &WAYS);
    let inbox = Inbox::open(&world, 5000);
    let socket = socket(&world, Domain::IPV6);
    // With an address of the other family, as the kernel allows it.
    assert_refused(socket.connect(&address(SHUT[0])), "connect");
    assert_refused(socket.send_to(b"no", &address(SHUT[0])), "sendto");
    socket.send_to(b"sent", &address(OPEN[0])).unwrap();
    socket.connect(&address(OPEN[0])).unwrap();
    socket.send(b"connected").unwrap();
    assert_eq!([inbox.next(), inbox.next()], ["sent", "connected"]);
}

#[test]
fn a_connected_socket_that_names_another_destination_is_looked_at_again() {
    let world = world(FailurePolicy::Open, Refuse, &WAYS);
    let socket = socket(&world, Domain::IPV4);
    socket.connect(&address(OPEN[0])).unwrap();
    assert_refused(socket.send_to(b"no", &address(SHUT[0])), "sendto");
    disconnect(&socket);
    assert_refused(socket.connect(&address(SHUT[0])), "connect");
}

#[test]
fn datagrams_stay_at_home_and_ask_name_servers() {
    let world = world(FailurePolicy::Open, Refuse, &[]);
    let homes =
        ["127.0.0.1:5000", "10.77.0.2:5000", "[::1]:5000", "[fd77::2]:5000", "[::ffff:127.0.0.1]:5000"];
    let resolvers = ["10.98.0.53:53", "[fd98::53]:53", "[::ffff:10.98.0.53]:53"];
    for to in homes.into_iter().chain(resolvers) {
        connect_and_send(&world, to).unwrap();
        send_to(&world, to).unwrap();
    }
    assert_eq!(count(&world, "datagram_refused"), 0);
}

#[test]
fn a_way_that_opens_or_closes_does_so_for_sockets_that_exist() {
    let mut world = world(FailurePolicy::Open, Refuse, &WAYS);
    let inbox = Inbox::open(&world, 5000);
    let socket = socket(&world, Domain::IPV4);
    let send = |world: &mut World, verdict: EgressVerdict, ways: &[(&str, u16)]| {
        world.kernel_mut().sync(&rules(verdict, ways)).unwrap();
        let used = world.kernel().fill().iter().find(|fill| fill.table == "WAYS").unwrap().used;
        assert_eq!(used as usize, ways.len());
        socket.send_to(b"hello", &address(OPEN[0]))
    };
    for _ in 0..2 {
        send(&mut world, Refuse, &WAYS).unwrap();
        assert_refused(send(&mut world, Refuse, &WAYS[1..]), "the way is gone");
        assert_refused(send(&mut world, Close, &WAYS[1..]), "the way is gone");
        send(&mut world, Allow, &[]).unwrap();
        assert_refused(send(&mut world, Refuse, &[]), "no way at all");
    }
    assert_eq!((0..4).map(|_| inbox.next()).collect::<Vec<_>>(), ["hello"; 4]);
}

#[test]
fn a_way_to_any_address_does_not_lead_to_the_infrastructure() {
    let world =
        world(FailurePolicy::Open, Refuse, &[("0.0.0.0/0", 5000), ("::/0", 5000), ("169.254.7.7/32", 5000)]);
    for to in ["169.254.169.254:5000", "[fd00:ec2::254]:5000", "[::ffff:169.254.169.254]:5000"] {
        assert_refused(connect_and_send(&world, to), to);
        assert_refused(send_to(&world, to), to);
    }
    for to in ["10.98.1.1:5000", "169.254.7.7:5000", "[fd98::1]:5000"] {
        connect_and_send(&world, to).unwrap();
        send_to(&world, to).unwrap();
    }
}

#[test]
fn ways_without_room_are_named_and_the_others_stay_open() {
    let mut world = World::with_claims(FailurePolicy::Open, 8);
    world.kernel_mut().sync(&rules(Refuse, &WAYS)).unwrap();
    let fill = world.kernel().fill();
    let size = fill.iter().find(|fill| fill.table == "WAYS").unwrap().size;
    let place = |number: u32| format!("{}/32", Ipv4Addr::from(0x0a00_0000 + number));
    let many: Vec<_> = (0..=size).map(place).collect();
    let many: Vec<_> = many.iter().map(|range| (range.as_str(), 5000)).collect();
    let error = world.kernel_mut().sync(&rules(Refuse, &many)).unwrap_err().to_string();
    assert!(error.contains(&format!("WAYS is full at {size}")), "{error}");
    assert_eq!(world.kernel().trouble(), Some(error.as_str()));
    send_to(&world, OPEN[0]).unwrap();
    world.kernel_mut().sync(&rules(Refuse, &WAYS[1..])).unwrap();
    assert_eq!(world.kernel().trouble(), None);
    assert_refused(send_to(&world, OPEN[0]), OPEN[0]);
}

#[test]
fn sockets_that_no_program_would_see_send_are_not_made() {
    let mut world = world(FailurePolicy::Open, Allow, &[]);
    world.in_workload(|| fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap());
    let kinds = [
        (Domain::IPV4, Type::RAW, libc::IPPROTO_ICMP),
        (Domain::IPV4, Type::RAW, libc::IPPROTO_RAW),
        (Domain::IPV4, Type::RAW, libc::IPPROTO_UDP),
        (Domain::IPV4, Type::RAW, libc::IPPROTO_TCP),
        (Domain::IPV4, Type::DGRAM, libc::IPPROTO_ICMP),
        (Domain::IPV4, Type::DGRAM, libc::IPPROTO_UDPLITE),
        (Domain::IPV6, Type::RAW, libc::IPPROTO_ICMPV6),
        (Domain::IPV6, Type::DGRAM, libc::IPPROTO_ICMPV6),
        (Domain::IPV6, Type::DGRAM, libc::IPPROTO_UDPLITE),
    ];
    let ordinary = [
        (Domain::IPV4, Type::STREAM, 0),
        (Domain::IPV4, Type::DGRAM, 0),
        (Domain::IPV6, Type::STREAM, libc::IPPROTO_TCP),
        (Domain::IPV6, Type::DGRAM, libc::IPPROTO_UDP),
        (Domain::IPV4, Type::STREAM, libc::IPPROTO_MPTCP),
        (Domain::IPV6, Type::STREAM, libc::IPPROTO_MPTCP),
        (Domain::UNIX, Type::DGRAM, 0),
    ];
    let make = |world: &World, (domain, kind, protocol): (Domain, Type, libc::c_int)| {
        let make = || Socket::new(domain, kind, Some(Protocol::from(protocol)));
        world.in_workload(make).map(drop).map_err(|error| error.kind())
    };
    for verdict in [Allow, Close, Refuse, Allow] {
        world.kernel_mut().sync(&rules(verdict, &[])).unwrap();
        let want = if verdict == Allow { Ok(()) } else { Err(ErrorKind::PermissionDenied) };
        for kind in kinds {
            assert_eq!(make(&world, kind), want, "{verdict:?} {kind:?}");
            assert_eq!(inside(&world, "other", || make(&world, kind)), Ok(()), "a stranger: {kind:?}");
        }
        for kind in ordinary {
            assert_eq!(make(&world, kind), Ok(()), "{verdict:?} {kind:?}");
        }
        let told = denied(&mut world);
        let nowhere = "[::]:0".parse().unwrap();
        let all = kinds.map(|(_, _, protocol)| (Denied::Socket as u32, protocol as u32, nowhere));
        assert_eq!(told, if verdict == Allow { &[][..] } else { &all }, "{verdict:?}");
    }
    assert_eq!(count(&world, "socket_refused"), 2 * kinds.len() as u64);
}

#[test]
fn a_refused_kind_of_socket_says_that_it_is_not_allowed() {
    let world = world(FailurePolicy::Open, Refuse, &[]);
    let error =
        world.in_workload(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
}

#[test]
fn datagrams_of_strangers_and_of_the_daemon_go_where_they_like() {
    let mut world = world(FailurePolicy::Open, Refuse, &[]);
    for cgroup in ["other", "daemon"] {
        for send in [connect_and_send, send_to] {
            inside(&world, cgroup, || send(&world, SHUT[0])).unwrap();
        }
    }
    world.enroll(0);
    assert_refused(inside(&world, "other", || send_to(&world, SHUT[0])), "everybody in the namespace");
    for send in [connect_and_send, send_to] {
        inside(&world, "daemon", || send(&world, SHUT[0])).unwrap();
    }
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).map(drop);
    inside(&world, "daemon", || world.in_workload(raw)).unwrap();
    let elsewhere = inside(&world, "work", || world.server.enter(raw).unwrap());
    elsewhere.expect("another namespace is nobody's business");
}
