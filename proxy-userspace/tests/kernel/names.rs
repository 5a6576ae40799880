//! Questions to name servers: they arrive at the daemon's name sockets, whoever was asked, and answers look like the asked one's.

use std::{
    io::IoSliceMut,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _},
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, poll},
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg},
};
use proxy_common::FailurePolicy;
use proxy_traffic::EgressVerdict::{Allow, Close, Refuse};
use shunt::node::NameSockets;
use socket2::{Domain, Socket, Type};

use crate::{
    address,
    policy::{count, enroll_with_names, inside, know_home, rules, serve, world},
    world::{PATIENCE, World},
};

/// Nobody has these addresses.
const RESOLVER: &str = "203.0.113.53:53";
const RESOLVER6: &str = "[2001:db8::53]:53";

/// A question as it arrived.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    text: String,
    /// Who was asked.
    asked: SocketAddr,
    from: SocketAddr,
}

fn has_question(socket: &UdpSocket, milliseconds: u16) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, milliseconds).unwrap() > 0
}

/// Takes a question and answers it with its own text, in the name of whoever was asked.
fn answer(names: &NameSockets, socket: &UdpSocket) -> Question {
    assert!(has_question(socket, PATIENCE.as_millis() as u16), "no question came");
    let mut text = [0; 64];
    let mut buffers = [IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!(libc::sockaddr_in, libc::sockaddr_in6);
    let fd = socket.as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut buffers, Some(&mut space), MsgFlags::empty()).unwrap();
    let asked = message.cmsgs().unwrap().find_map(|one| match one {
        ControlMessageOwned::Ipv4OrigDstAddr(at) => {
            Some(SocketAddr::from(std::net::SocketAddrV4::from(SockaddrIn::from(at))))
        }
        ControlMessageOwned::Ipv6OrigDstAddr(at) => {
            Some(SocketAddr::from(std::net::SocketAddrV6::from(SockaddrIn6::from(at))))
        }
        _ => None,
    });
    let (asked, from) = (asked.unwrap(), message.address.unwrap());
    let length = message.bytes;
    let v4 = from.as_sockaddr_in().map(|from| SocketAddr::from(std::net::SocketAddrV4::from(*from)));
    let v6 = || SocketAddr::from(std::net::SocketAddrV6::from(*from.as_sockaddr_in6().unwrap()));
    let from = v4.unwrap_or_else(v6);
    names.answers.send(asked, from, &text[..length]).unwrap();
    Question { text: String::from_utf8_lossy(&text[..length]).into_owned(), asked, from }
}

/// The workload's socket, whose reads do not wait for ever.
fn client(world: &World, domain: Domain) -> Socket {
    let socket = world.in_workload(|| Socket::new(domain, Type::DGRAM, None).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Where a question to `resolver` of an IPv4 or IPv6 socket comes out.
fn door<'a>(names: &'a NameSockets, resolver: &str) -> &'a UdpSocket {
    let resolver: SocketAddr = resolver.parse().unwrap();
    if resolver.ip().to_canonical().is_ipv4() { &names.v4 } else { names.v6.as_ref().unwrap() }
}

/// Asks by a connected and by an unconnected socket, and sees the answers come from whom it asked.
fn ask_twice(world: &World, names: &NameSockets, resolver: &str) {
    let at: SocketAddr = resolver.parse().unwrap();
    let own: IpAddr = if at.ip().to_canonical().is_ipv4() { "10.77.0.2" } else { "fd77::2" }.parse().unwrap();
    for connected in [true, false] {
        let socket: UdpSocket = client(world, Domain::for_address(at)).into();
        if connected {
            socket.connect(at).unwrap();
            socket.send(resolver.as_bytes()).unwrap();
        } else {
            socket.send_to(resolver.as_bytes(), at).unwrap();
        }
        let question = answer(names, door(names, resolver));
        assert_eq!(
            (question.text.as_str(), question.asked),
            (resolver, SocketAddr::new(at.ip().to_canonical(), at.port()))
        );
        assert_eq!((question.from.ip(), question.from.port()), (own, socket.local_addr().unwrap().port()));
        let mut text = [0; 64];
        let (length, from) = socket.recv_from(&mut text).unwrap();
        assert_eq!((&text[..length], from), (resolver.as_bytes(), at), "connected: {connected}");
    }
}

#[test]
fn a_question_to_a_resolver_that_does_not_exist_is_answered_in_its_name() {
    for verdict in [Allow, Close, Refuse] {
        let mut world = world(FailurePolicy::Open, verdict, &[]);
        let (names, _listeners) = enroll_with_names(&mut world, FailurePolicy::Open);
        for resolver in [RESOLVER, RESOLVER6, "[::ffff:203.0.113.54]:53"] {
            ask_twice(&world, &names, resolver);
        }
        assert_eq!(count(&world, "datagram_refused"), 0, "{verdict:?}");
    }
}

