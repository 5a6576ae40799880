//! Which cluster and which endpoint a direct connection gets, and what it gets where there is none.

use std::{collections::BTreeMap, io::ErrorKind, net::TcpStream, sync::Arc, time::Duration};

use proxy_common::{
    FailurePolicy,
    direct::{Account, AccountKey, Balancing, LimitScope},
};
use proxy_traffic::outlier::Outcome;
use proxy_traffic::{
    Cluster, ClusterKind, Destination, Keepalive, Limit, Listener, Match, OutlierDetection, Route, Rule,
    Snapshot, SubnetListener,
};
use socket2::{Domain, Socket, Type};

use crate::{
    address,
    stage::{DIRECT, SERVED, Stage, accept, cluster, listener, snapshot},
    world::{self, World, hear},
};

const PLACES: [&str; 3] = ["10.98.0.1:85", "10.98.0.2:85", "10.98.0.3:85"];
/// Chi-square with one and two degrees of freedom that chance exceeds once in 100,000 times.
const UNLIKELY: [f64; 2] = [19.5, 23.0];

fn balanced(name: &str, balancing: Balancing, weights: &[u32]) -> Cluster {
    let mut cluster = cluster(name, &PLACES[..weights.len()]);
    cluster.balancing = balancing;
    if let ClusterKind::Endpoints(endpoints) = &mut cluster.kind {
        for (endpoint, weight) in endpoints.iter_mut().zip(weights) {
            endpoint.weight = *weight;
        }
    }
    cluster
}

fn put(stage: &mut Stage, arms: Vec<(u64, Cluster)>) {
    stage.world.kernel_mut().sync(&snapshot([(DIRECT, arms)])).unwrap();
}

/// Connections so far, by what `name` makes of their account.
fn opened<K: Ord>(stage: &Stage, name: impl Fn(&AccountKey) -> Option<K>) -> BTreeMap<K, u64> {
    let mut opened = BTreeMap::new();
    for (key, Account { opened: count, .. }) in stage.world.kernel().accounts().unwrap() {
        if let Some(name) = name(&key).filter(|_| count != 0) {
            *opened.entry(name).or_default() += count;
        }
    }
    opened
}

/// Connections to each endpoint of the cluster of this name.
fn shares(stage: &Stage, name: &str) -> BTreeMap<String, u64> {
    let kernel = stage.world.kernel();
    opened(stage, |key| {
        let of = kernel.cluster(key.cluster)?;
        let endpoint = kernel.endpoint(key.endpoint)?;
        of.name.as_str().ends_with(name).then(|| endpoint.address.to_string())
    })
}

fn times(stage: &Stage, count: usize) {
    let server = &stage.server;
    let once = || {
        let stream = world::connect(DIRECT).unwrap();
        accept(server, &stream);
        reset(stream);
    };
    stage.world.in_workload(|| (0..count).for_each(|_| once()));
}

