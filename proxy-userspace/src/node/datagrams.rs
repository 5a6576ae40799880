//! Datagram sockets inside a namespace: where questions to name servers arrive, how they are answered, and fresh ones to ask with.
//!
//! None of them has port 53: a server of the workload's own that binds it would not get it. `deliver` hands questions over whatever
//! the port is, and answers are packets made by hand, since only their source says whom the client asked.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, sendto, socket,
    },
};

use super::{
    Family, Namespace, packet,
    sockets::{IPV6_TRANSPARENT, set, switch_on},
};

/// The addresses are nobody's, so no packet is sent to them; the port is any.
const AT4: (Ipv4Addr, u16) = (Ipv4Addr::new(240, 240, 0, 53), 0);
const AT6: (Ipv6Addr, u16) = (Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0x53), 0);
/// Questions that wait to be read, in bytes: a burst of some thousand.
const RECEIVE_BUFFER: libc::c_int = 1 << 20;
/// `IPV6_RECVORIGDSTADDR` of linux/in6.h.
const IPV6_RECVORIGDSTADDR: libc::c_int = 74;

/// Where a namespace's questions to name servers arrive, whoever was asked: `IP_ORIGDSTADDR` of each datagram says whom.
#[derive(Debug)]
pub struct NameSockets {
    /// For IPv4.
    pub v4: UdpSocket,
    /// For IPv6, or why there is none.
    pub v6: Result<UdpSocket, String>,
    /// What they are answered through.
    pub answers: Answers,
}

/// Sends datagrams to clients of a namespace that look like those of whoever was asked.
#[derive(Debug)]
pub struct Answers {
    v4: OwnedFd,
    v6: Result<OwnedFd, String>,
}

impl Answers {
    /// Sends `payload` to `client` as if `server` had. Both are of one family.
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` when it has no room.
    pub fn send(&self, server: SocketAddr, client: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let packet = packet::datagram(server, client, payload)?;
        let (socket, mut to) = match (&self.v6, client) {
            (_, SocketAddr::V4(_)) => (&self.v4, client),
            (Ok(v6), SocketAddr::V6(_)) => (v6, client),
            (Err(why), SocketAddr::V6(_)) => return Err(io::Error::other(why.clone())),
        };
        // A raw socket's ports are protocols.
        to.set_port(0);
        sendto(socket.as_raw_fd(), &packet, &SockaddrStorage::from(to), MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

impl Namespace {
    /// Opens the sockets for name queries inside the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the IPv4 socket cannot be opened.
    pub fn name_sockets(&self) -> io::Result<NameSockets> {
        self.enter(|| {
            let v4 = name_socket4().map_err(|error| {
                io::Error::new(error.kind(), format!("no socket for name queries: {error}"))
            })?;
            let v6 = name_socket6().map_err(|error| format!("no IPv6 socket for name queries: {error}"));
            let raw6 = raw_socket(AddressFamily::Inet6);
            let raw6 = raw6.map_err(|error| format!("no IPv6 socket for answers: {error}"));
            Ok(NameSockets { v4, v6, answers: Answers { v4: raw_socket(AddressFamily::Inet)?, v6: raw6 } })
        })?
    }

    /// A fresh UDP socket of the namespace, non-blocking and close-on-exec. The caller must run in the namespace
    /// of the thread that opened this value.
    ///
    /// # Errors
    /// When there is no room for another descriptor, or the family does not exist.
    pub fn datagram(&self, family: Family) -> io::Result<OwnedFd> {
        if self.is_own { udp_socket(family) } else { self.step_in(|| udp_socket(family))? }
    }
}

fn name_socket4() -> io::Result<UdpSocket> {
    let socket = udp_socket(Family::V4)?;
    let fd = socket.as_raw_fd();
    for option in [libc::IP_TRANSPARENT, libc::IP_RECVORIGDSTADDR] {
        switch_on(fd, libc::SOL_IP, option)?;
    }
    finish(socket, AT4.into())
}

fn name_socket6() -> io::Result<UdpSocket> {
    let socket = udp_socket(Family::V6)?;
    let fd = socket.as_raw_fd();
    for option in [libc::IPV6_V6ONLY, IPV6_TRANSPARENT, IPV6_RECVORIGDSTADDR] {
        switch_on(fd, libc::SOL_IPV6, option)?;
    }
    finish(socket, AT6.into())
}

fn finish(socket: OwnedFd, at: SocketAddr) -> io::Result<UdpSocket> {
    let fd = socket.as_raw_fd();
    // Root may go beyond the system's limit; without that right it is as much as the system allows.
    if set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER).is_err() {
        set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)?;
    }
    bind(fd, &SockaddrStorage::from(at))?;
    Ok(socket.into())
}

/// One that sends whole packets and hears nothing.
fn raw_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Raw, flags, SockProtocol::Raw)?)
}

fn udp_socket(family: Family) -> io::Result<OwnedFd> {
    let family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Datagram, flags, SockProtocol::Udp)?)
}
