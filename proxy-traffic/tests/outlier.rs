//! Outlier detection against a naive model, and row by row.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use proptest::{collection, prelude::*};
use proxy_traffic::{
    Cluster, ClusterKind, Endpoint, OutlierDetection,
    outlier::{Health, Outcome},
};

const FAILED: Outcome = Outcome::Failed { run: None };

/// Istio's defaults, but everybody may be ejected.
const RULES: OutlierDetection = OutlierDetection {
    consecutive: 5,
    interval: Duration::from_secs(10),
    base_ejection: Duration::from_secs(30),
    max_ejection_percent: 100,
    min_health_percent: 0,
};

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 80))
}

fn cluster(hosts: impl IntoIterator<Item = u8>, rules: OutlierDetection) -> Cluster {
    let endpoint = |host| Endpoint { address: address(host), weight: 1, workload: Arc::default() };
    Cluster {
        kind: ClusterKind::Endpoints(hosts.into_iter().map(endpoint).collect()),
        outlier: Some(rules),
        ..Cluster::passthrough(Duration::from_secs(10))
    }
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Reports so many failures of `host` at once; whether health changed.
fn fail(cluster: &Cluster, host: u8, count: u32, now: Duration) -> bool {
    (0..count).fold(false, |changed, _| cluster.state.report(cluster, address(host), FAILED, now) || changed)
}

fn ejected(cluster: &Cluster) -> Vec<SocketAddr> {
    cluster.state.health().ejected.iter().copied().collect()
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_saves() {
    let cluster = cluster(1..=2, RULES);
    assert!(!fail(&cluster, 1, 4, seconds(1)));
    cluster.state.report(&cluster, address(1), Outcome::Connected, seconds(2));
    assert!(!fail(&cluster, 1, 4, seconds(3)));
    assert!(!fail(&cluster, 2, 4, seconds(3)));
    assert!(fail(&cluster, 1, 1, seconds(4)));
    assert_eq!(ejected(&cluster), [address(1)]);
    assert_eq!(cluster.state.health().version, 1);
}

#[test]
fn each_ejection_lasts_longer_until_the_cap_and_health_forgives() {
    let cluster = cluster(1..=1, RULES);
    let mut now = Duration::ZERO;
    cluster.state.sweep(&cluster, now);
    let mut returns = |healthy: u64| {
        assert!(fail(&cluster, 1, 5, now));
        let begin = now;
        while cluster.state.health().version % 2 == 1 {
            now += seconds(1);
            cluster.state.sweep(&cluster, now);
        }
        let lasted = (now - begin).as_secs();
        for _ in 0..healthy {
            now += seconds(10);
            cluster.state.sweep(&cluster, now);
        }
        lasted
    };
    // The interval that begins with the first failure decides to the second when each ends.
    let lasted = [0, 0, 2, 0, 100, 0].map(&mut returns);
    assert_eq!(lasted, [30, 60, 90, 60, 90, 30]);
    let cap = (0..20).map(|_| returns(0)).max();
    assert_eq!(cap, Some(300));
}

#[test]
fn a_base_time_beyond_the_cap_is_kept() {
    let cluster = cluster(1..=1, OutlierDetection { base_ejection: seconds(400), ..RULES });
    fail(&cluster, 1, 5, seconds(0));
    cluster.state.sweep(&cluster, seconds(0));
    for (now, back) in [(300, false), (399, false), (410, true)] {
        assert_eq!(cluster.state.sweep(&cluster, seconds(now)), back, "{now}");
    }
}

#[test]
fn the_share_of_the_ejected_is_strict() {
    for (hosts, percent, want) in [(5, 10, 0), (10, 10, 1), (10, 25, 2), (3, 100, 3), (3, 0, 0), (2, 50, 1)] {
        let cluster = cluster(0..hosts, OutlierDetection { max_ejection_percent: percent, ..RULES });
        for host in 0..hosts {
            fail(&cluster, host, 15, seconds(1));
        }
        assert_eq!(ejected(&cluster).len(), want, "{hosts} hosts, {percent} %");
    }
}

#[test]
fn below_the_minimum_health_does_not_count() {
    let cluster = cluster(0..4, OutlierDetection { min_health_percent: 50, ..RULES });
    for (host, panic) in [(0, false), (1, false), (2, true), (3, true)] {
        fail(&cluster, host, 5, seconds(1));
        assert_eq!(cluster.state.health().panic, panic, "{host}");
    }
    for now in 2..60 {
        cluster.state.sweep(&cluster, seconds(now));
    }
    assert_eq!(*cluster.state.health(), Health { version: 5, ..Health::default() });
}

#[test]
fn who_left_the_cluster_is_forgotten() {
    let before = cluster(1..=3, RULES);
    fail(&before, 1, 5, seconds(1));
    fail(&before, 2, 5, seconds(1));
    let after = Cluster { state: Arc::clone(&before.state), ..cluster(2..=3, RULES) };
    assert!(after.state.sweep(&after, seconds(2)));
    assert_eq!(ejected(&after), [address(2)]);
    // A report that comes late finds nobody, and one who comes back begins anew.
    assert!(!fail(&after, 1, 9, seconds(3)));
    assert!(!after.state.sweep(&before, seconds(4)) && !fail(&before, 1, 4, seconds(5)));
    assert_eq!(ejected(&before), [address(2)]);
}

#[test]
fn without_rules_nobody_is_left_out() {
    let with = cluster(1..=2, RULES);
    fail(&with, 1, 5, seconds(1));
    let without = Cluster { outlier: None, ..with.clone() };
    assert!(!fail(&without, 2, 9, seconds(2)));
    assert!(without.state.sweep(&without, seconds(2)));
    assert_eq!(ejected(&with), []);
}

#[test]
fn the_kernels_runs_count_as_the_daemons_do() {
    // Runs as the kernel reports them, and whether each report ejects; `0` lets all return.
    for (runs, want) in [
        (&[1, 2, 3, 4, 5][..], &[false, false, false, false, true][..]),
        // Successes between are seen by the run alone.
        (&[1, 2, 1, 2, 3, 4, 5], &[false, false, false, false, false, false, true]),
        (&[5], &[true]),
        // Nobody resets the kernel's run at the return: five more are needed all the same.
        (&[5, 0, 6, 7, 9, 10], &[true, true, false, false, false, true]),
        (&[5, 0, 1, 4, 5], &[true, true, false, false, true]),
    ] {
        let cluster = cluster(1..=1, RULES);
        cluster.state.sweep(&cluster, seconds(0));
        let mut now = seconds(1);
        for (run, want) in runs.iter().zip(want) {
            let changed = if *run == 0 {
                cluster.state.sweep(&cluster, now);
                now += seconds(100);
                cluster.state.sweep(&cluster, now)
            } else {
                cluster.state.report(&cluster, address(1), Outcome::Failed { run: Some(*run) }, now)
            };
            assert_eq!(changed, *want, "{run} of {runs:?}");
        }
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Happens {
    Fails(u8),
    Connects(u8),
    Time(u64),
    /// The cluster's endpoints are now these.
    Members(BTreeSet<u8>),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        12 => (0..6u8).prop_map(Happens::Fails),
        3 => (0..6u8).prop_map(Happens::Connects),
        6 => (1..40u64).prop_map(Happens::Time),
        1 => collection::btree_set(0..6u8, 0..6).prop_map(Happens::Members),
    ]
}

/// The rules in as many words as they have, over a plain list of everybody.
struct Naive {
    rules: OutlierDetection,
    now: u64,
    last: Option<u64>,
    members: BTreeSet<u8>,
    run: [u32; 6],
    times: [u64; 6],
    /// Out since when, and for how long.
    out: [Option<(u64, u64)>; 6],
}

impl Naive {
    fn fails(&mut self, host: u8) {
        let host = usize::from(host);
        if !self.members.contains(&(host as u8)) {
            return;
        }
        self.run[host] += 1;
        if self.out[host].is_some() || self.run[host] < self.rules.consecutive {
            return;
        }
        self.run[host] = 0;
        let out = self.out.iter().flatten().count() as f64;
        if (out + 1.0) / self.members.len() as f64 * 100.0 > f64::from(self.rules.max_ejection_percent) {
            return;
        }
        self.times[host] += 1;
        let base = self.rules.base_ejection.as_secs();
        self.out[host] = Some((self.now, (base * self.times[host]).min(base.max(300))));
    }

    fn sweep(&mut self) {
        for host in 0..6 {
            if !self.members.contains(&(host as u8)) {
                (self.run[host], self.times[host], self.out[host]) = (0, 0, None);
            }
        }
        let last = *self.last.get_or_insert(self.now);
        if self.now - last < self.rules.interval.as_secs() {
            return;
        }
        self.last = Some(self.now);
        for host in 0..6 {
            match self.out[host] {
                Some((since, lasts)) if since + lasts <= self.now => {
                    (self.out[host], self.run[host]) = (None, 0);
                }
                Some(_) => {}
                None => self.times[host] = self.times[host].saturating_sub(1),
            }
        }
    }

    fn health(&self) -> (BTreeSet<SocketAddr>, bool) {
        let out = (0..6).filter(|host| self.out[usize::from(*host)].is_some()).map(address);
        let out: BTreeSet<_> = out.collect();
        let healthy = (self.members.len() - out.len()) as f64 / self.members.len().max(1) as f64 * 100.0;
        (out, !self.members.is_empty() && healthy < f64::from(self.rules.min_health_percent))
    }
}

proptest! {
    #[test]
    fn the_detector_does_what_the_rules_say(
        events in collection::vec(happens(), 1..300),
        consecutive in 1..5u32,
        interval in 1..20u64,
        base in prop_oneof![1..50u64, 300..400u64],
        most in 0..=100u32,
        least in 0..=100u32,
    ) {
        let rules = OutlierDetection {
            consecutive,
            interval: seconds(interval),
            base_ejection: seconds(base),
            max_ejection_percent: most,
            min_health_percent: least,
        };
        let members: BTreeSet<_> = (0..6).collect();
        let mut real = cluster(members.clone(), rules);
        let (run, times, out) = ([0; 6], [0; 6], [None; 6]);
        let mut naive = Naive { rules, now: 0, last: None, members, run, times, out };
        for event in events {
            let before = real.state.health();
            let now = seconds(naive.now);
            let changed = match event {
                Happens::Fails(host) => {
                    naive.fails(host);
                    real.state.report(&real, address(host), FAILED, now)
                }
                Happens::Connects(host) => {
                    naive.run[usize::from(host)] = 0;
                    real.state.report(&real, address(host), Outcome::Connected, now)
                }
                Happens::Time(passed) => {
                    naive.now += passed;
                    naive.sweep();
                    real.state.sweep(&real, seconds(naive.now))
                }
                Happens::Members(members) => {
                    real = Cluster { state: Arc::clone(&real.state), ..cluster(members.clone(), rules) };
                    naive.members = members;
                    naive.sweep();
                    real.state.sweep(&real, now)
                }
            };
            let health = real.state.health();
            prop_assert_eq!((health.ejected.clone(), health.panic), naive.health());
            prop_assert_eq!(changed, health.version != before.version);
            prop_assert_eq!(changed, (&health.ejected, health.panic) != (&before.ejected, before.panic));
        }
    }
}
