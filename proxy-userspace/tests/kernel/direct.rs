//! The verdict *direct* with real sockets: however a connection ends, its place is given back.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    net::TcpStream,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use proxy_common::{
    FailurePolicy,
    direct::{Account, Balancing, LimitScope},
};
use proxy_traffic::{
    Cluster, ClusterKind, ClusterName, Destination, Endpoint, Limit, Listener, Route, Rule, Snapshot,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    address,
    world::{self, PATIENCE, World, hear},
};

const DIRECT: &str = "10.99.0.5:80";
const ENDPOINT: &str = "10.98.0.1:80";

fn cluster(places: &[&str], limit: Option<u32>) -> Cluster {
    let endpoint =
        |place: &&str| Endpoint { address: place.parse().unwrap(), weight: 1, workload: Arc::default() };
    let plain = Cluster::passthrough(Duration::from_secs(10));
    Cluster {
        name: ClusterName::outbound(80, "", "direct"),
        kind: ClusterKind::Endpoints(places.iter().map(endpoint).collect()),
        balancing: Balancing::Random,
        limit: limit.map(|max_connections| Limit { max_connections, scope: LimitScope::Workload }),
        ..plain
    }
}

fn to(listener: &str, cluster: Cluster) -> Arc<Snapshot> {
    let destinations = vec![Destination { weight: 1, cluster: Arc::new(cluster) }];
    let route = Arc::new(Route { name: "test".to_owned(), destinations });
    let rules = vec![Rule { matches: Vec::new(), route }];
    let listeners = [(
        listener.parse().unwrap(),
        Arc::new(Listener { name: "test".to_owned(), rules, ..Listener::default() }),
    )];
    Arc::new(Snapshot { listeners: listeners.into_iter().collect(), ..Snapshot::default() })
}

fn world(places: &[&str], limit: Option<u32>) -> World {
    let mut world = World::new(FailurePolicy::Open);
    world.kernel_mut().sync(&to(DIRECT, cluster(places, limit))).unwrap();
    world
}

