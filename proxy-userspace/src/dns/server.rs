//! Serves the datagrams that a namespace's processes send to their resolvers. Each says whom it was for; the
//! answer leaves from there.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::{
    cmsg_space, libc,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg},
};
use tokio::{io::Interest, net::UdpSocket, task::JoinSet};

use super::{Counters, Sockets, Verdict, Zone, forward, message, places::Place};

/// The largest question: as large as our answers say that it may be.
const LARGEST: usize = 4096;
/// The kernel is short of something: it may recover.
const PAUSE: Duration = Duration::from_millis(20);

/// A datagram that has arrived; its bytes are in the buffer.
struct Arrived {
    length: usize,
    client: SocketAddr,
    /// Whom the client asked.
    resolver: SocketAddr,
}

/// What every question of a namespace needs.
struct Server {
    socket: UdpSocket,
    zone: Zone,
    sockets: Arc<dyn Sockets>,
    counters: Arc<Counters>,
}

/// Serves `socket` for as long as the future lives. The socket tells where datagrams were going (`IP_RECVORIGDSTADDR` or its
/// IPv6 twin).
///
/// # Errors
/// When the runtime cannot watch the socket.
pub async fn serve_datagrams(
    socket: std::net::UdpSocket,
    zone: Zone,
    sockets: Arc<dyn Sockets>,
    counters: Arc<Counters>,
) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    let server = Arc::new(Server { socket, zone, sockets, counters });
    let mut buffer = vec![0; LARGEST];
    // Dropped with this future, and what waits for a resolver with it.
    let mut waiting = JoinSet::new();
    loop {
        let fd = server.socket.as_raw_fd();
        match server.socket.async_io(Interest::READABLE, || receive(fd, &mut buffer)).await {
            Ok(Some(arrived)) => server.serve(&buffer[..arrived.length], &arrived, &mut waiting),
            Ok(None) => count(&server.counters.dropped),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
        while waiting.try_join_next().is_some() {}
    }
}

impl Server {
    fn serve(self: &Arc<Self>, query: &[u8], arrived: &Arrived, waiting: &mut JoinSet<()>) {
        let &Arrived { client, resolver, .. } = arrived;
        match self.zone.answer(query, false) {
            Verdict::Answer(reply) => {
                count(&self.counters.answered);
                self.send(&reply, client, resolver);
            }
            Verdict::Forward => match self.zone.places.take(resolver) {
                Some(place) => {
                    let forward = self.clone().forward(query.to_vec(), client, resolver, place);
                    waiting.spawn(forward);
                }
                None => count(&self.counters.dropped),
            },
            Verdict::Drop => count(&self.counters.dropped),
        }
    }

    async fn forward(
        self: Arc<Self>,
        query: Vec<u8>,
        client: SocketAddr,
        resolver: SocketAddr,
        _place: Place,
    ) {
        match forward::datagram(&query, resolver, &*self.sockets).await {
            Ok(reply) => {
                count(&self.counters.forwarded);
                self.send(&reply, client, resolver);
            }
            Err(error) => {
                count(&self.counters.failed);
                // Silence is passed on as silence; a refusal in a way that makes the client try its next resolver at once.
                let refused = (error.kind() != io::ErrorKind::TimedOut).then(|| message::servfail(&query));
                if let Some(reply) = refused.flatten() {
                    self.send(&reply, client, resolver);
                }
            }
        }
    }

    /// A datagram that finds no room is lost, as datagrams are: the client asks again.
    fn send(&self, reply: &[u8], client: SocketAddr, resolver: SocketAddr) {
        if self.sockets.answer(resolver, client, reply).is_err() {
            count(&self.counters.dropped);
        }
    }
}

/// Takes the next datagram; nothing of one that is too large, or does not say where it was going.
fn receive(fd: i32, buffer: &mut [u8]) -> io::Result<Option<Arrived>> {
    let mut space = cmsg_space!(libc::sockaddr_in, libc::sockaddr_in6);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), MsgFlags::empty())?;
    let resolver = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4OrigDstAddr(address) => {
            Some(SocketAddrV4::from(SockaddrIn::from(address)).into())
        }
        ControlMessageOwned::Ipv6OrigDstAddr(address) => {
            Some(SocketAddrV6::from(SockaddrIn6::from(address)).into())
        }
        _ => None,
    });
    let client = message.address.as_ref().and_then(address);
    let is_whole = !message.flags.contains(MsgFlags::MSG_TRUNC);
    let arrived = client.zip(resolver).filter(|_| is_whole);
    Ok(arrived.map(|(client, resolver)| Arrived { length: message.bytes, client, resolver }))
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| SocketAddrV4::from(*address).into());
    v4.or_else(|| Some(SocketAddrV6::from(*storage.as_sockaddr_in6()?).into()))
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
