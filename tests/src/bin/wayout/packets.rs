//! Ways of those who write their own packets: ICMP, IP, whole frames.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;

use nix::libc;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{PATIENCE, Target, UDP_PORT, address};

const UDP: u8 = 17;

/// A socket that may say "echo request" and nothing else.
pub(crate) fn ping(target: &Target<'_>) -> io::Result<()> {
    echo(target, Type::DGRAM)
}

pub(crate) fn icmp(target: &Target<'_>) -> io::Result<()> {
    echo(target, Type::RAW)
}

fn echo(target: &Target<'_>, kind: Type) -> io::Result<()> {
    let (domain, protocol, request, v6) = match target.ip() {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, false),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, true),
    };
    let mut socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut message = [&[request, 0, 0, 0, 0x53, 0x54, 0, 1], target.tag.as_bytes()].concat();
    // The kernel writes the checksum of ICMPv6, and that of a ping socket.
    if !v6 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum);
    }
    address::send(socket.as_fd(), &message, 0, &address::bytes(SocketAddr::new(target.ip(), 0)))?;
    let mut buffer = [0; 512];
    loop {
        let size = socket.read(&mut buffer)?;
        if buffer[..size].windows(target.tag.len()).any(|part| part == target.tag.as_bytes()) {
            return Ok(());
        }
    }
}

/// A packet with a header of our own. Nobody answers; sent is out.
pub(crate) fn ip(target: &Target<'_>) -> io::Result<()> {
    let domain = Domain::for_address(SocketAddr::new(target.ip(), 0));
    let socket = Socket::new(domain, Type::RAW, Some(libc::IPPROTO_RAW.into()))?;
    let to = address::bytes(SocketAddr::new(target.ip(), 0));
    address::send(socket.as_fd(), &packet(target)?, 0, &to).map(drop)
}

/// A frame that meets no hook of IP at all. Nobody answers; sent is out.
pub(crate) fn frame(target: &Target<'_>) -> io::Result<()> {
    let kind = if target.ip().is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 } as u16;
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    let index = if_nametoindex(target.cli.device.as_str())?.to_ne_bytes();
    let via: Vec<_> = target
        .cli
        .via
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    let family = (libc::AF_PACKET as u16).to_ne_bytes();
    // sockaddr_ll: family, protocol, interface, hardware type, packet type, length of the address, the address.
    let to = [&family[..], &kind.to_be_bytes(), &index, &[0, 0, 0, 6], &via, &[0, 0]].concat();
    address::send(socket.as_fd(), &packet(target)?, 0, &to).map(drop)
}

/// An IP packet with a datagram inside; its source is the address that the namespace would use.
fn packet(target: &Target<'_>) -> io::Result<Vec<u8>> {
    let data = target.tag.as_bytes();
    let length = (8 + data.len()) as u16;
    let ports = [5_000_u16.to_be_bytes(), UDP_PORT.to_be_bytes(), length.to_be_bytes()].concat();
    Ok(match (target.ip(), source(target)?) {
        (IpAddr::V4(to), IpAddr::V4(from)) => {
            let total = (20 + length).to_be_bytes();
            let mut head =
                [&[0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, UDP, 0, 0][..], &from.octets(), &to.octets()]
                    .concat();
            let sum = checksum(&head);
            head[10..12].copy_from_slice(&sum);
            // No checksum is a checksum.
            [&head[..], &ports, &[0, 0], data].concat()
        }
        (IpAddr::V6(to), IpAddr::V6(from)) => {
            let length = length.to_be_bytes();
            let ends = [from.octets(), to.octets()].concat();
            let pseudo = [&ends[..], &[0, 0], &length, &[0, 0, 0, UDP], &ports, &[0, 0], data].concat();
            let head = [0x60, 0, 0, 0, length[0], length[1], UDP, 64];
            [&head[..], &ends, &ports, &checksum(&pseudo), data].concat()
        }
        _ => return Err(io::ErrorKind::AddrNotAvailable.into()),
    })
}

/// The first address of the interface, asked of a socket that goes nowhere.
fn source(target: &Target<'_>) -> io::Result<IpAddr> {
    let any = nix::ifaddrs::getifaddrs()?;
    let of_device =
        any.filter(|found| found.interface_name == target.cli.device).filter_map(|found| found.address);
    let addresses = of_device.filter_map(|address| match target.ip() {
        IpAddr::V4(_) => address.as_sockaddr_in().map(|v4| v4.ip().into()),
        IpAddr::V6(_) => address.as_sockaddr_in6().map(|v6| v6.ip().into()),
    });
    let global = |address: &IpAddr| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    addresses.into_iter().find(global).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
