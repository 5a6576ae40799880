//! One world that serves many cases: each has clusters of its own, and so accounts of its own.

use std::{
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use proxy_common::{
    FailurePolicy,
    direct::{Account, Balancing, Event, LimitScope},
};
use proxy_traffic::{
    Cluster, ClusterKind, ClusterName, Destination, Endpoint, Limit, Listener, Route, Rule, Snapshot,
};
use socket2::{Domain, Socket, Type};

use crate::world::{PATIENCE, World};

pub(crate) const DIRECT: &str = "10.99.0.5:80";
pub(crate) const DIRECT6: &str = "[fd99::5]:80";
/// Claimed by nobody.
pub(crate) const PASS: &str = "10.99.0.1:81";
/// Where [`Stage::server`] accepts.
pub(crate) const SERVED: &str = "10.98.0.1:85";
pub(crate) const SERVED6: &str = "[fd98::1]:85";
/// Nobody listens.
pub(crate) const REFUSING: &str = "10.98.0.1:82";
/// Packets get lost.
pub(crate) const SILENT: &str = "10.96.0.1:80";
/// No way there.
pub(crate) const UNREACHABLE: &str = "10.95.0.1:80";
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
pub(crate) const LIMIT: u32 = 4;

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) server: TcpListener,
    case: usize,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(World::new(FailurePolicy::Open))
    }

    pub(crate) fn with(world: World) -> Self {
        world.ip("route add unreachable 10.95.0.0/16");
        world.in_workload(|| std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3").unwrap());
        let serve = || {
            // Fast open for every listener from now on.
            std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1027").unwrap();
            let arguments = ["route", "add", "blackhole", "10.96.0.0/16"];
            assert!(std::process::Command::new("ip").args(arguments).status().unwrap().success());
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            socket.set_only_v6(false).unwrap();
            socket.bind(&"[::]:85".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
            socket.listen(4096).unwrap();
            socket.into()
        };
        let server = world.server.enter(serve).unwrap();
        Self { world, server, case: 0 }
    }

    /// Clusters that no case had before, behind [`DIRECT`] and [`DIRECT6`].
    pub(crate) fn next(&mut self, places: &[&str]) {
        self.case += 1;
        let limit = Some(Limit { max_connections: LIMIT, scope: LimitScope::Workload });
        let of = |family: &str, places: &[&str]| Cluster {
            limit,
            connect_timeout: CONNECT_TIMEOUT,
            ..cluster(&format!("{}{family}", self.prefix()), places)
        };
        let rules = [(DIRECT, of("v4", places)), (DIRECT6, of("v6", &[SERVED6]))];
        self.world.kernel_mut().sync(&snapshot(rules.map(|(at, to)| (at, vec![(1, to)])))).unwrap();
        self.events();
    }

    fn prefix(&self) -> String {
        format!("case-{}.", self.case)
    }

    pub(crate) fn dial(&self) -> TcpStream {
        self.world.dial(DIRECT).unwrap()
    }

    /// Both ends of one connection.
    pub(crate) fn pair(&self) -> (TcpStream, TcpStream) {
        let client = self.dial();
        let server = accept(&self.server, &client);
        (client, server)
    }

    /// What this case's accounts sum up to now.
    pub(crate) fn sum(&self) -> Account {
        let (kernel, prefix) = (self.world.kernel(), self.prefix());
        let ours = |number| kernel.cluster(number).is_some_and(|one| one.name.as_str().contains(&prefix));
        let mut sum = Account::default();
        for (key, account) in kernel.accounts().unwrap() {
            if ours(key.cluster) {
                // A place in the cluster's limit is one at the endpoint too.
                sum.active += account.active;
                sum.opened += account.opened;
                sum.closed += account.closed;
                sum.failed += account.failed;
                sum.abandoned += account.abandoned;
                sum.overflowed += account.overflowed;
                sum.unhealthy += account.unhealthy;
                sum.missing += account.missing;
                sum.received += account.received;
                sum.sent += account.sent;
            }
        }
        sum
    }

    /// The same once nothing is open; what it is by then if that never comes.
    pub(crate) fn settled(&self) -> Account {
        let over = |sum: &Account| sum.active == 0 && sum.opened == sum.closed;
        self.until(over)
    }

    pub(crate) fn until(&self, over: impl Fn(&Account) -> bool) -> Account {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sum = self.sum();
            if over(&sum) || Instant::now() > deadline {
                return sum;
            }
            thread::yield_now();
        }
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.world.kernel_mut().events(|event| events.push(*event));
        events
    }
}

/// The other end of `client`; ends that no case asked for are dropped.
pub(crate) fn accept(server: &TcpListener, client: &TcpStream) -> TcpStream {
    let port = client.local_addr().unwrap().port();
    loop {
        let (accepted, peer) = server.accept().unwrap();
        if peer.port() == port {
            return accepted;
        }
    }
}

pub(crate) fn cluster(name: &str, places: &[&str]) -> Cluster {
    let endpoint =
        |place: &&str| Endpoint { address: place.parse().unwrap(), weight: 1, workload: Arc::default() };
    Cluster {
        name: ClusterName::outbound(80, "", name),
        kind: ClusterKind::Endpoints(places.iter().map(endpoint).collect()),
        balancing: Balancing::Random,
        ..Cluster::passthrough(Duration::from_secs(10))
    }
}

pub(crate) fn listener(arms: Vec<(u64, Cluster)>) -> Arc<Listener> {
    let arm = |(weight, cluster)| Destination { weight, cluster: Arc::new(cluster) };
    let route = Route { name: "test".to_owned(), destinations: arms.into_iter().map(arm).collect() };
    let rules = vec![Rule { matches: Vec::new(), route: Arc::new(route) }];
    Arc::new(Listener { name: "test".to_owned(), rules, ..Listener::default() })
}

pub(crate) fn snapshot<'a>(
    listeners: impl IntoIterator<Item = (&'a str, Vec<(u64, Cluster)>)>,
) -> Arc<Snapshot> {
    let listeners = listeners.into_iter().map(|(at, arms)| (at.parse().unwrap(), listener(arms)));
    Arc::new(Snapshot { listeners: listeners.collect(), ..Snapshot::default() })
}
