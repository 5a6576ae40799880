//! What outlives a daemon, and what outlives a rule.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use aya::maps::{HashMap as BpfHash, Map, MapData};
use proxy_common::direct::{Account, AccountKey, LAYOUT};
use shunt::kernel::{Kernel, KernelSettings, Synced};

use crate::harness::*;

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
fn accounts_of_what_is_gone_wait_for_their_last_connection_and_a_reader() {
    let pins = Pins::new();
    let mut kernel = Kernel::load(&pins.settings()).unwrap();
    let map = MapData::from_pin(pins.0.join(format!(
        "v{LAYOUT}-{}-{}/ACCOUNTS",
        KernelSettings::CLAIMS,
        KernelSettings::ENDPOINTS
    )))
    .unwrap();
    let mut map: BpfHash<_, AccountKey, Account> = Map::from_map_data(map).unwrap().try_into().unwrap();
    kernel.sync(&snapshot(&[("10.99.0.1:80", direct(&[(1, &cluster("one", &["10.0.0.1:80"]))]))])).unwrap();
    let found = look(&kernel, "10.99.0.1:80");
    let (cluster, endpoint) = (found.clusters[0].0, found.endpoints[0].0);
    let key = |netns_cookie, endpoint| AccountKey { netns_cookie, cluster, endpoint };
    let (open, over) = (Account { active: 1, ..Account::default() }, Account::default());
    map.insert(key(7, endpoint), open, 0).unwrap();
    for cookie in 8..9000 {
        map.insert(key(cookie, 0), over, 0).unwrap();
    }
    let read = |kernel: &Kernel| {
        let accounts = kernel.accounts().unwrap();
        let keys: BTreeSet<_> = accounts.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys.len(), accounts.len(), "none twice");
        accounts.len()
    };
    assert_eq!(read(&kernel), 8993);

    kernel.sync(&snapshot(&[])).unwrap();
    let mut now = Instant::now() + LATER;
    let mut tend = |kernel: &mut Kernel| {
        now += Duration::from_secs(5);
        kernel.tend(now).unwrap();
    };
    tend(&mut kernel);
    tend(&mut kernel);
    assert_eq!(read(&kernel), 8993, "nobody has read what they came to");
    tend(&mut kernel);
    assert_eq!((read(&kernel), used(&kernel, "CLUSTERS")), (1, 0));
    assert!(kernel.cluster(cluster).is_some() && kernel.endpoint(endpoint).is_some(), "one is open still");
    map.insert(key(7, endpoint), over, 0).unwrap();
    tend(&mut kernel);
    assert_eq!(read(&kernel), 1);
    tend(&mut kernel);
    assert_eq!(read(&kernel), 0);
    assert!(kernel.cluster(cluster).is_none() && kernel.endpoint(endpoint).is_none());
    kernel.close().unwrap();
}
