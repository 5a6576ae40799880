//! Workers with one acceptor, the rules it sees, and its access log read back.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use proxy_traffic::{
    Balancing, Cluster, ClusterKind, ClusterName, Destination, Door, Endpoint, Listener, Route, Rule,
    Service, Snapshot, Workload,
};
use shunt::{
    metrics::Metrics,
    proxy::{
        Acceptor, AcceptorHandle, AccessLog, Context, Dial, Drained, Pending, PlainDial, Resolve, Workers,
        access_log::Format,
    },
};

/// Nothing here takes this long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) context: Arc<Context>,
    pub(crate) acceptor: AcceptorHandle,
    workers: Workers,
    log: Lines,
}

/// Names and the addresses that they have.
#[derive(Clone, Default)]
pub(crate) struct Names(pub(crate) BTreeMap<String, Vec<IpAddr>>);

impl Resolve for Names {
    fn resolve(&self, name: &str) -> Pending<'_, Vec<IpAddr>> {
        Box::pin(std::future::ready(self.0.get(name).cloned().unwrap_or_default()))
    }
}

/// What the access log wrote.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Proxy {
    /// A mesh listener whose connections go to `clusters` by weight; without any, no listener claims it.
    pub(crate) fn start(clusters: Vec<(u64, Cluster)>) -> Self {
        Self::with(clusters, false, Arc::new(PlainDial))
    }

    /// A listener of the mesh or a gateway, and how it dials.
    pub(crate) fn with(clusters: Vec<(u64, Cluster)>, gateway: bool, dial: Arc<dyn Dial>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), clusters, gateway, dial)
    }

    /// The same on a listener of the test's own.
    pub(crate) fn on(
        listener: TcpListener,
        clusters: Vec<(u64, Cluster)>,
        gateway: bool,
        dial: Arc<dyn Dial>,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let snapshot = snapshot(address, clusters, gateway);
        let door = if gateway { Door::Gateway(address) } else { Door::Mesh };
        Self::under(snapshot, listener, door, dial, |_| {})
    }

    /// Rules of the test's own, and what else it wants to be different.
    pub(crate) fn under(
        snapshot: Snapshot,
        listener: TcpListener,
        door: Door,
        dial: Arc<dyn Dial>,
        change: impl FnOnce(&mut Context),
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new());
        let log = Lines::default();
        let access_log = AccessLog::start(Format::Text, Box::new(log.clone()), Arc::clone(&metrics)).unwrap();
        let mut context = Context {
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            metrics,
            access_log,
            passthrough: Arc::new(Cluster::passthrough(PATIENCE)),
            blackhole: Arc::new(Cluster::blackhole()),
            http_status: 502,
            resolver: Arc::new(Names::default()),
            dns: None,
        };
        change(&mut context);
        let context = Arc::new(context);
        let workers = Workers::start(&context, 2).unwrap();
        let workload = Arc::new(workload("client"));
        let acceptor = workers.add(Acceptor { listener, door, workload, dial }).unwrap();
        Self { address, context, acceptor, workers, log }
    }

    /// One more workload, whose connections go where those of the first go; where it dials.
    pub(crate) fn enroll(&self, name: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.context.snapshot.rcu(|before| {
            let mut after = Snapshot::clone(before);
            let same = Arc::clone(&after.listeners[&self.address]);
            after.listeners.insert(address, same);
            after
        });
        let workload = Arc::new(workload(name));
        let dial = Arc::new(PlainDial);
        self.workers.add(Acceptor { listener, door: Door::Mesh, workload, dial }).unwrap();
        address
    }

    /// The cluster in force that is listed first.
    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        let snapshot = self.context.snapshot.load();
        let listener = snapshot.listeners.values().chain(snapshot.gateways.values()).next().unwrap();
        Arc::clone(&listener.rules[0].route.destinations[0].cluster)
    }

    pub(crate) fn dial(&self) -> TcpStream {
        Self::dial_to(self.address)
    }

    pub(crate) fn dial_to(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn open(&self) -> i64 {
        self.context.metrics.connections_open()
    }

    /// Waits until no connection is open, then returns the log.
    pub(crate) fn settled(&self) -> Vec<String> {
        until("every connection has ended", || self.open() == 0);
        self.lines()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.context.access_log.flush();
        String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }

    /// The one line there must be.
    pub(crate) fn line(&self) -> String {
        let lines = self.settled();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        lines.into_iter().next().unwrap()
    }

    /// The sum of a metric over all labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.context.metrics.text().unwrap();
        let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    pub(crate) fn drain(self, deadline: Duration) -> (Drained, Arc<Context>, Vec<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let drained = runtime.block_on(self.workers.drain(deadline));
        self.context.access_log.flush();
        let text = String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap();
        (drained, self.context, text.lines().map(str::to_owned).collect())
    }
}