/// Leaves no port behind.
fn reset(stream: TcpStream) {
    Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn fits(drawn: impl IntoIterator<Item = u64>, weights: &[u64]) {
    let drawn: Vec<_> = drawn.into_iter().collect();
    let (total, sum) = (drawn.iter().sum::<u64>() as f64, weights.iter().sum::<u64>() as f64);
    assert_eq!(drawn.len(), weights.len(), "{drawn:?}");
    let terms = drawn.iter().zip(weights).map(|(drawn, weight)| {
        let expected = total * *weight as f64 / sum;
        (*drawn as f64 - expected).powi(2) / expected
    });
    let chi: f64 = terms.sum();
    assert!(chi < UNLIKELY[weights.len() - 2], "{drawn:?} for {weights:?}: {chi}");
}

#[test]
fn weights_and_balancing_are_what_the_rules_say() {
    let mut stage = Stage::new();
    put(&mut stage, vec![(80, cluster("arm-a", &PLACES[..1])), (20, cluster("arm-b", &PLACES[1..2]))]);
    times(&stage, 2000);
    let arm = |name: &str| shares(&stage, name).into_values().sum();
    fits([arm("arm-a"), arm("arm-b")], &[80, 20]);

    put(&mut stage, vec![(1, balanced("random", Balancing::Random, &[5, 3, 2]))]);
    times(&stage, 2000);
    fits(shares(&stage, "random").into_values(), &[5, 3, 2]);

    put(&mut stage, vec![(1, balanced("turns", Balancing::RoundRobin, &[2, 1, 1]))]);
    times(&stage, 400);
    assert_eq!(Vec::from_iter(shares(&stage, "turns").into_values()), [200, 100, 100]);

    put(&mut stage, vec![(1, balanced("least", Balancing::LeastRequest, &[1, 1, 1]))]);
    let held: Vec<_> = (0..300).map(|_| stage.dial()).collect();
    let least = shares(&stage, "least");
    assert!(least.values().all(|count| (85..=115).contains(count)), "{least:?}");
    held.into_iter().for_each(reset);
}

#[test]
fn one_source_gets_one_endpoint_bound_or_not() {
    let mut stage = Stage::new();
    for last in 3..20 {
        stage.world.ip(&format!("addr add 10.77.0.{last}/24 dev eth0"));
    }
    let mut choices = BTreeMap::new();
    for (turn, source) in [None].into_iter().chain((2..20).map(Some)).enumerate() {
        let name = format!("hashed-{turn}");
        put(&mut stage, vec![(1, balanced(&name, Balancing::SourceHash, &[1, 1, 1]))]);
        stage.world.in_workload(|| {
            for domain in [Domain::IPV4, Domain::IPV4, Domain::IPV6] {
                let socket = Socket::new(domain, Type::STREAM, None).unwrap();
                let mapped = |at: String| if domain == Domain::IPV6 { format!("[::ffff:{at}]") } else { at };
                if let Some(last) = source {
                    let at = mapped(format!("10.77.0.{last}"));
                    socket.bind(&address(&format!("{at}:0"))).unwrap();
                }
                let at = mapped("10.99.0.5".to_owned());
                socket.connect(&address(&format!("{at}:80"))).unwrap();
            }
        });
        let choice: Vec<_> = shares(&stage, &name).into_iter().collect();
        assert!(choice.len() == 1 && choice[0].1 == 3, "{source:?}: {choice:?}");
        choices.insert(source, choice[0].0.clone());
    }
    assert_eq!(choices[&None], choices[&Some(2)], "what it leaves from anyway");
    choices.remove(&None);
    let used: std::collections::BTreeSet<_> = choices.values().collect();
    assert_eq!(used.len(), 3, "{choices:?}");
}

#[test]
fn the_ejected_are_passed_over_unless_so_many_are_that_health_does_not_count() {
    let mut stage = Stage::new();
    for balancing in
        [Balancing::Random, Balancing::RoundRobin, Balancing::LeastRequest, Balancing::SourceHash]
    {
        let name = format!("sick-{balancing:?}");
        let rules = OutlierDetection {
            consecutive: 1,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection_percent: 100,
            min_health_percent: 50,
        };
        let sick = Cluster { outlier: Some(rules), ..balanced(&name, balancing, &[1, 1, 1]) };
        let state = Arc::clone(&sick.state);
        put(&mut stage, vec![(1, sick.clone())]);
        let eject = |stage: &mut Stage, place: &str| {
            let outcome = Outcome::Failed { run: Some(1) };
            assert!(state.report(&sick, place.parse().unwrap(), outcome, Duration::from_secs(1)));
            assert_eq!(stage.world.kernel_mut().sync_health().unwrap(), 1);
        };
        eject(&mut stage, PLACES[0]);
        times(&stage, 60);
        let after = shares(&stage, &name);
        assert!(!after.contains_key(PLACES[0]), "{balancing:?}: {after:?}");
        assert_eq!(after.values().sum::<u64>(), 60);
        eject(&mut stage, PLACES[1]);
        times(&stage, 60);
        let panicking = shares(&stage, &name);
        assert_eq!(panicking.values().sum::<u64>(), 120);
        let sick: u64 = panicking.get(PLACES[0]).copied().unwrap_or_default();
        assert!(sick != 0 || balancing == Balancing::SourceHash, "{balancing:?}: {panicking:?}");
    }
}

fn refused(stage: &Stage) {
    assert_eq!(stage.world.dial(DIRECT).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

fn counter(stage: &Stage, name: &str) -> u64 {
    stage.world.kernel().counters().unwrap().into_iter().find(|(found, _)| *found == name).unwrap().1
}

#[test]
fn where_there_is_nobody_the_caller_is_refused_and_it_is_counted() {
    let mut stage = Stage::new();
    let missing =
        Cluster { kind: ClusterKind::Missing("no such subset".to_owned()), ..cluster("missing", &[]) };
    for (arms, name) in [(cluster("empty", &[]), "unhealthy"), (missing, "missing")] {
        put(&mut stage, vec![(1, arms)]);
        (0..3).for_each(|_| refused(&stage));
        assert_eq!(counter(&stage, name), 3);
        let accounts = stage.world.kernel().accounts().unwrap();
        let total = |field: fn(&Account) -> u64| accounts.iter().map(|(_, one)| field(one)).sum::<u64>();
        let found = if name == "missing" { total(|one| one.missing) } else { total(|one| one.unhealthy) };
        assert_eq!((found, total(|one| one.active)), (3, 0), "{name}");
    }
}

#[test]
fn limits_count_what_their_scope_says() {
    let mut stage = Stage::new();
    stage.world.enroll_server(&[]);
    let there = |stage: &Stage| stage.world.server.enter(|| world::connect(DIRECT)).unwrap();
    for (scope, here, elsewhere) in
        [(LimitScope::Workload, 3, 3), (LimitScope::Node, 3, 0), (LimitScope::Endpoint, 9, 9)]
    {
        let limit = Some(Limit { max_connections: 3, scope });
        let limited = Cluster { limit, ..balanced(&format!("{scope:?}"), Balancing::RoundRobin, &[1, 1, 1]) };
        put(&mut stage, vec![(1, limited)]);
        let mine: Vec<_> = (0..12).filter_map(|_| stage.world.dial(DIRECT).ok()).collect();
        let theirs: Vec<_> = (0..12).filter_map(|_| there(&stage).ok()).collect();
        assert_eq!((mine.len(), theirs.len()), (here, elsewhere), "{scope:?}");
        mine.into_iter().for_each(reset);
        theirs.into_iter().for_each(reset);
        reset(stage.dial());
        let active = stage.world.kernel().accounts().unwrap().iter().map(|(_, one)| one.active).sum::<u64>();
        assert_eq!(active, 0, "{scope:?}");
    }
    assert_eq!(counter(&stage, "overflowed"), 9 + 9 + 9 + 12 + 3 + 3);
}

#[test]
fn the_options_of_the_cluster_are_on_the_socket() {
    let mut stage = Stage::new();
    let seconds = Duration::from_secs;
    let keepalive = Keepalive { time: Some(seconds(77)), interval: Some(seconds(7)), probes: Some(5) };
    put(&mut stage, vec![(1, Cluster { keepalive: Some(keepalive), ..cluster("kept", &[SERVED]) })]);
    let socket = Socket::from(stage.dial());
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), seconds(77));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(7));
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 5);
}

