//! Over loopback: datagrams and connections, with a resolver behind them that the test plays.
//!
//! The server's socket and the resolver's have the same address and port. That of the resolver is connected to the socket that
//! asks, so each finds its own.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket},
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::{
    super::{Counters, Sockets, Zone, forward, places::Places, serve_datagrams, serve_stream},
    *,
};

const SOON: Duration = Duration::from_secs(20);

fn zone() -> Zone {
    Zone::new(Arc::new(ArcSwap::from_pointee(mesh())), Arc::new(workload()), "cluster.local".into())
}

/// Only those that are to share an address may: the kernel would give out one that is taken.
fn udp(at: SocketAddr, shares: bool) -> Socket {
    let socket =
        Socket::new(Domain::for_address(at), Type::DGRAM.nonblocking(), Some(Protocol::UDP)).unwrap();
    socket.set_reuse_port(shares).unwrap();
    socket.bind(&at.into()).unwrap();
    socket
}

/// A namespace with a resolver at `resolver`: each socket that asks gets one that hears it.
struct Namespace {
    resolver: SocketAddr,
    heard: mpsc::UnboundedSender<StdSocket>,
}

impl Sockets for Namespace {
    fn datagram(&self, v4: bool) -> io::Result<OwnedFd> {
        let resolver = self.resolver;
        assert_eq!(v4, resolver.is_ipv4());
        let asking = udp(SocketAddr::new(resolver.ip(), 0), false);
        let hearing = udp(resolver, true);
        hearing.connect(&asking.local_addr()?)?;
        self.heard.send(hearing.into()).map_err(io::Error::other)?;
        Ok(asking.into())
    }

    fn stream(&self, v4: bool) -> io::Result<OwnedFd> {
        let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
        Ok(Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?.into())
    }

    fn answer(&self, resolver: SocketAddr, client: SocketAddr, reply: &[u8]) -> io::Result<()> {
        udp(resolver, true).send_to(reply, &client.into()).map(drop)
    }
}

struct Served {
    client: UdpSocket,
    counters: Arc<Counters>,
    heard: mpsc::UnboundedReceiver<StdSocket>,
    task: JoinHandle<io::Result<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn served(ip: IpAddr) -> Served {
    served_with(ip, zone()).await
}

/// The resolver's end of the next question that is passed on.
async fn resolver(heard: &mut mpsc::UnboundedReceiver<StdSocket>) -> UdpSocket {
    UdpSocket::from_std(timeout(SOON, heard.recv()).await.unwrap().unwrap()).unwrap()
}

async fn served_with(ip: IpAddr, zone: Zone) -> Served {
    let socket = udp(SocketAddr::new(ip, 0), true);
    match ip {
        IpAddr::V4(_) => {
            setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true).unwrap();
        }
        IpAddr::V6(_) => {
            setsockopt(&socket, sockopt::Ipv6OrigDstAddr, &true).unwrap();
        }
    }
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    let (heard, hearing) = mpsc::unbounded_channel();
    let namespace = Arc::new(Namespace { resolver: at, heard });
    let counters = Arc::new(Counters::default());
    let serving = serve_datagrams(socket.into(), zone, namespace, counters.clone());
    let task = tokio::spawn(serving);
    let client = UdpSocket::bind(SocketAddr::new(ip, 0)).await.unwrap();
    client.connect(at).await.unwrap();
    Served { client, counters, heard: hearing, task }
}

async fn received(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let length = timeout(SOON, socket.recv(&mut buffer)).await.unwrap().unwrap();
    buffer.truncate(length);
    buffer
}

fn counts(counters: &Counters) -> [u64; 4] {
    let Counters { answered, forwarded, failed, dropped } = counters;
    [answered, forwarded, failed, dropped].map(|counter| counter.load(Ordering::Relaxed))
}

/// An answer to `query` that no parser understands.
fn strange_answer(query: &[u8], length: usize) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply[7] = 9;
    reply.resize(length, 0xee);
    reply
}

#[tokio::test]
async fn datagrams_are_answered_or_forwarded_byte_for_byte() {
    for ip in [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()] {
        let mut served = served(ip).await;
        served.client.send(&question("echo.", RecordType::A).to_vec().unwrap()).await.unwrap();
        let reply = Message::from_vec(&received(&served.client).await).unwrap();
        assert_eq!(addresses(&reply), ["10.96.0.7".parse::<IpAddr>().unwrap()]);

        let mut query = question("Example.ORG.", RecordType::A).to_vec().unwrap();
        query.extend([1, 2, 3]);
        served.client.send(&query).await.unwrap();
        let resolver = resolver(&mut served.heard).await;
        assert_eq!(received(&resolver).await, query);
        let reply = strange_answer(&query, 9000);
        let mut forged = reply.clone();
        forged[0] ^= 1;
        resolver.send(&forged).await.unwrap();
        resolver.send(&reply).await.unwrap();
        assert_eq!(received(&served.client).await, reply);
        // An answer is no question.
        served.client.send(&reply[..40]).await.unwrap();
        served.client.send(&question("echo.", RecordType::A).to_vec().unwrap()).await.unwrap();
        received(&served.client).await;
        assert_eq!(counts(&served.counters), [2, 1, 0, 1]);
    }
}