#[test]
fn only_questions_come_to_the_daemon() {
    let mut world = world(FailurePolicy::Open, Allow, &[]);
    let (names, _listeners) = enroll_with_names(&mut world, FailurePolicy::Open);
    let inbox = world.server.enter(|| UdpSocket::bind("0.0.0.0:5353").unwrap()).unwrap();
    inbox.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = client(&world, Domain::IPV4);
    assert_eq!(socket.mark().unwrap(), world.steering.mark);
    socket.send_to(b"hello", &address("10.98.0.1:5353")).unwrap();
    assert_eq!(inbox.recv(&mut [0; 8]).unwrap(), 5);
    // A connect that passes does not take the mark away.
    socket.connect(&address("10.98.0.1:5353")).unwrap();
    assert_eq!(socket.mark().unwrap(), world.steering.mark);
    socket.send_to(b"question", &address(RESOLVER)).unwrap();
    assert_eq!(answer(&names, &names.v4).text, "question");
}

#[test]
fn name_servers_at_home_are_asked_as_ever() {
    let mut world = world(FailurePolicy::Open, Refuse, &[]);
    world.ip("addr add 10.66.0.1/32 dev lo");
    know_home(&mut world);
    let (names, _listeners) = enroll_with_names(&mut world, FailurePolicy::Open);
    for home in ["127.0.0.53:53", "10.77.0.2:53", "10.66.0.1:53", "[::1]:53", "[fd77::2]:53"] {
        let server = world.in_workload(|| UdpSocket::bind(home).unwrap());
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let at: SocketAddr = home.parse().unwrap();
        let socket = client(&world, Domain::for_address(at));
        if home == "10.66.0.1:53" {
            // From one of its addresses to another.
            socket.bind(&address("10.77.0.2:0")).unwrap();
        }
        socket.send_to(b"home", &at.into()).unwrap();
        assert_eq!(server.recv(&mut [0; 8]).unwrap(), 4, "{home}");
        assert!(!has_question(door(&names, home), 0), "{home}");
    }
}

#[test]
fn questions_of_others_go_their_own_way() {
    let mut world = world(FailurePolicy::Open, Allow, &[]);
    let (names, _listeners) = enroll_with_names(&mut world, FailurePolicy::Open);
    serve(&world, &["203.0.113.0/24"]);
    let native = world.server.enter(|| UdpSocket::bind("0.0.0.0:53").unwrap()).unwrap();
    native.set_read_timeout(Some(PATIENCE)).unwrap();
    for cgroup in ["other", "daemon"] {
        let socket = inside(&world, cgroup, || client(&world, Domain::IPV4));
        assert_eq!(socket.mark().unwrap(), 0, "{cgroup}");
        socket.send_to(b"other", &address(RESOLVER)).unwrap();
        assert_eq!(native.recv(&mut [0; 8]).unwrap(), 5, "{cgroup}");
    }
    assert!(!has_question(&names.v4, 0));
    // A mark of the application's own stays.
    let socket = client(&world, Domain::IPV4);
    socket.set_mark(7).unwrap();
    socket.send_to(b"marked", &address(RESOLVER)).unwrap();
    assert_eq!(native.recv(&mut [0; 8]).unwrap(), 6);
}

#[test]
fn whose_questions_the_daemon_does_not_answer_asks_as_ever() {
    let world = world(FailurePolicy::Open, Refuse, &[]);
    serve(&world, &["203.0.113.0/24"]);
    let native = world.server.enter(|| UdpSocket::bind("0.0.0.0:53").unwrap()).unwrap();
    native.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = client(&world, Domain::IPV4);
    assert_eq!(socket.mark().unwrap(), 0);
    socket.send_to(b"question", &address(RESOLVER)).unwrap();
    assert_eq!(native.recv(&mut [0; 16]).unwrap(), 8);
}

#[test]
fn sockets_that_are_made_after_a_daemon_died_ask_as_ever() {
    let mut world = World::pinned(FailurePolicy::Open);
    know_home(&mut world);
    world.kernel_mut().sync(&rules(Refuse, &[])).unwrap();
    let (names, listeners) = enroll_with_names(&mut world, FailurePolicy::Open);
    ask_twice(&world, &names, RESOLVER);
    drop((names, listeners));
    world.drop_kernel();
    serve(&world, &["203.0.113.0/24"]);
    let native = world.server.enter(|| UdpSocket::bind("0.0.0.0:53").unwrap()).unwrap();
    native.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = client(&world, Domain::IPV4);
    assert_eq!(socket.mark().unwrap(), 0);
    socket.send_to(b"question", &address(RESOLVER)).unwrap();
    assert_eq!(native.recv(&mut [0; 16]).unwrap(), 8);
    socket.send_to(b"no", &address("10.98.0.1:5000")).expect_err("the pins go on refusing");
}
