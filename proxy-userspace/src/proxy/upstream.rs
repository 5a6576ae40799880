//! Endpoint → connected socket: dials once, and gives up when the endpoint is silent or the client has gone.

use std::{io, net::SocketAddr, os::fd::OwnedFd, time::Duration};

use nix::libc;
use proxy_traffic::{Error, Keepalive};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::{io::Interest, net::TcpStream};

/// `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL`, in seconds.
const LONGEST_KEEPALIVE: u64 = 32767;
/// `MAX_TCP_KEEPCNT`.
const MOST_PROBES: u32 = 127;

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

    /// A fresh UDP socket, nonblocking and close-on-exec.
    ///
    /// # Errors
    /// What the kernel says.
    fn datagram(&self, family: Family) -> io::Result<OwnedFd>;
}

/// Dials from the process's own network namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainDial;

impl Dial for PlainDial {
    fn socket(&self, family: Family) -> io::Result<OwnedFd> {
        plain(family, Type::STREAM, Protocol::TCP)
    }

    fn datagram(&self, family: Family) -> io::Result<OwnedFd> {
        plain(family, Type::DGRAM, Protocol::UDP)
    }
}

fn plain(family: Family, kind: Type, protocol: Protocol) -> io::Result<OwnedFd> {
    let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
    Ok(Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol))?.into())
}

/// Whom to dial, and how.
pub(super) struct Target {
    pub(super) endpoint: SocketAddr,
    /// Whether it is the name that the client said which leads to the endpoint, and on which port if not the one it dialled.
    pub(super) named: Option<Option<u16>>,
    /// How long it may take to answer.
    pub(super) timeout: Duration,
    pub(super) keepalive: Option<Keepalive>,
}

/// Dials `target` once.
pub(super) async fn connect(
    target: &Target,
    dial: &dyn Dial,
    downstream: &TcpStream,
) -> Result<TcpStream, Error> {
    let Target { endpoint, timeout: after, keepalive, .. } = *target;
    let failed = |source| Error::Connect { endpoint, source };
    let upstream = begin(dial, endpoint, keepalive).map_err(failed)?;
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
fn begin(dial: &dyn Dial, endpoint: SocketAddr, keepalive: Option<Keepalive>) -> io::Result<TcpStream> {
    let socket = Socket::from(dial.socket(endpoint.into())?);
    // What a client sent in small pieces must not wait here for acknowledgements. The downstream socket has
    // this from its listener.
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = keepalive {
        socket.set_tcp_keepalive(&options(keepalive))?;
    }
    match socket.connect(&endpoint.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    TcpStream::from_std(socket.into())
}

/// What the kernel takes: whole seconds and probes from 1 up to its limits; what lies beyond is brought there.
fn options(keepalive: Keepalive) -> TcpKeepalive {
    let seconds = |time: Duration| Duration::from_secs(time.as_secs().clamp(1, LONGEST_KEEPALIVE));
    let mut options = TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        options = options.with_time(seconds(time));
    }
    if let Some(interval) = keepalive.interval {
        options = options.with_interval(seconds(interval));
    }
    if let Some(probes) = keepalive.probes {
        options = options.with_retries(probes.clamp(1, MOST_PROBES));
    }
    options
}

/// Ends when `stream` was reset. A client that only closed its sending side still waits for an answer.
pub(super) async fn gone(stream: &TcpStream) {
    // An error here means that the runtime is ending, which drops this future anyway.
    if stream.ready(Interest::ERROR).await.is_err() {
        std::future::pending::<()>().await;
    }
}
