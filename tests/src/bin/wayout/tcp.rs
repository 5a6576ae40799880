//! Ways of streams: a connection counts as out when the server has answered with what was said.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt::TcpFastOpenConnect};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{PATIENCE, TCP_PORT, Target, address, uring};

const MPTCP: i32 = 262;
const SCTP: i32 = 132;

pub(crate) fn connect(target: &Target<'_>) -> io::Result<()> {
    dial(target, socket(plain(target), Protocol::TCP)?, plain(target))
}

pub(crate) fn mapped(target: &Target<'_>) -> io::Result<()> {
    dial(target, socket(as_mapped(target), Protocol::TCP)?, as_mapped(target))
}

pub(crate) fn mptcp(target: &Target<'_>) -> io::Result<()> {
    dial(target, socket(plain(target), MPTCP.into())?, plain(target))
}

pub(crate) fn mptcp_mapped(target: &Target<'_>) -> io::Result<()> {
    dial(target, socket(as_mapped(target), MPTCP.into())?, as_mapped(target))
}

pub(crate) fn sctp(target: &Target<'_>) -> io::Result<()> {
    dial(target, socket(plain(target), SCTP.into())?, plain(target))
}

/// A socket that was told to forget whom it is connected to.
pub(crate) fn after_unspec(target: &Target<'_>) -> io::Result<()> {
    let socket = socket(plain(target), Protocol::TCP)?;
    address::connect(socket.as_fd(), &address::unspecified(plain(target)))?;
    dial(target, socket, plain(target))
}

pub(crate) fn bound_to_device(target: &Target<'_>) -> io::Result<()> {
    let socket = socket(plain(target), Protocol::TCP)?;
    socket.bind_device(Some(target.cli.device.as_bytes()))?;
    dial(target, socket, plain(target))
}

/// Somebody else's socket, made where nobody minds.
pub(crate) fn given(target: &Target<'_>) -> io::Result<()> {
    let socket = Socket::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_read_timeout(Some(PATIENCE))?;
    dial(target, socket, plain(target))
}

pub(crate) fn fast_open_sendto(target: &Target<'_>) -> io::Result<()> {
    fast_open(target, plain(target))
}

pub(crate) fn fast_open_mapped(target: &Target<'_>) -> io::Result<()> {
    fast_open(target, as_mapped(target))
}

/// Connects by sending.
fn fast_open(target: &Target<'_>, to: SocketAddr) -> io::Result<()> {
    let socket = socket(to, Protocol::TCP)?;
    let line = format!("{}\n", target.tag);
    address::send(socket.as_fd(), line.as_bytes(), libc::MSG_FASTOPEN, &address::bytes(to))?;
    must_answer(target, socket.into())
}

/// Connects by the first write.
pub(crate) fn fast_open_sockopt(target: &Target<'_>) -> io::Result<()> {
    let socket = socket(plain(target), Protocol::TCP)?;
    setsockopt(&socket, TcpFastOpenConnect, &true)?;
    dial(target, socket, plain(target))
}

/// Chooses another way out than connect() was asked about.
pub(crate) fn bound_late(target: &Target<'_>) -> io::Result<()> {
    let socket = socket(plain(target), Protocol::TCP)?;
    address::connect(socket.as_fd(), &address::bytes(plain(target)))?;
    socket.bind_device(Some(target.cli.device.as_bytes()))?;
    talk(target, socket.into())
}

/// Takes the mark away by which its packets are routed.
pub(crate) fn unmarked_late(target: &Target<'_>) -> io::Result<()> {
    let socket = socket(plain(target), Protocol::TCP)?;
    address::connect(socket.as_fd(), &address::bytes(plain(target)))?;
    socket.set_mark(0)?;
    talk(target, socket.into())
}

/// Binds late, too, but before the first write makes the connection.
pub(crate) fn fast_open_bound_late(target: &Target<'_>) -> io::Result<()> {
    let socket = socket(plain(target), Protocol::TCP)?;
    setsockopt(&socket, TcpFastOpenConnect, &true)?;
    address::connect(socket.as_fd(), &address::bytes(plain(target)))?;
    socket.bind_device(Some(target.cli.device.as_bytes()))?;
    talk(target, socket.into())
}

pub(crate) fn io_uring(target: &Target<'_>) -> io::Result<()> {
    let socket = socket(plain(target), Protocol::TCP)?;
    uring::connect(socket.as_fd(), &address::bytes(plain(target)))?;
    talk(target, socket.into())
}

pub(crate) fn io_uring_mapped(target: &Target<'_>) -> io::Result<()> {
    let socket = socket(as_mapped(target), Protocol::TCP)?;
    uring::connect(socket.as_fd(), &address::bytes(as_mapped(target)))?;
    talk(target, socket.into())
}

fn plain(target: &Target<'_>) -> SocketAddr {
    (target.ip(), TCP_PORT).into()
}

/// The IPv4 address as an IPv6 socket says it.
fn as_mapped(target: &Target<'_>) -> SocketAddr {
    match target.ip() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), TCP_PORT).into(),
        IpAddr::V6(v6) => (v6, TCP_PORT).into(),
    }
}

fn socket(to: SocketAddr, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(protocol))?;
    // The deadline of what is sent holds for connect() too.
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn dial(target: &Target<'_>, socket: Socket, to: SocketAddr) -> io::Result<()> {
    address::connect(socket.as_fd(), &address::bytes(to))?;
    talk(target, socket.into())
}

fn talk(target: &Target<'_>, socket: OwnedFd) -> io::Result<()> {
    let mut stream = TcpStream::from(socket);
    stream.write_all(format!("{}\n", target.tag).as_bytes())?;
    must_answer(target, stream.into())
}

fn must_answer(target: &Target<'_>, socket: OwnedFd) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(TcpStream::from(socket)).read_line(&mut line)?;
    match line.contains(&target.tag) {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
