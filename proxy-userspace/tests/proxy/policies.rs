//! What a DestinationRule asks of a cluster: limits, ejection, keepalive.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use proxy_traffic::{Balancing, Cluster, Keepalive, Limit, LimitScope, OutlierDetection};
use shunt::proxy::{Dial, Family, PlainDial, now};
use socket2::SockRef;

use crate::harness::{Blackhole, Proxy, echo, is_served, nobody, one, server, several, until};

const RULES: OutlierDetection = OutlierDetection {
    consecutive: 3,
    interval: Duration::from_secs(10),
    base_ejection: Duration::from_secs(30),
    max_ejection_percent: 100,
    min_health_percent: 0,
};

fn limited(cluster: Cluster, max_connections: u32, scope: LimitScope) -> Cluster {
    Cluster { limit: Some(Limit { max_connections, scope }), ..cluster }
}

/// Dials `count` times, one after the other, and returns those that are served.
fn served(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| Proxy::dial_to(address)).filter(is_served).collect()
}

/// Connections that ended with this flag.
fn flagged(proxy: &Proxy, flag: &str) -> u64 {
    let text = proxy.context.metrics.text().unwrap();
    let label = format!("response_flags=\"{flag}\"");
    let closed =
        |line: &&str| line.starts_with("istio_tcp_connections_closed_total{") && line.contains(&label);
    text.lines().filter(closed).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn of_ten_connections_a_limit_of_three_serves_three() {
    let cluster = limited(one("", server(echo)), 3, LimitScope::Workload);
    let proxy = Proxy::start(vec![(1, cluster)]);
    let mut open = served(proxy.address, 10);
    assert_eq!(open.len(), 3);
    until("the others have ended", || proxy.open() == 3);
    assert_eq!(flagged(&proxy, "UO"), 7);
    let lines = proxy.lines();
    let refused = "endpoint=- sent_bytes=0 received_bytes=0 response_flags=UO cause=overflow path=proxy requested_server_name=-";
    assert_eq!(lines.iter().filter(|line| line.ends_with(refused)).count(), 7, "{lines:#?}");
    // One goes, one comes, and no second.
    open.pop();
    until("one has ended", || proxy.open() == 2);
    open.extend(served(proxy.address, 2));
    assert_eq!(open.len(), 3);
    drop(open);
    assert_eq!(proxy.settled().len(), 12);
    assert_eq!((flagged(&proxy, "UO"), proxy.cluster().state.active()), (8, 0));
}

#[test]
fn racers_get_exactly_the_limit() {
    let cluster = limited(one("", server(echo)), 10, LimitScope::Workload);
    let proxy = Proxy::start(vec![(1, cluster)]);
    for _ in 0..5 {
        let open: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = (0..32).map(|_| scope.spawn(|| served(proxy.address, 2))).collect();
            racers.into_iter().flat_map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(open.len(), 10);
        drop(open);
        until("all have ended", || proxy.open() == 0);
    }
}

#[test]
fn workloads_have_their_own_limit_unless_it_is_the_nodes() {
    for (scope, want) in [(LimitScope::Workload, [3, 3]), (LimitScope::Node, [3, 0])] {
        let proxy = Proxy::start(vec![(1, limited(one("", server(echo)), 3, scope))]);
        let other = proxy.enroll("other");
        let open = [served(proxy.address, 5), served(other, 5)];
        assert_eq!([open[0].len(), open[1].len()], want, "{scope:?}");
    }
}

#[test]
fn each_endpoint_has_its_own_limit_where_that_is_the_scope() {
    let cluster = several("", &[server(echo), server(echo)]);
    let cluster = Cluster { balancing: Balancing::Random, ..cluster };
    let proxy = Proxy::start(vec![(1, limited(cluster, 2, LimitScope::Endpoint))]);
    let other = proxy.enroll("other");
    // Who draws a full one gets another, so chance cannot leave a place empty.
    let open = [served(proxy.address, 6), served(other, 6)];
    assert_eq!([open[0].len(), open[1].len()], [4, 4]);
    until("the others have ended", || proxy.open() == 8);
    let lines = proxy.lines();
    // All are full: none is named.
    let nobodys = |line: &&String| line.contains("cause=overflow") && line.contains("endpoint=- ");
    assert_eq!(lines.iter().filter(nobodys).count(), 4, "{lines:#?}");
}

#[test]
fn a_gateways_connections_are_limited_too() {
    let cluster = limited(one("", server(echo)), 1, LimitScope::Workload);
    let proxy = Proxy::with(vec![(1, cluster)], true, Arc::new(PlainDial));
    let open = served(proxy.address, 3);
    assert_eq!(open.len(), 1);
    until("the others have ended", || proxy.open() == 1);
    assert_eq!(flagged(&proxy, "UO"), 2);
}

#[test]
fn a_connection_that_fails_gives_its_place_back() {
    let proxy = Proxy::start(vec![(1, limited(one("", nobody()), 1, LimitScope::Endpoint))]);
    for count in 1..=5 {
        assert_eq!(served(proxy.address, 1).len(), 0);
        until("it has ended", || flagged(&proxy, "UF,URX") == count);
    }
    assert_eq!(flagged(&proxy, "UO"), 0);
}

/// A proxy before one endpoint that refuses and one that answers.
fn half_dead() -> Proxy {
    Proxy::start(vec![(1, Cluster { outlier: Some(RULES), ..several("", &[nobody(), server(echo)]) })])
}

#[test]
fn after_three_refusals_nobody_is_sent_there_until_its_time_is_over() {
    let proxy = half_dead();
    // In turn: every other one fails until three have.
    assert_eq!(served(proxy.address, 10).len(), 7);
    assert_eq!(served(proxy.address, 30).len(), 30);
    proxy.settled();
    assert_eq!(flagged(&proxy, "UF,URX"), 3);
    let cluster = proxy.cluster();
    assert_eq!(cluster.state.health().ejected.len(), 1);
    let begin = now();
    assert!(!cluster.state.sweep(&cluster, begin));
    assert!(!cluster.state.sweep(&cluster, begin + Duration::from_secs(20)));
    assert!(cluster.state.sweep(&cluster, begin + Duration::from_secs(30)));
    assert_eq!(served(proxy.address, 10).len(), 7);
    // Twice as long the second time.
    assert!(!cluster.state.sweep(&cluster, begin + Duration::from_secs(59)));
    assert!(cluster.state.sweep(&cluster, begin + Duration::from_secs(69)));
}

#[test]
fn when_all_are_ejected_it_is_uh_until_panic_says_otherwise() {
    for (minimum, flag) in [(0, "UH"), (50, "UF,URX")] {
        let rules = OutlierDetection { consecutive: 1, min_health_percent: minimum, ..RULES };
        let cluster = Cluster { outlier: Some(rules), ..one("", nobody()) };
        let proxy = Proxy::start(vec![(1, cluster)]);
        assert_eq!(served(proxy.address, 4).len(), 0);
        let lines = proxy.settled();
        let last = lines.last().unwrap();
        assert!(last.contains(&format!("response_flags={flag} ")), "{last}");
        assert_eq!(proxy.cluster().state.health().panic, minimum > 0);
    }
}

#[test]
fn silence_ejects_as_refusals_do() {
    let hole = Blackhole::new();
    let rules = OutlierDetection { consecutive: 1, ..RULES };
    let mut cluster = Cluster { outlier: Some(rules), ..several("", &[hole.address, server(echo)]) };
    cluster.connect_timeout = Duration::from_millis(200);
    let proxy = Proxy::start(vec![(1, cluster)]);
    assert_eq!(served(proxy.address, 10).len(), 9);
    proxy.settled();
    assert_eq!(flagged(&proxy, "UF,URX"), 1);
}

#[test]
fn what_fails_on_our_side_ejects_nobody() {
    struct Broken;
    impl Dial for Broken {
        fn socket(&self, _: Family) -> io::Result<OwnedFd> {
            Err(io::Error::other("out of sockets"))
        }

        fn datagram(&self, family: Family) -> io::Result<OwnedFd> {
            self.socket(family)
        }
    }
    let cluster = Cluster { outlier: Some(RULES), ..one("", server(echo)) };
    let proxy = Proxy::with(vec![(1, cluster)], false, Arc::new(Broken));
    assert_eq!(served(proxy.address, 10).len(), 0);
    proxy.settled();
    assert!(proxy.cluster().state.health().ejected.is_empty());
}

#[test]
fn least_request_goes_to_the_idle_one() {
    let [busy, idle] = [server(echo), server(echo)];
    let cluster = Cluster { balancing: Balancing::LeastRequest, ..several("", &[busy, idle]) };
    let proxy = Proxy::start(vec![(1, cluster)]);
    let open = served(proxy.address, 40);
    assert_eq!(open.len(), 40);
    drop(open);
    let lines = proxy.settled();
    let busy = lines.iter().filter(|line| line.contains(&format!("endpoint={busy} "))).count();
    // Two choices keep both within a few of each other; chance alone strays by ten and more.
    assert!((14..=26).contains(&busy), "{busy} of 40");
}

/// Keeps a second descriptor of every socket it opens.
#[derive(Default)]
struct Keeps(Mutex<Vec<OwnedFd>>);

impl Dial for Keeps {
    fn socket(&self, family: Family) -> io::Result<OwnedFd> {
        let socket = PlainDial.socket(family)?;
        self.0.lock().unwrap().push(socket.try_clone()?);
        Ok(socket)
    }

    fn datagram(&self, family: Family) -> io::Result<OwnedFd> {
        PlainDial.datagram(family)
    }
}

#[test]
fn upstream_sockets_have_the_clusters_keepalive() {
    let seconds = Duration::from_secs;
    let said = |time, interval, probes| Some(Keepalive { time, interval, probes });
    for (keepalive, want) in [
        (None, (false, None, None, None)),
        (said(None, None, None), (true, None, None, None)),
        (said(Some(seconds(20)), Some(seconds(3)), Some(5)), (true, Some(20), Some(3), Some(5))),
        // Beyond what the kernel takes.
        (
            said(Some(seconds(90_000)), Some(Duration::ZERO), Some(999)),
            (true, Some(32767), Some(1), Some(127)),
        ),
    ] {
        let dial = Arc::new(Keeps::default());
        let clusters = vec![(1, Cluster { keepalive, ..one("", server(echo)) })];
        let proxy = Proxy::with(clusters, false, Arc::clone(&dial) as Arc<dyn Dial>);
        assert_eq!(served(proxy.address, 1).len(), 1);
        let kept = dial.0.lock().unwrap();
        let socket = SockRef::from(&kept[0]);
        let (on, time, interval, probes) = want;
        assert_eq!(socket.keepalive().unwrap(), on);
        for (got, want) in [
            (socket.tcp_keepalive_time().unwrap(), time),
            (socket.tcp_keepalive_interval().unwrap(), interval),
        ] {
            assert!(want.is_none_or(|want| got == seconds(want)), "{got:?} not {want:?}");
        }
        let got = socket.tcp_keepalive_retries().unwrap();
        assert!(probes.is_none_or(|want| got == want), "{got} not {probes:?}");
    }
}
