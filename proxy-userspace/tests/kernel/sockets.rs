//! Datagram sockets of a namespace, and the addresses that never leave it.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
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

#[test]
fn an_answer_comes_from_whoever_was_asked() {
    let world = World::new(FailurePolicy::Open);
    let sockets = world.workload.name_sockets().unwrap();
    let v6 = sockets.v6.as_ref().unwrap();
    // A name server of the workload's own has its port to itself.
    let _server = world.in_workload(|| UdpSocket::bind("[::]:53").unwrap());
    for (socket, server) in [(&sockets.v4, "203.0.113.53:53"), (v6, "[2001:db8::53]:53")] {
        assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let server: SocketAddr = server.parse().unwrap();
        let client = client_of(&world, server);
        sockets.answers.send(server, client.local_addr().unwrap(), b"answer").unwrap();
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