#[tokio::test]
async fn a_resolver_that_cannot_be_reached_is_said_at_once() {
    let mut served = served(IpAddr::from([127, 0, 0, 1])).await;
    served.heard.close();
    served.client.send(&question("example.org.", RecordType::A).to_vec().unwrap()).await.unwrap();
    let reply = Message::from_vec(&received(&served.client).await).unwrap();
    assert_eq!(reply.metadata.response_code.to_string(), "Server Failure");
    assert_eq!(counts(&served.counters), [0, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn silence_is_passed_on_and_ends() {
    let served = served(IpAddr::from([127, 0, 0, 1])).await;
    served.client.send(&question("example.org.", RecordType::A).to_vec().unwrap()).await.unwrap();
    let begin = tokio::time::Instant::now();
    while counts(&served.counters)[2] == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(begin.elapsed() >= Duration::from_secs(5));
    assert_eq!(counts(&served.counters), [0, 0, 1, 0]);
    let nothing = served.client.try_recv(&mut [0; 512]).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn more_than_may_wait_are_dropped() {
    let zone = Zone { places: Arc::new(Places::new(2, 2)), ..zone() };
    let mut served = served_with(IpAddr::from([127, 0, 0, 1]), zone).await;
    for _ in 0..5 {
        served.client.send(&question("example.org.", RecordType::A).to_vec().unwrap()).await.unwrap();
    }
    served.client.send(&question("echo.", RecordType::A).to_vec().unwrap()).await.unwrap();
    received(&served.client).await;
    assert_eq!(counts(&served.counters), [1, 0, 0, 3]);
    // A place is free again when its answer has come.
    for _ in 0..2 {
        let resolver = resolver(&mut served.heard).await;
        let query = received(&resolver).await;
        resolver.send(&strange_answer(&query, 40)).await.unwrap();
        received(&served.client).await;
    }
    served.client.send(&question("example.org.", RecordType::A).to_vec().unwrap()).await.unwrap();
    resolver(&mut served.heard).await;
    assert_eq!(counts(&served.counters), [1, 2, 0, 3]);
}

/// A connection to the server, and what it asks its resolver with.
async fn connection(resolver: SocketAddr) -> (TcpStream, Arc<Counters>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let counters = Arc::new(Counters::default());
    let (heard, _) = mpsc::unbounded_channel();
    let counted = counters.clone();
    tokio::spawn(async move {
        serve_stream(stream, resolver, &zone(), &Namespace { resolver, heard }, &counted).await;
    });
    (client, counters)
}

async fn exchange(client: &mut TcpStream, query: &[u8]) -> Vec<u8> {
    forward::write(client, query).await.unwrap();
    timeout(SOON, forward::read(client)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_connection_asks_several_questions() {
    let resolver = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (mut client, counters) = connection(resolver.local_addr().unwrap()).await;
    let ours = question("dual.other.", RecordType::AAAA).to_vec().unwrap();
    let theirs = question("example.org.", RecordType::TXT).to_vec().unwrap();
    let reply = exchange(&mut client, &ours).await;
    assert_eq!(addresses(&Message::from_vec(&reply).unwrap()), ["fd00:96::8".parse::<IpAddr>().unwrap()]);
    // The resolver closes after every second answer: it is dialled again.
    let playing = tokio::spawn(async move {
        for answers in [2, 1] {
            let (mut stream, _) = resolver.accept().await.unwrap();
            for _ in 0..answers {
                let query = forward::read(&mut stream).await.unwrap();
                forward::write(&mut stream, &strange_answer(&query, 60_000)).await.unwrap();
            }
        }
    });
    for _ in 0..3 {
        assert_eq!(exchange(&mut client, &theirs).await, strange_answer(&theirs, 60_000));
    }
    playing.await.unwrap();
    exchange(&mut client, &ours).await;
    // Nobody listens there any more.
    let reply = Message::from_vec(&exchange(&mut client, &theirs).await).unwrap();
    assert_eq!(reply.metadata.response_code.to_string(), "Server Failure");
    assert_eq!(counts(&counters), [2, 3, 1, 0]);
    // An answer is no question: the connection ends.
    forward::write(&mut client, &strange_answer(&ours, 60)).await.unwrap();
    let end = timeout(SOON, forward::read(&mut client)).await.unwrap().unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(counts(&counters), [2, 3, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends_after_ten_seconds() {
    let (mut client, counters) = connection((Ipv4Addr::LOCALHOST, 9).into()).await;
    let begin = tokio::time::Instant::now();
    let end = forward::read(&mut client).await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(begin.elapsed().as_secs(), 10);
    assert_eq!(counts(&counters), [0; 4]);
}
