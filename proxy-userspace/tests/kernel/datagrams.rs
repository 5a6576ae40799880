//! Datagram sockets of a namespace, and the addresses that never leave it.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, IoSlice},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use nix::{
    libc,
    sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg},
};
use proxy_common::FailurePolicy;
use shunt::node::Family;

use crate::world::{PATIENCE, World};

/// A client's socket in the workload's namespace that asked `server`.
fn client_of(world: &World, server: SocketAddr) -> UdpSocket {
    let any: SocketAddr = if server.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }.parse().unwrap();
    let client = world.in_workload(|| UdpSocket::bind(any).unwrap());
    client.connect(server).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Sends `text` to `client` as if `source` had.
fn send_as(socket: &UdpSocket, source: IpAddr, client: SocketAddr, text: &[u8]) {
    let v4 = |address: std::net::Ipv4Addr| libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
    let none = v4([0; 4].into());
    let (info4, info6);
    let source = match source {
        IpAddr::V4(address) => {
            info4 = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: v4(address), ipi_addr: none };
            ControlMessage::Ipv4PacketInfo(&info4)
        }
        IpAddr::V6(address) => {
            let address = libc::in6_addr { s6_addr: address.octets() };
            info6 = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 };
            ControlMessage::Ipv6PacketInfo(&info6)
        }
    };
    let to = SockaddrStorage::from(client);
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(text)], &[source], MsgFlags::empty(), Some(&to)).unwrap();
}

#[test]
fn an_answer_comes_from_whoever_was_asked() {
    let world = World::new(FailurePolicy::Open);
    let sockets = world.workload.name_sockets().unwrap();
    let v6 = sockets.v6.unwrap();
    for (socket, server) in [(&sockets.v4, "203.0.113.53:53"), (&v6, "[2001:db8::53]:53")] {
        assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let server: SocketAddr = server.parse().unwrap();
        let client = client_of(&world, server);
        send_as(socket, server.ip(), client.local_addr().unwrap(), b"answer");
        let mut heard = [0; 16];
        let (length, from) = client.recv_from(&mut heard).unwrap();
        assert_eq!((&heard[..length], from), (&b"answer"[..], server));
    }
    // The next daemon opens its own before this one's are gone.
    assert!(world.workload.name_sockets().unwrap().v6.is_ok());
}

#[test]
fn a_fresh_datagram_socket_belongs_to_the_namespace() {
    let world = World::new(FailurePolicy::Open);
    for (family, any, peer) in
        [(Family::V4, "10.77.0.2:0", "10.77.0.2:7"), (Family::V6, "[fd77::2]:0", "[fd77::2]:7")]
    {
        let socket = UdpSocket::from(world.workload.datagram(family).unwrap());
        let peer: SocketAddr = peer.parse().unwrap();
        assert!(UdpSocket::bind(any).is_err(), "the test itself is elsewhere");
        let hearer = world.in_workload(|| UdpSocket::bind(peer).unwrap());
        hearer.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        socket.send_to(b"x", peer).unwrap();
        assert_eq!(hearer.recv(&mut [0; 2]).unwrap(), 1);
    }
}

#[test]
fn every_address_of_every_interface_is_the_namespaces_own() {
    let world = World::new(FailurePolicy::Open);
    let own = || world.workload.own_addresses().unwrap();
    let wanted: BTreeSet<IpAddr> =
        ["127.0.0.1", "::1", "10.77.0.2", "fd77::2"].iter().map(|one| one.parse().unwrap()).collect();
    let before = own();
    assert!(wanted.is_subset(&before), "{before:?}");
    world.ip("addr add 10.77.0.77/32 dev lo");
    let new: IpAddr = "10.77.0.77".parse().unwrap();
    assert_eq!(own().difference(&before).collect::<Vec<_>>(), [&new]);
    world.ip("addr del 10.77.0.77/32 dev lo");
    assert_eq!(own(), before);
}