fn when(matches: Match, to: Cluster) -> Rule {
    let destinations = vec![Destination { weight: 1, cluster: Arc::new(to) }];
    Rule { matches: vec![matches], route: Arc::new(Route { name: "test".to_owned(), destinations }) }
}

#[test]
fn each_workload_has_the_rules_for_its_labels() {
    let mut stage = Stage::new();
    stage.world.enroll_server(&[("app", "server")]);
    let labels =
        Match { source_labels: [("app".to_owned(), "server".to_owned())].into(), ..Match::default() };
    let mut scoped = Listener::clone(&listener(vec![(1, cluster("others", &["10.98.0.2:80"]))]));
    scoped.rules.insert(0, when(labels, cluster("labelled", &["10.98.0.1:80"])));
    let listeners = [(DIRECT.parse().unwrap(), Arc::new(scoped))].into_iter().collect();
    let rules = Arc::new(Snapshot { listeners, ..Snapshot::default() });
    stage.world.kernel_mut().sync(&rules).unwrap();
    assert!(stage.world.greeting(DIRECT).starts_with("native at 10.98.0.2:80"));
    let there = stage.world.server.enter(|| hear(&world::connect(DIRECT).unwrap())).unwrap();
    assert!(there.starts_with("native at 10.98.0.1:80"), "{there}");
}

#[test]
fn a_range_goes_where_its_subnets_say() {
    let mut stage = Stage::new();
    let subnet = |text: &str| Match { destination_subnets: vec![text.parse().unwrap()], ..Match::default() };
    let mut ranged = Listener::clone(&listener(vec![(1, cluster("rest", &["10.98.0.1:80"]))]));
    ranged.rules.insert(0, when(subnet("10.94.1.0/24"), cluster("narrow", &["10.98.0.2:80"])));
    ranged.rules.insert(0, when(subnet("10.94.1.64/26"), cluster("narrower", &["10.98.0.3:80"])));
    let range =
        SubnetListener { subnet: "10.94.0.0/16".parse().unwrap(), port: 80, listener: Arc::new(ranged) };
    let rules = Arc::new(Snapshot { subnets: vec![range], ..Snapshot::default() });
    stage.world.kernel_mut().sync(&rules).unwrap();
    for (dialled, last) in
        [("10.94.0.1", 1), ("10.94.1.1", 2), ("10.94.1.65", 3), ("10.94.1.128", 2), ("10.94.2.0", 1)]
    {
        let heard = stage.world.greeting(&format!("{dialled}:80"));
        assert!(heard.starts_with(&format!("native at 10.98.0.{last}:80")), "{dialled}: {heard}");
    }
}

#[test]
fn without_a_lease_the_failure_policy_decides() {
    for policy in [FailurePolicy::Open, FailurePolicy::Closed] {
        let lease = Duration::from_millis(300);
        let mut stage = Stage::with(World::with_lease(policy, lease));
        put(&mut stage, vec![(1, cluster("leased", &["10.98.0.1:80"]))]);
        stage.world.kernel_mut().tend(std::time::Instant::now()).unwrap();
        assert!(stage.world.greeting(DIRECT).starts_with("native at 10.98.0.1:80"));
        let deadline = std::time::Instant::now() + world::PATIENCE;
        while counter(&stage, "lease_expired") == 0 {
            assert!(std::time::Instant::now() < deadline, "the lease does not end");
            let _ = stage.world.dial(DIRECT);
        }
        match policy {
            FailurePolicy::Open => {
                assert!(stage.world.greeting(DIRECT).starts_with("native at 10.99.0.5:80"))
            }
            FailurePolicy::Closed => refused(&stage),
        }
        stage.world.kernel_mut().tend(std::time::Instant::now()).unwrap();
        assert!(stage.world.greeting(DIRECT).starts_with("native at 10.98.0.1:80"));
    }
}