/// What all accounts with an endpoint sum up to, once nobody holds a place and whatever was opened is closed.
fn settled(world: &World) -> Account {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let accounts = world.kernel().accounts().unwrap();
        let sum =
            |field: fn(&Account) -> u64| accounts.iter().map(|(_, account)| field(account)).sum::<u64>();
        if sum(|account| account.active) == 0
            && sum(|account| account.opened) == sum(|account| account.closed)
        {
            let (opened, failed) =
                (sum(|account| account.opened), sum(|account| account.failed + account.abandoned));
            let (received, sent) = (sum(|account| account.received), sum(|account| account.sent));
            return Account { opened, failed, received, sent, ..Account::default() };
        }
        assert!(Instant::now() < deadline, "{accounts:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn socket(domain: Domain, protocol: Option<Protocol>) -> Socket {
    Socket::new(domain, Type::STREAM, protocol).unwrap()
}

#[test]
fn a_connection_goes_straight_to_an_endpoint_and_shows_whom_was_dialled() {
    let world = world(&[ENDPOINT], None);
    for dialled in [DIRECT, "[::ffff:10.99.0.5]:80"] {
        let stream = world.dial(dialled).unwrap();
        assert_eq!(hear(&stream), "native at 10.98.0.1:80 from 10.77.0.2");
        assert_eq!(stream.peer_addr().unwrap(), dialled.parse().unwrap());
    }
    assert_eq!(settled(&world).opened, 2);
    assert!(world.kernel().counters().unwrap().contains(&("direct", 2)));
}

#[test]
fn a_multipath_connect_without_a_route_holds_no_place() {
    let world = world(&["10.96.0.1:80"], Some(1));
    world.ip("route add unreachable 10.96.0.0/16");
    world.in_workload(|| socket(Domain::IPV4, Some(Protocol::MPTCP)).connect(&address(DIRECT)).unwrap_err());
    let sum = settled(&world);
    assert_eq!((sum.opened, sum.failed), (0, 0));
}

fn refused(outcome: std::io::Result<TcpStream>) {
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_burst_gets_exactly_as_many_places_as_there_are() {
    let world = world(&[ENDPOINT, "10.98.0.2:80"], Some(10));
    let namespace = &world.workload;
    for round in 0..100 {
        let barrier = Barrier::new(64);
        let dial = || {
            let connect = || {
                barrier.wait();
                world::connect(DIRECT)
            };
            namespace.enter(connect).unwrap()
        };
        let outcomes: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..64).map(|_| scope.spawn(dial)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 10, "round {round}");
        outcomes.into_iter().filter(Result::is_err).for_each(refused);
        settled(&world);
    }
    assert!(world.kernel().counters().unwrap().contains(&("overflowed", 5400)));
}

fn limited(scope: LimitScope, places: &[&str]) -> World {
    let mut cluster = cluster(places, Some(1));
    cluster.limit = cluster.limit.map(|limit| Limit { scope, ..limit });
    let mut world = World::new(FailurePolicy::Open);
    world.kernel_mut().sync(&to(DIRECT, cluster)).unwrap();
    world
}

#[test]
fn an_endpoint_at_its_limit_is_passed_over_until_all_are() {
    let places: Vec<_> = (1..=8).map(|host| format!("10.98.0.{host}:80")).collect();
    let places: Vec<_> = places.iter().map(String::as_str).collect();
    let world = limited(LimitScope::Endpoint, &places);
    for round in 0..5 {
        let open: Vec<_> = places.iter().map(|_| world.dial(DIRECT).unwrap()).collect();
        refused(world.dial(DIRECT));
        drop(open);
        assert_eq!(settled(&world).opened, (round + 1) * 8);
    }
    assert!(world.kernel().counters().unwrap().contains(&("overflowed", 5)));
}

#[test]
fn a_workload_that_the_nodes_limit_turns_away_has_it_on_its_own_account() {
    let world = limited(LimitScope::Node, &[ENDPOINT]);
    let _open = world.dial(DIRECT).unwrap();
    refused(world.dial(DIRECT));
    let accounts = world.kernel().accounts().unwrap();
    let turned_away = accounts.iter().filter(|(_, account)| account.overflowed != 0);
    let turned_away: Vec<_> =
        turned_away.map(|(key, account)| (key.netns_cookie, account.overflowed)).collect();
    assert_eq!(turned_away, [(world.workload.cookie(), 1)]);
}

#[test]
fn a_multipath_connection_gives_its_place_back_when_both_sides_have_closed() {
    let server = "10.77.0.2:90";
    let world = world(&[server], Some(1));
    // A server that speaks it too, and one that makes the client fall back to plain TCP.
    for protocol in [Protocol::MPTCP, Protocol::TCP] {
        let listener = world.in_workload(|| {
            fs::write("/proc/sys/net/mptcp/enabled", "1").expect("this kernel has no multipath TCP");
            let listener = socket(Domain::IPV4, Some(protocol));
            listener.set_reuse_address(true).unwrap();
            listener.bind(&address(server)).unwrap();
            listener.listen(8).unwrap();
            listener
        });
        let before = settled(&world).opened;
        for round in 1..=3 {
            world.in_workload(|| {
                let client = socket(Domain::IPV4, Some(Protocol::MPTCP));
                client.connect(&address(DIRECT)).unwrap();
                drop((listener.accept().unwrap(), client));
            });
            assert_eq!(settled(&world).opened, before + round, "{protocol:?}");
        }
    }
}

#[test]
fn connections_that_are_open_when_capture_ends_are_counted_to_their_end() {
    for pinned in [false, true] {
        let mut world =
            if pinned { World::pinned(FailurePolicy::Open) } else { World::new(FailurePolicy::Open) };
        let whole = BTreeSet::from([world.cgroup("")]);
        world.kernel_mut().sync(&to(DIRECT, cluster(&[ENDPOINT], Some(1)))).unwrap();
        for round in 1..=2 {
            let open = world.dial(DIRECT).unwrap();
            world.kernel_mut().attach(&BTreeSet::new()).unwrap();
            assert_eq!(open.peer_addr().unwrap(), DIRECT.parse().unwrap());
            let _native = world.dial(DIRECT).unwrap();
            drop(open);
            assert_eq!(settled(&world).opened, round, "pinned: {pinned}");
            world.kernel_mut().attach(&whole).unwrap();
        }
    }
}
