//! Snapshots in the kernel's own maps: what is written, what is found there, and what outlives a daemon.
//!
//! Needs root, and says so. Nothing is attached to anything but namespaces that the tests make.

#![allow(clippy::unwrap_used, reason = "helpers of tests count as tests")]

mod harness;
mod random;
mod sizes;
mod takeover;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_common::{
    Verdict,
    direct::{self, Balancing, LimitScope},
};
use proxy_traffic::{Cluster, ClusterKind, Keepalive, Limit, Match, OutlierDetection, outlier::Outcome};
use shunt::kernel::{Kernel, Synced};

use crate::harness::*;

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
fn a_daemon_that_takes_over_knows_classes_of_workloads_again() {
    let pins = Pins::new();
    let web = cluster("web", &["10.0.0.1:80"]);
    let label = Match { source_labels: BTreeMap::from([("app".into(), "web".into())]), ..Match::default() };
    let rules = snapshot(&[("10.99.0.1:80", listener(vec![rule(vec![label], &[(1, &web)])]))]);
    let (mut client, mut other) = (Client::new(), Client::new());
    let mut first = Kernel::load(&pins.settings()).unwrap();
    first.sync(&rules).unwrap();
    client.enroll(&mut first, "web");
    other.enroll(&mut first, "api");
    let (before, others) = (client.look(&first), other.look(&first));
    assert_eq!(
        (before.listener.verdict, others.listener.verdict),
        (Verdict::Direct as u32, Verdict::Pass as u32)
    );
    drop(first);

    // Nobody is enrolled yet, and what was in force still is, written by nobody again.
    let mut second = Kernel::load(&pins.settings()).unwrap();
    assert_eq!(second.sync(&rules).unwrap(), Synced::default());
    assert_eq!(used(&second, "LISTENERS"), 2);
    client.enroll(&mut second, "web");
    assert_eq!(client.look(&second), before);
    second.attach(&Default::default()).unwrap();
    // Whoever is not enrolled again is forgotten, and so is what stood for its class.
    assert_eq!(
        (client.look(&second), used(&second, "LISTENERS"), used(&second, "WORKLOADS")),
        (before, 1, 1)
    );
    second.close().unwrap();
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
