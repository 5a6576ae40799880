//! Datagram sockets inside a namespace: where questions to name servers arrive, and fresh ones to ask with.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, socket},
};

use super::{
    Family, Namespace,
    sockets::{IPV6_TRANSPARENT, set, switch_on},
};

/// Answers leave from the port that was asked, so the sockets have it. The addresses are nobody's: no packet is sent to
/// them, and other servers of the namespace keep theirs.
const AT4: (Ipv4Addr, u16) = (Ipv4Addr::new(240, 240, 0, 53), 53);
const AT6: (Ipv6Addr, u16) = (Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0x53), 53);
/// Questions that wait to be read, in bytes: a burst of some thousand.
const RECEIVE_BUFFER: libc::c_int = 1 << 20;
/// `IPV6_RECVORIGDSTADDR` of linux/in6.h.
const IPV6_RECVORIGDSTADDR: libc::c_int = 74;

/// Where a namespace's questions to name servers arrive, whoever was asked: `IP_PKTINFO` and `IP_ORIGDSTADDR` of each datagram say
/// whom. They are transparent: an answer may leave from the address that was asked.
#[derive(Debug)]
pub struct NameSockets {
    /// For IPv4.
    pub v4: UdpSocket,
    /// For IPv6, or why there is none.
    pub v6: Result<UdpSocket, String>,
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
            Ok(NameSockets { v4, v6 })
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
    for option in [libc::IP_TRANSPARENT, libc::IP_PKTINFO, libc::IP_RECVORIGDSTADDR] {
        switch_on(fd, libc::SOL_IP, option)?;
    }
    finish(socket, AT4.into())
}

fn name_socket6() -> io::Result<UdpSocket> {
    let socket = udp_socket(Family::V6)?;
    let fd = socket.as_raw_fd();
    let options = [libc::IPV6_V6ONLY, IPV6_TRANSPARENT, libc::IPV6_RECVPKTINFO, IPV6_RECVORIGDSTADDR];
    for option in options {
        switch_on(fd, libc::SOL_IPV6, option)?;
    }
    finish(socket, AT6.into())
}

/// Two daemons may serve one namespace one after the other, so the address is shared.
fn finish(socket: OwnedFd, at: SocketAddr) -> io::Result<UdpSocket> {
    let fd = socket.as_raw_fd();
    switch_on(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    // Root may go beyond the system's limit; without that right it is as much as the system allows.
    if set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER).is_err() {
        set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)?;
    }
    bind(fd, &SockaddrStorage::from(at))?;
    Ok(socket.into())
}

fn udp_socket(family: Family) -> io::Result<OwnedFd> {
    let family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Datagram, flags, SockProtocol::Udp)?)
}
