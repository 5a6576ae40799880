//! Endpoint → connected socket: dials once, and gives up when the endpoint is silent or the client has gone.

use std::{io, net::SocketAddr, os::fd::OwnedFd, time::Duration};

use nix::libc;
use proxy_traffic::Error;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::TcpStream};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl From<SocketAddr> for Family {
    fn from(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Opens sockets in one network namespace.
pub trait Dial: Send + Sync {
    /// A fresh TCP socket, nonblocking and close-on-exec.
    ///
    /// # Errors
    /// What the kernel says.
    fn socket(&self, family: Family) -> io::Result<OwnedFd>;
}

/// Dials from the process's own network namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainDial;

impl Dial for PlainDial {
    fn socket(&self, family: Family) -> io::Result<OwnedFd> {
        let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
        Ok(Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?.into())
    }
}

/// Dials `endpoint` once.
pub(super) async fn connect(
    endpoint: SocketAddr,
    after: Duration,
    dial: &dyn Dial,
    downstream: &TcpStream,
) -> Result<TcpStream, Error> {
    let failed = |source| Error::Connect { endpoint, source };
    let upstream = begin(dial, endpoint).map_err(failed)?;
    let ready = tokio::select! {
        biased;
        ready = upstream.ready(Interest::WRITABLE) => ready.map_err(failed)?,
        () = gone(downstream) => return Err(Error::DownstreamClosed { endpoint }),
        () = tokio::time::sleep(after) => return Err(Error::ConnectTimeout { endpoint, after }),
    };
    if !ready.is_write_closed() {
        // A connection that failed is never just writable: asking for its error would find none.
        return Ok(upstream);
    }
    match upstream.take_error().map_err(failed)? {
        Some(error) => Err(failed(error)),
        None => Ok(upstream),
    }
}

/// A socket on its way to `endpoint`.
fn begin(dial: &dyn Dial, endpoint: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::from(dial.socket(endpoint.into())?);
    // What a client sent in small pieces must not wait here for acknowledgements. The downstream socket has
    // this from its listener.
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&endpoint.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    TcpStream::from_std(socket.into())
}

/// Ends when `stream` was reset. A client that only closed its sending side still waits for an answer.
pub(super) async fn gone(stream: &TcpStream) {
    // An error here means that the runtime is ending, which drops this future anyway.
    if stream.ready(Interest::ERROR).await.is_err() {
        std::future::pending::<()>().await;
    }
}
