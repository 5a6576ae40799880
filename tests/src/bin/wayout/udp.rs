//! Ways of datagrams: one counts as out when it has come back.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;

use socket2::{Domain, Protocol, Socket, Type};

use crate::{PATIENCE, Target, UDP_PORT, address};

const UDP_LITE: i32 = 136;

pub(crate) fn connect(target: &Target<'_>) -> io::Result<()> {
    let to = plain(target);
    connected(target, Domain::for_address(to), to)
}

pub(crate) fn connect_mapped(target: &Target<'_>) -> io::Result<()> {
    connected(target, Domain::IPV6, mapped(target))
}

pub(crate) fn connect_v4_on_v6(target: &Target<'_>) -> io::Result<()> {
    connected(target, Domain::IPV6, plain(target))
}

pub(crate) fn send(target: &Target<'_>) -> io::Result<()> {
    let to = plain(target);
    sent(target, Domain::for_address(to), &address::bytes(to))
}

pub(crate) fn send_mapped(target: &Target<'_>) -> io::Result<()> {
    sent(target, Domain::IPV6, &address::bytes(mapped(target)))
}

pub(crate) fn send_v4_on_v6(target: &Target<'_>) -> io::Result<()> {
    sent(target, Domain::IPV6, &address::bytes(plain(target)))
}

pub(crate) fn send_unspec(target: &Target<'_>) -> io::Result<()> {
    sent(target, Domain::IPV4, &address::unspecified(plain(target)))
}

pub(crate) fn bound_to_device(target: &Target<'_>) -> io::Result<()> {
    let to = plain(target);
    let socket = socket(Domain::for_address(to), Protocol::UDP)?;
    socket.bind_device(Some(target.cli.device.as_bytes()))?;
    address::send(socket.as_fd(), target.tag.as_bytes(), 0, &address::bytes(to))?;
    must_come_back(target, socket)
}

/// Nobody answers; sent is out.
pub(crate) fn lite(target: &Target<'_>) -> io::Result<()> {
    let to = plain(target);
    let socket = socket(Domain::for_address(to), UDP_LITE.into())?;
    address::send(socket.as_fd(), target.tag.as_bytes(), 0, &address::bytes(to)).map(drop)
}

fn plain(target: &Target<'_>) -> SocketAddr {
    (target.ip(), UDP_PORT).into()
}

fn mapped(target: &Target<'_>) -> SocketAddr {
    match target.ip() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), UDP_PORT).into(),
        IpAddr::V6(v6) => (v6, UDP_PORT).into(),
    }
}

fn socket(domain: Domain, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn connected(target: &Target<'_>, domain: Domain, to: SocketAddr) -> io::Result<()> {
    let socket = socket(domain, Protocol::UDP)?;
    address::connect(socket.as_fd(), &address::bytes(to))?;
    socket.send(target.tag.as_bytes())?;
    must_come_back(target, socket)
}

fn sent(target: &Target<'_>, domain: Domain, to: &[u8]) -> io::Result<()> {
    let socket = socket(domain, Protocol::UDP)?;
    address::send(socket.as_fd(), target.tag.as_bytes(), 0, to)?;
    must_come_back(target, socket)
}

fn must_come_back(target: &Target<'_>, mut socket: Socket) -> io::Result<()> {
    let mut buffer = [0; 256];
    let size = socket.read(&mut buffer)?;
    match &buffer[..size] == target.tag.as_bytes() {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}
