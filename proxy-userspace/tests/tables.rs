//! Snapshots in the kernel's own maps: what is written, what is found there, and what outlives a daemon.
//!
//! Needs root, and says so. Nothing is attached to anything but namespaces that the tests make.

#![allow(clippy::unwrap_used, reason = "helpers of tests count as tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::umount,
    sched::{CloneFlags, unshare},
};
use proxy_common::{
    Verdict,
    direct::{self, Balancing, LimitScope},
};
use proxy_traffic::{
    Cluster, ClusterKind, ClusterName, Destination, Endpoint, Keepalive, Limit, Listener, Match,
    OutlierDetection, Route, Rule, Snapshot, SteerReason, SubnetListener, Workload, outlier::Outcome,
};
use shunt::{
    kernel::{Found, Kernel, KernelSettings, LogLevel, Synced},
    node::{Listeners, Namespace},
};

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Longer than anything that is gone is kept.
const LATER: Duration = Duration::from_secs(100);

#[test]
fn a_listener_leads_to_its_clusters_by_weight_and_those_to_their_endpoints() {
    let pair = cluster("pair", &["10.0.0.1:80", "10.0.0.2:80"]);
    let tuned = Arc::new(Cluster {
        connect_timeout: Duration::from_millis(2500),
        balancing: Balancing::RoundRobin,
        limit: Some(Limit { max_connections: 7, scope: LimitScope::Node }),
        keepalive: Some(Keepalive {
            time: Some(Duration::from_millis(1500)),
            interval: None,
            probes: Some(3),
        }),
        ..Cluster::clone(&cluster("tuned", &["[fd00::1]:9000"]))
    });
    let mut kernel = load(Sizes::default());
    let rules = snapshot(&[
        ("10.99.0.1:80", direct(&[(80, &pair), (20, &tuned_v4(&tuned))])),
        ("[fd99::1]:80", direct(&[(1, &tuned)])),
        ("10.99.0.2:80", steered()),
        ("10.99.0.3:80", listener(vec![])),
    ]);
    let synced = kernel.sync(&rules).unwrap();
    assert_eq!((synced.inserted, synced.removed, synced.steered), (4, 0, 1));

    let found = look(&kernel, "10.99.0.1:80");
    assert_eq!((found.scope, found.listener.verdict), (0, Verdict::Direct as u32));
    assert_eq!(
        shares(&found),
        [("pair".to_owned(), 80), ("tuned-v4".to_owned(), 20)]
            .map(|(name, share)| (hash_of(&kernel, &found, &name), share))
    );
    assert_eq!(addresses(&found), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"]);

    let found = look(&kernel, "[fd99::1]:80");
    let (number, entry, slots) = &found.clusters[0];
    assert_eq!((found.listener.count, slots.len()), (1, 1));
    assert_eq!((entry.max_connections, entry.limit_scope), (7, LimitScope::Node as u8));
    assert_eq!((entry.connect_timeout_ms, entry.balancing), (2500, Balancing::RoundRobin as u8));
    let keepalive = (entry.keepalive_idle_s, entry.keepalive_interval_s, entry.keepalive_probes);
    assert_eq!((entry.flags, keepalive), (direct::Cluster::KEEPALIVE, (2, 0, 3)));
    assert_eq!(kernel.cluster(*number).unwrap().name, tuned.name);
    let (endpoint, held) = found.endpoints[0];
    assert_eq!((held.cluster, held.ejected), (*number, 0));
    assert_eq!(kernel.endpoint(endpoint).unwrap().address, "[fd00::1]:9000".parse().unwrap());

    assert_eq!(look(&kernel, "10.99.0.2:80").listener.verdict, Verdict::Steer as u32);
    assert_eq!(look(&kernel, "10.99.0.3:80").listener.verdict, Verdict::Pass as u32);
    assert_eq!(kernel.look(0, "10.99.0.1:81".parse().unwrap()).unwrap(), None);
}

#[test]
fn nobody_an_original_destination_and_a_missing_host_are_told_apart() {
    let mut kernel = load(Sizes::default());
    let missing = with_kind("missing", ClusterKind::Missing("no such host".to_owned()));
    let rules = snapshot(&[
        ("10.99.0.1:80", direct(&[(1, &cluster("empty", &[]))])),
        ("10.99.0.2:80", direct(&[(1, &with_kind("original", ClusterKind::OriginalDestination))])),
        ("10.99.0.3:80", direct(&[(1, &missing)])),
    ]);
    kernel.sync(&rules).unwrap();
    let entry = |address: &str| look(&kernel, address).clusters[0].1;
    assert_eq!((entry("10.99.0.1:80").count, entry("10.99.0.1:80").flags), (0, 0));
    assert_eq!(entry("10.99.0.1:80").max_connections, direct::Cluster::UNLIMITED);
    assert_eq!(entry("10.99.0.2:80").balancing, Balancing::OriginalDestination as u8);
    assert_eq!(entry("10.99.0.3:80").flags, direct::Cluster::MISSING);
}

#[test]
fn ranges_are_split_where_rules_differ_and_the_longer_range_keeps_its_own() {
    let mut kernel = load(Sizes::default());
    let one = cluster("one", &["10.0.0.1:80"]);
    let inner = Match { destination_subnets: vec!["10.1.0.0/16".parse().unwrap()], ..Match::default() };
    let tail = Match { destination_subnets: vec!["10.2.2.0/24".parse().unwrap()], ..Match::default() };
    let wide = listener(vec![rule(vec![inner], &[(1, &one)]), rule(vec![tail], &[(1, &one)])]);
    let ranges = [("10.0.0.0/8", 80, wide), ("10.2.0.0/16", 80, steered()), ("::/0", 81, steered())];
    let synced = kernel.sync(&with_ranges(&ranges)).unwrap();
    // 10/8, 10.1/16, 10.2/16, ::/0 and what keeps IPv4 out of it.
    assert_eq!((synced.inserted, synced.steered), (5, 2));
    for (address, want) in [
        ("10.9.0.1:80", Some(Verdict::Pass)),
        ("10.1.0.1:80", Some(Verdict::Direct)),
        ("10.2.2.1:80", Some(Verdict::Steer)),
        ("11.0.0.1:80", None),
        ("[fd00::1]:81", Some(Verdict::Steer)),
        ("10.1.0.1:81", Some(Verdict::Pass)),
    ] {
        let found = kernel.look(0, address.parse().unwrap()).unwrap();
        assert_eq!(
            found.map(|found| found.listener.verdict),
            want.map(|verdict| verdict as u32),
            "{address}"
        );
    }
    // Without the longer range its part is the wider one's again.
    let fewer = kernel.sync(&with_ranges(&ranges[..1])).unwrap();
    assert_eq!((fewer.inserted, fewer.removed), (1, 3));
    assert_eq!(look(&kernel, "10.2.2.1:80").listener.verdict, Verdict::Direct as u32);
}

#[test]
fn only_what_changed_is_written_and_endpoints_keep_their_numbers() {
    let mut kernel = load(Sizes::default());
    let (one, two) = (cluster("one", &["10.0.0.1:80", "10.0.0.2:80"]), cluster("two", &["10.0.0.1:80"]));
    let (first, second) = (direct(&[(1, &one)]), direct(&[(1, &two)]));
    kernel.sync(&snapshot(&[("10.99.0.1:80", first.clone()), ("10.99.0.2:80", second.clone())])).unwrap();
    let before = look(&kernel, "10.99.0.1:80");

    let again = snapshot(&[("10.99.0.1:80", first), ("10.99.0.2:80", second.clone())]);
    assert_eq!(kernel.sync(&again).unwrap(), Synced::default());
    let equal = direct(&[(1, &cluster("one", &["10.0.0.1:80", "10.0.0.2:80"]))]);
    let again = snapshot(&[("10.99.0.1:80", equal), ("10.99.0.2:80", second.clone())]);
    assert_eq!(kernel.sync(&again).unwrap(), Synced::default(), "compiled anew, and the same");

    let other = direct(&[(1, &cluster("one", &["10.0.0.2:80", "10.0.0.3:80"]))]);
    let changed = snapshot(&[("10.99.0.1:80", other), ("10.99.0.2:80", second)]);
    let want = Synced { clusters: 1, endpoints: 1, slots: 2, ..Synced::default() };
    assert_eq!(kernel.sync(&changed).unwrap(), want);
    let after = look(&kernel, "10.99.0.1:80");
    assert_eq!(number_of(&before, "10.0.0.2:80"), number_of(&after, "10.0.0.2:80"));
    assert_eq!(before.clusters[0].0, after.clusters[0].0);

    // What is gone leaves the maps a while later, and comes back under the number it had only until then.
    let gone = number_of(&before, "10.0.0.1:80");
    kernel.tend(Instant::now()).unwrap();
    assert_eq!((used(&kernel, "ENDPOINTS"), kernel.endpoint(gone).is_some()), (4, true));
    kernel.tend(Instant::now() + LATER).unwrap();
    assert_eq!((used(&kernel, "ENDPOINTS"), kernel.endpoint(gone).is_some()), (3, false));
    let back = direct(&[(1, &cluster("one", &["10.0.0.1:80", "10.0.0.2:80"]))]);
    kernel.sync(&snapshot(&[("10.99.0.1:80", back)])).unwrap();
    assert!(number_of(&look(&kernel, "10.99.0.1:80"), "10.0.0.1:80") > gone);
    kernel.tend(Instant::now() + LATER).unwrap();
    assert_eq!((used(&kernel, "CLUSTERS"), used(&kernel, "LISTENERS")), (1, 1));
}

#[test]
fn a_full_table_is_named_with_what_helps_and_changes_nothing() {
    let mut kernel = load(Sizes { listeners: 8, endpoints: 4 });
    let old = snapshot(&[("10.99.0.1:80", direct(&[(1, &cluster("old", &["10.0.0.1:80"]))]))]);
    kernel.sync(&old).unwrap();
    let before = (look(&kernel, "10.99.0.1:80"), kernel.fill());
    let claimed: Vec<_> = (1..=20).map(|last| format!("10.99.1.{last}:80")).collect();
    let listeners: Vec<_> = claimed.iter().map(|at| (at.as_str(), listener(vec![]))).collect();
    let places: Vec<_> = (1..=6).map(|last| format!("10.0.2.{last}:80")).collect();
    let places: Vec<_> = places.iter().map(String::as_str).collect();
    let maglev =
        Cluster { balancing: Balancing::SourceHash, ..Cluster::clone(&cluster("hash", &places[..3])) };
    let clusters: Vec<_> = (0..9).map(|number| cluster(&number.to_string(), &[])).collect();
    let arms: Vec<_> = clusters.iter().map(|cluster| (1, cluster)).collect();
    let ranges: Vec<_> = (0..20).map(|last| (format!("10.98.{last}.0/24"), steered())).collect();
    let ranges: Vec<_> = ranges.iter().map(|(net, listener)| (net.as_str(), 80, listener.clone())).collect();
    for (rules, full) in [
        (snapshot(&listeners), "LISTENERS is full at 8 entries, --max-listeners"),
        (snapshot(&[("10.99.1.1:80", direct(&arms))]), "CLUSTERS is full at 8 entries, --max-listeners"),
        (
            snapshot(&[("10.99.1.1:80", direct(&[(1, &cluster("one", &places))]))]),
            "ENDPOINTS is full at 4 entries, --max-endpoints",
        ),
        (
            snapshot(&[("10.99.1.1:80", direct(&[(1, &Arc::new(maglev))]))]),
            "SLOTS is full at 16 entries, --max-endpoints",
        ),
        (with_ranges(&ranges), "RANGES is full at 8 entries, --max-listeners"),
    ] {
        let error = kernel.sync(&rules).unwrap_err().to_string();
        assert!(error.contains(full), "{error}");
        assert_eq!((look(&kernel, "10.99.0.1:80"), kernel.fill()), before, "{full}");
        assert_eq!(kernel.look(0, "10.99.1.1:80".parse().unwrap()).unwrap(), None);
    }
    assert_eq!(kernel.sync(&old).unwrap(), Synced::default());
}

#[test]
fn what_finds_no_room_finds_it_once_others_have_gone() {
    let mut kernel = load(Sizes { listeners: 8, endpoints: 2 });
    let serve = |places: &[&str]| snapshot(&[("10.99.0.1:80", direct(&[(1, &cluster("one", places))]))]);
    kernel.sync(&serve(&["10.0.0.1:80", "10.0.0.2:80"])).unwrap();
    kernel.sync(&serve(&["10.0.0.1:80"])).unwrap();
    let error = kernel.sync(&serve(&["10.0.0.1:80", "10.0.0.3:80"])).unwrap_err().to_string();
    assert!(error.contains("ENDPOINTS is full"), "{error}");
    kernel.tend(Instant::now() + LATER).unwrap();
    kernel.tend(Instant::now() + 2 * LATER).unwrap();
    assert_eq!(addresses(&look(&kernel, "10.99.0.1:80")), ["10.0.0.1:80", "10.0.0.3:80"]);
}

#[test]
fn a_workload_finds_the_listeners_of_its_namespace_and_labels() {
    let mut kernel = load(Sizes::default());
    let (web, api) = (cluster("web", &["10.0.0.1:80"]), cluster("api", &["10.0.0.2:80"]));
    let label = Match { source_labels: BTreeMap::from([("app".into(), "web".into())]), ..Match::default() };
    let split = listener(vec![rule(vec![label], &[(1, &web)]), rule(vec![], &[(1, &api)])]);
    let plain = direct(&[(1, &api)]);
    let scoped = snapshot(&[("10.99.0.1:80", split), ("10.99.0.2:80", plain.clone())]);
    let simple = snapshot(&[("10.99.0.1:80", plain.clone()), ("10.99.0.2:80", plain)]);
    let mut client = Client::new();
    client.enroll(&mut kernel, "web");
    kernel.sync(&simple).unwrap();
    assert_eq!(
        (client.scope(&kernel), addresses(&client.look(&kernel))),
        (0, vec!["10.0.0.2:80".to_owned()])
    );

    // A rule that looks at the client: the listener stands for its class only, but for a moment still for everybody.
    assert_eq!(
        (kernel.sync(&scoped).unwrap().inserted, kernel.sync(&scoped).unwrap()),
        (1, Synced::default())
    );
    assert!(client.scope(&kernel) > 0);
    assert_eq!(addresses(&client.look(&kernel)), ["10.0.0.1:80"]);
    assert_eq!(used(&kernel, "LISTENERS"), 3);
    kernel.tend(Instant::now() + LATER).unwrap();
    assert_eq!(used(&kernel, "LISTENERS"), 2);

    // Others are other classes, or the same.
    let mut other = Client::new();
    other.enroll(&mut kernel, "api");
    assert_eq!(
        (addresses(&other.look(&kernel)), used(&kernel, "LISTENERS")),
        (vec!["10.0.0.2:80".to_owned()], 3)
    );
    let mut same = Client::new();
    same.enroll(&mut kernel, "web");
    assert_eq!((same.scope(&kernel), used(&kernel, "LISTENERS")), (client.scope(&kernel), 3));
    kernel.unenroll(other.namespace.cookie()).unwrap();
    assert_eq!(used(&kernel, "LISTENERS"), 2);

    // And back.
    kernel.sync(&simple).unwrap();
    assert_eq!(
        (client.scope(&kernel), addresses(&client.look(&kernel))),
        (0, vec!["10.0.0.2:80".to_owned()])
    );
    assert_eq!(used(&kernel, "LISTENERS"), 2);
}

#[test]
fn health_is_written_where_it_changed() {
    let mut kernel = load(Sizes::default());
    let rules = OutlierDetection {
        consecutive: 1,
        interval: Duration::from_secs(1),
        base_ejection: Duration::from_secs(1),
        max_ejection_percent: 100,
        min_health_percent: 80,
    };
    let places = ["10.0.0.1:80", "10.0.0.2:80"];
    let watched = Arc::new(Cluster { outlier: Some(rules), ..Cluster::clone(&cluster("watched", &places)) });
    kernel.sync(&snapshot(&[("10.99.0.1:80", direct(&[(1, &watched)]))])).unwrap();
    assert_eq!(kernel.sync_health().unwrap(), 0);
    let failed = Outcome::Failed { run: Some(1) };
    assert!(watched.state.report(&watched, places[0].parse().unwrap(), failed, Duration::ZERO));
    assert_eq!((kernel.sync_health().unwrap(), kernel.sync_health().unwrap()), (1, 0));
    let flags = direct::Cluster::OUTLIER;
    let shown = |kernel: &Kernel| {
        let found = look(kernel, "10.99.0.1:80");
        let ejected: BTreeMap<_, _> =
            found.endpoints.iter().map(|(_, one)| (address(one), one.ejected)).collect();
        (found.clusters[0].1.flags, ejected.into_values().collect::<Vec<_>>())
    };
    assert_eq!(shown(&kernel), (flags | direct::Cluster::PANIC, vec![1, 0]));
    // A cluster that is compiled anew keeps its health.
    let wider = Cluster {
        kind: ClusterKind::Endpoints(endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"])),
        ..Cluster::clone(&watched)
    };
    kernel.sync(&snapshot(&[("10.99.0.1:80", direct(&[(1, &Arc::new(wider))]))])).unwrap();
    assert_eq!(shown(&kernel).1, [1, 0, 0]);
    for later in [10, 20] {
        watched.state.sweep(&watched, Duration::from_secs(later));
    }
    assert_eq!(kernel.sync_health().unwrap(), 1);
    assert_eq!(shown(&kernel), (flags, vec![0, 0, 0]));
}

#[test]
fn a_daemon_takes_over_what_one_before_it_pinned() {
    let pins = Pins::new();
    let state = || {
        let one = cluster("one", &["10.0.0.1:80", "10.0.0.2:80"]);
        let two = cluster("two", &["10.0.0.1:80"]);
        snapshot(&[("10.99.0.1:80", direct(&[(1, &one), (2, &two)])), ("10.99.0.2:80", direct(&[(1, &two)]))])
    };
    let mut first = Kernel::load(&pins.settings()).unwrap();
    first.sync(&state()).unwrap();
    let before = look(&first, "10.99.0.1:80");
    drop(first);

    let mut second = Kernel::load(&pins.settings()).unwrap();
    assert_eq!(look(&second, "10.99.0.1:80"), before, "in force before anything is synced");
    assert_eq!(second.sync(&state()).unwrap(), Synced::default(), "nothing changed, nothing is written");
    second.attach(&BTreeSet::new()).unwrap();
    assert_eq!(look(&second, "10.99.0.1:80"), before);
    assert_eq!(second.cluster(before.clusters[0].0).unwrap().name.as_str(), "outbound|80||one");
    drop(second);

    // Changed while nobody looked: what is gone goes once everybody is enrolled, what is new gets a new number.
    let mut third = Kernel::load(&pins.settings()).unwrap();
    let one = cluster("one", &["10.0.0.2:80", "10.0.0.3:80"]);
    let synced = third.sync(&snapshot(&[("10.99.0.1:80", direct(&[(1, &one)]))])).unwrap();
    assert_eq!((synced.inserted, synced.clusters, synced.endpoints, synced.removed), (1, 1, 1, 0));
    assert_eq!(used(&third, "LISTENERS"), 2);
    third.attach(&BTreeSet::new()).unwrap();
    assert_eq!(used(&third, "LISTENERS"), 1);
    let after = look(&third, "10.99.0.1:80");
    assert_eq!(number_of(&before, "10.0.0.2:80"), number_of(&after, "10.0.0.2:80"));
    let most = before.endpoints.iter().map(|(number, _)| *number).max().unwrap();
    assert!(number_of(&after, "10.0.0.3:80") > most);
    third.tend(Instant::now() + LATER).unwrap();
    assert_eq!((used(&third, "CLUSTERS"), used(&third, "ENDPOINTS")), (1, 2));
    third.close().unwrap();
}

#[test]
fn numbers_are_never_given_twice_even_across_daemons() {
    let pins = Pins::new();
    let mut first = Kernel::load(&pins.settings()).unwrap();
    let only = |name: &str| snapshot(&[("10.99.0.1:80", direct(&[(1, &cluster(name, &["10.0.0.1:80"]))]))]);
    first.sync(&only("one")).unwrap();
    first.sync(&only("two")).unwrap();
    let last = look(&first, "10.99.0.1:80");
    first.sync(&snapshot(&[])).unwrap();
    first.tend(Instant::now() + LATER).unwrap();
    assert_eq!(used(&first, "CLUSTERS"), 0);
    drop(first);
    let mut second = Kernel::load(&pins.settings()).unwrap();
    second.sync(&only("three")).unwrap();
    let found = look(&second, "10.99.0.1:80");
    assert_eq!(found.clusters[0].0, last.clusters[0].0 + 1);
    assert_eq!(found.endpoints[0].0, last.endpoints[0].0 + 1);
    second.close().unwrap();
}

#[test]
fn ten_thousand_listeners_fit_and_one_changed_endpoint_is_one_write() {
    let mut kernel = load(Sizes::default());
    let place = |index: u32, offset: u32| SocketAddr::new(Ipv4Addr::from(offset + index).into(), 80);
    let serve = |index: u32, shift: u32| {
        let places: Vec<_> =
            (0..10).map(|one| place(index * 16 + one + shift, 0x0a00_0000).to_string()).collect();
        let places: Vec<_> = places.iter().map(String::as_str).collect();
        direct(&[(1, &cluster(&index.to_string(), &places))])
    };
    let listeners: BTreeMap<_, _> =
        (0..10_000).map(|index| (place(index, 0xc000_0000), serve(index, 0))).collect();
    let mut rules = Snapshot { listeners, ..Snapshot::default() };
    let synced = kernel.sync(&Arc::new(rules.clone())).unwrap();
    assert_eq!((synced.inserted, synced.clusters, synced.endpoints), (10_000, 10_000, 100_000));

    rules.listeners.insert(place(5000, 0xc000_0000), serve(5000, 1));
    let changed = Arc::new(rules);
    let start = Instant::now();
    let synced = kernel.sync(&changed).unwrap();
    let took = start.elapsed();
    assert_eq!(synced, Synced { clusters: 1, endpoints: 1, slots: 10, ..Synced::default() });
    println!("one endpoint of 100,000 changed: {took:?}");
    assert!(took < Duration::from_millis(50), "{took:?}");
}

#[derive(Clone, Copy)]
struct Sizes {
    listeners: u32,
    endpoints: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { listeners: KernelSettings::CLAIMS, endpoints: KernelSettings::ENDPOINTS }
    }
}

impl Sizes {
    fn settings(self, pin: Option<PathBuf>) -> KernelSettings {
        KernelSettings {
            own_cgroup: 1,
            mark: 1,
            claims: self.listeners,
            endpoints: self.endpoints,
            lease: Duration::from_secs(60),
            pin,
            log: LogLevel::Off,
        }
    }
}

fn load(sizes: Sizes) -> Kernel {
    assert!(nix::unistd::Uid::effective().is_root(), "these tests make kernel maps: run them as root");
    Kernel::load(&sizes.settings(None)).unwrap()
}

/// A folder for pins; gone with the test.
struct Pins(PathBuf);

impl Pins {
    fn new() -> Self {
        let name = format!("shunt-tables-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn settings(&self) -> KernelSettings {
        Sizes::default().settings(Some(self.0.clone()))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if self.0.exists() {
            let _ = umount(&self.0);
            let _ = fs::remove_dir(&self.0);
        }
    }
}

/// A workload in a namespace of its own.
struct Client {
    namespace: Namespace,
    listeners: Option<Listeners>,
}

impl Client {
    fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let file = thread::spawn(make).join().unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Self { namespace: Namespace::open(Path::new(&path)).unwrap(), listeners: None }
    }

    fn enroll(&mut self, kernel: &mut Kernel, app: &str) {
        let listeners = self.namespace.listen().unwrap();
        let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        let workload = Workload { name: "client".to_owned(), namespace: "default".to_owned(), labels };
        let (netns, cookie) = (self.namespace.as_fd(), self.namespace.cookie());
        kernel
            .enroll(netns, cookie, Default::default(), Arc::new(workload), listeners.v4.as_fd(), None)
            .unwrap();
        self.listeners = Some(listeners);
    }

    fn look(&self, kernel: &Kernel) -> Found {
        kernel.look(self.namespace.cookie(), "10.99.0.1:80".parse().unwrap()).unwrap().unwrap()
    }

    /// The scope of what it finds.
    fn scope(&self, kernel: &Kernel) -> u32 {
        self.look(kernel).scope
    }
}

fn endpoints(places: &[&str]) -> Vec<Endpoint> {
    let endpoint =
        |place: &&str| Endpoint { address: place.parse().unwrap(), weight: 1, workload: Arc::default() };
    places.iter().map(endpoint).collect()
}

fn with_kind(name: &str, kind: ClusterKind) -> Arc<Cluster> {
    let plain = Cluster::passthrough(Duration::from_secs(10));
    let name = ClusterName::outbound(80, "", name);
    Arc::new(Cluster { name, kind, balancing: Balancing::LeastRequest, ..plain })
}

fn cluster(name: &str, places: &[&str]) -> Arc<Cluster> {
    with_kind(name, ClusterKind::Endpoints(endpoints(places)))
}

/// The same policies for an endpoint that an IPv4 listener may lead to.
fn tuned_v4(tuned: &Cluster) -> Arc<Cluster> {
    let name = ClusterName::outbound(80, "", "tuned-v4");
    Arc::new(Cluster { name, kind: ClusterKind::Endpoints(endpoints(&["10.0.0.9:80"])), ..tuned.clone() })
}

fn rule(matches: Vec<Match>, arms: &[(u64, &Arc<Cluster>)]) -> Rule {
    let destinations =
        arms.iter().map(|(weight, cluster)| Destination { weight: *weight, cluster: (*cluster).clone() });
    Rule { matches, route: Arc::new(Route { name: "test".to_owned(), destinations: destinations.collect() }) }
}

fn listener(rules: Vec<Rule>) -> Arc<Listener> {
    Arc::new(Listener { name: "test".to_owned(), rules, steer: None })
}

fn direct(arms: &[(u64, &Arc<Cluster>)]) -> Arc<Listener> {
    listener(vec![rule(vec![], arms)])
}

fn steered() -> Arc<Listener> {
    Arc::new(Listener { name: "test".to_owned(), rules: vec![], steer: Some(SteerReason::Setting) })
}

fn snapshot(listeners: &[(&str, Arc<Listener>)]) -> Arc<Snapshot> {
    let listeners = listeners.iter().map(|(at, listener)| (at.parse().unwrap(), listener.clone())).collect();
    Arc::new(Snapshot { listeners, ..Snapshot::default() })
}

fn with_ranges(ranges: &[(&str, u16, Arc<Listener>)]) -> Arc<Snapshot> {
    let range = |(subnet, port, listener): &(&str, u16, Arc<Listener>)| SubnetListener {
        subnet: subnet.parse().unwrap(),
        port: *port,
        listener: listener.clone(),
    };
    Arc::new(Snapshot { subnets: ranges.iter().map(range).collect(), ..Snapshot::default() })
}

/// What everybody finds.
fn look(kernel: &Kernel, destination: &str) -> Found {
    kernel.look(0, destination.parse().unwrap()).unwrap().unwrap()
}

fn address(endpoint: &direct::Endpoint) -> SocketAddr {
    let destination = proxy_common::Destination { address: endpoint.address, port: endpoint.port };
    destination.into()
}

fn addresses(found: &Found) -> Vec<String> {
    let sorted: BTreeSet<_> = found.endpoints.iter().map(|(_, one)| address(one)).collect();
    sorted.into_iter().map(|address| address.to_string()).collect()
}

fn number_of(found: &Found, place: &str) -> u32 {
    found.endpoints.iter().find(|(_, one)| address(one).to_string() == place).unwrap().0
}

fn hash_of(kernel: &Kernel, found: &Found, name: &str) -> u32 {
    let named = |number: &u32| kernel.cluster(*number).unwrap().name == ClusterName::outbound(80, "", name);
    found.clusters.iter().map(|(number, ..)| *number).find(named).unwrap()
}

/// Each cluster's share of the arms in percent, by number.
fn shares(found: &Found) -> Vec<(u32, u64)> {
    let mut shares = BTreeMap::<u32, u64>::new();
    for slot in &found.arms {
        let own = u64::from(slot.threshold) + 1;
        *shares.entry(slot.own).or_default() += own;
        *shares.entry(slot.alias).or_default() += (1 << 32) - own;
    }
    let whole = (found.arms.len() as u64) << 32;
    shares.into_iter().map(|(number, share)| (number, (share * 100 + whole / 2) / whole)).collect()
}

fn used(kernel: &Kernel, table: &str) -> u32 {
    kernel.fill().iter().find(|fill| fill.table == table).unwrap().used
}