fn workload(name: &str) -> Workload {
    Workload { name: name.to_owned(), namespace: "default".to_owned(), labels: BTreeMap::new() }
}

fn snapshot(address: SocketAddr, clusters: Vec<(u64, Cluster)>, gateway: bool) -> Snapshot {
    let destinations: Vec<_> = clusters
        .into_iter()
        .map(|(weight, cluster)| Destination { weight, cluster: Arc::new(cluster) })
        .collect();
    let mut snapshot = Snapshot::default();
    if destinations.is_empty() {
        return snapshot;
    }
    let route = Arc::new(Route { name: "default/test".to_owned(), destinations });
    let rules = vec![Rule { matches: vec![], route }];
    let listener = Arc::new(Listener { name: "test".to_owned(), rules, ..Listener::default() });
    let table = if gateway { &mut snapshot.gateways } else { &mut snapshot.listeners };
    table.insert(address, listener);
    snapshot
}

/// A cluster of this name and kind.
pub(crate) fn cluster(subset: &str, kind: ClusterKind) -> Cluster {
    let host = "echo.default.svc.cluster.local";
    Cluster {
        name: ClusterName::outbound(9000, subset, host),
        service: Service { host: host.to_owned(), name: "echo".to_owned(), namespace: "default".to_owned() },
        kind,
        balancing: Balancing::RoundRobin,
        ..Cluster::passthrough(PATIENCE)
    }
}

/// A cluster with one endpoint.
pub(crate) fn one(subset: &str, address: SocketAddr) -> Cluster {
    several(subset, &[address])
}

/// A cluster with these endpoints.
pub(crate) fn several(subset: &str, addresses: &[SocketAddr]) -> Cluster {
    let endpoint = |address: &SocketAddr| Endpoint { address: *address, weight: 1, workload: Arc::default() };
    cluster(subset, ClusterKind::Endpoints(addresses.iter().map(endpoint).collect()))
}

/// Whether an echo answers on `stream`, rather than the proxy closing it.
pub(crate) fn is_served(mut stream: &TcpStream) -> bool {
    // The proxy may have closed already.
    let _ = stream.write_all(b"x");
    matches!(stream.read(&mut [0]), Ok(1))
}

/// An address of loopback where nobody listens, until the test ends: it is taken.
pub(crate) fn nobody() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

/// A server that gives each connection to `serve`, in a thread of its own, until the test ends.
pub(crate) fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Sends everything back, then the end of the stream.
pub(crate) fn echo(stream: TcpStream) {
    // A client that resets is part of some tests.
    let _ = io::copy(&mut &stream, &mut &stream);
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// Closes with a reset.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Polls `true_now` until it is, and fails with `what` when it never is.
pub(crate) fn until(what: &str, true_now: impl Fn() -> bool) {
    let begin = Instant::now();
    while !true_now() {
        assert!(begin.elapsed() < PATIENCE, "still not: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Dials into a backlog that is full: the kernel drops the SYN and nobody ever answers.
pub(crate) struct Blackhole {
    pub(crate) address: SocketAddr,
    _listener: OwnedFd,
    _filled: Vec<socket2::Socket>,
}

impl Blackhole {
    pub(crate) fn new() -> Self {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let fill = |_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            // In progress is all that can be said here; those beyond the backlog stay so.
            let _ = socket.connect(&address.into());
            socket
        };
        Self { address, _filled: (0..8).map(fill).collect(), _listener: listener.into() }
    }
}
