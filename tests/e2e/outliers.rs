//! `outlierDetection`: who fails too often is left out for a while, for longer each time, and never too many.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::datapath::Datapath;
use crate::fleet::Fleet;

twice! {
    a_dead_endpoint_is_left_out_and_comes_back,
    the_second_ejection_lasts_longer,
    no_more_are_ejected_than_the_policy_allows,
    with_too_few_left_health_does_not_count,
}

/// Two failures in a row eject, for two seconds times the number of ejections.
fn policy(more: &str) -> String {
    let detection = "consecutive5xxErrors: 2, interval: 500ms, baseEjectionTime: 2s";
    format!("loadBalancer: {{simple: RANDOM}}, outlierDetection: {{{detection}, {more}}}")
}

/// Endpoints that are ejected now, as `shunt status` says.
fn ejected(fleet: &Fleet) -> Vec<Value> {
    let status: Value = serde_json::from_str(&fleet.scene.daemon.must("status -o json")).expect("JSON");
    status["ejected"].as_array().cloned().unwrap_or_default()
}

/// Connects until `count` endpoints are ejected; when that was.
#[track_caller]
fn eject(fleet: &Fleet, count: usize) -> Instant {
    tests::wait::until(&format!("{count} are ejected"), || {
        (0..5).for_each(|_| drop(fleet.hello()));
        ejected(fleet).len() == count
    });
    Instant::now()
}

fn a_dead_endpoint_is_left_out_and_comes_back(datapath: Datapath) {
    let mut fleet = Fleet::new("dead", datapath, 3, &policy("maxEjectionPercent: 50"));
    fleet.stop(0);
    let since = eject(&fleet, 1);
    let row = ejected(&fleet).remove(0);
    assert_eq!(row["endpoint"], fleet.endpoint(0).to_string());
    let seen = fleet.answers(60);
    assert!(since.elapsed() > Duration::from_secs(2) || seen.len() == 2, "{seen:?}");
    assert_eq!(fleet.scene.daemon.metrics().sum("shunt_endpoints_ejected", &[]), 1);
    fleet.serve(0);
    tests::wait::until("the endpoint is used again", || fleet.hello().is_some() && fleet.accepted(0) > 0);
    assert!(since.elapsed() > Duration::from_millis(1_500), "back after {:?}", since.elapsed());
    tests::wait::until("nobody is ejected", || ejected(&fleet).is_empty());
}

fn the_second_ejection_lasts_longer(datapath: Datapath) {
    let mut fleet = Fleet::new("second", datapath, 3, &policy("maxEjectionPercent: 50"));
    fleet.stop(0);
    let spells = [1, 2].map(|_| {
        let since = eject(&fleet, 1);
        tests::wait::until("it may come back", || ejected(&fleet).is_empty());
        since.elapsed()
    });
    assert!(spells[1] > spells[0] + Duration::from_secs(1), "{spells:?}");
}

fn no_more_are_ejected_than_the_policy_allows(datapath: Datapath) {
    let mut fleet = Fleet::new("most", datapath, 4, &policy("maxEjectionPercent: 25"));
    (0..2).for_each(|index| fleet.stop(index));
    let since = eject(&fleet, 1);
    while since.elapsed() < Duration::from_secs(1) {
        (0..20).for_each(|_| drop(fleet.hello()));
        assert!(ejected(&fleet).len() <= 1);
    }
}

fn with_too_few_left_health_does_not_count(datapath: Datapath) {
    let mut fleet =
        Fleet::new("panic", datapath, 2, &policy("maxEjectionPercent: 100, minHealthPercent: 60"));
    fleet.stop(0);
    eject(&fleet, 1);
    fleet.serve(0);
    assert_eq!(ejected(&fleet)[0]["used_anyway"], true);
    // One of two is less than 60 %: both are used, the ejected one too, and at once.
    tests::wait::until("the ejected endpoint is used", || fleet.hello().is_some() && fleet.accepted(0) > 0);
}
