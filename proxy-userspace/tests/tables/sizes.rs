//! Tables that are full, and large ones.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_common::direct::Balancing;
use proxy_traffic::{Cluster, Snapshot};
use shunt::kernel::Synced;

use crate::harness::*;

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
fn ten_thousand_listeners_fit_and_one_changed_endpoint_is_one_write() {
    let mut kernel = load(Sizes::default());
    let place = |index: u32, offset: u32| SocketAddr::new(Ipv4Addr::from(offset + index).into(), 80);
    let serve = |index: u32, shift: u32| {
        let places: Vec<_> =
            (0..10).map(|one| place(index * 16 + one + shift, 0x0a00_0000).to_string()).collect();
        let places: Vec<_> = places.iter().map(String::as_str).collect();
        direct(&[(1, &cluster(&index.to_string(), &places))])
    };
    let listeners = (0..10_000).map(|index| (place(index, 0xc000_0000), serve(index, 0))).collect();
    let mut rules = Snapshot { listeners, ..Snapshot::default() };
    let synced = kernel.sync(&Arc::new(rules.clone())).unwrap();
    assert_eq!((synced.inserted, synced.clusters, synced.endpoints), (10_000, 10_000, 100_000));

    rules.listeners.insert(place(5000, 0xc000_0000), serve(5000, 1));
    let changed = Arc::new(rules);
    let start = Instant::now();
    let synced = kernel.sync(&changed).unwrap();
    let took = start.elapsed();
    assert_eq!(synced, Synced { clusters: 1, endpoints: 1, slots: 10, ..Synced::default() });
    // In an optimised build it is 0.75 ms.
    assert!(took < Duration::from_millis(50), "{took:?}");
}
