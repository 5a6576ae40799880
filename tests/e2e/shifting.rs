//! Weights: connections are shared out as the rule says, in the mesh and through the gateway.

use std::collections::BTreeMap;

use tests::yaml;

use crate::datapath::Datapath;
use crate::gateway::{SEED_80_20, SEED_V1};
use crate::scene::{Scene, VIP6, answers, at};

twice! {
    eighty_twenty_in_the_mesh,
    one_to_three_and_all_to_one,
    a_weight_of_zero_is_never_drawn,
    ipv6_and_v4_mapped_are_shared_out_alike,
}

#[test]
fn the_seeds_yaml_pasted_unchanged_shifts_traffic_through_the_gateway() {
    let scene = Scene::unrouted("seed", Datapath::Steer);
    let gateway = scene.gateway();
    scene.daemon.apply("tcp-echo.yaml", SEED_V1);
    assert_eq!(answers(&scene.client, gateway, 200), counts(&[("one", 200)]));
    scene.daemon.apply("tcp-echo.yaml", &SEED_V1.replace(virtual_service_of(SEED_V1), SEED_80_20));
    must_share(&answers(&scene.client, gateway, 2_000), &[("one", 80), ("two", 20)]);
}

/// The last document of the seed's first file; the second file replaces it.
fn virtual_service_of(text: &str) -> &str {
    text.rsplit_once("---\n").map_or(text, |(_, last)| last)
}

fn eighty_twenty_in_the_mesh(datapath: Datapath) {
    let scene = Scene::echo("mesh8020", datapath);
    scene.daemon.apply("routing.yaml", &yaml::split(&[("v1", 80), ("v2", 20)]));
    must_share(&scene.answers(2_000), &[("one", 80), ("two", 20)]);
}

fn one_to_three_and_all_to_one(datapath: Datapath) {
    let scene = Scene::echo("ratios", datapath);
    assert_eq!(scene.answers(300), counts(&[("one", 300)]));
    scene.daemon.apply("routing.yaml", &yaml::split(&[("v1", 1), ("v2", 3)]));
    must_share(&scene.answers(2_000), &[("one", 25), ("two", 75)]);
}

fn a_weight_of_zero_is_never_drawn(datapath: Datapath) {
    let scene = Scene::echo("zero", datapath);
    scene.daemon.apply("routing.yaml", &yaml::split(&[("v1", 0), ("v2", 100)]));
    assert_eq!(scene.answers(1_000), counts(&[("two", 1_000)]));
    assert_eq!(scene.one.accepted(), 0);
}

fn ipv6_and_v4_mapped_are_shared_out_alike(datapath: Datapath) {
    let scene = Scene::echo("families", datapath);
    scene.daemon.apply("routing.yaml", &yaml::split(&[("v1", 50), ("v2", 50)]));
    must_share(&answers(&scene.client, at(VIP6, 9000), 1_000), &[("one", 50), ("two", 50)]);
    let mapped = (0..200).map(|_| {
        let mut connection = tests::client::Dial::to(scene.vip()).v4_mapped().connect(&scene.client);
        assert_eq!(connection.peer(), at("::ffff:10.96.0.10", 9000));
        connection.send("hello\n").line()
    });
    let mut seen = BTreeMap::new();
    mapped.for_each(|answer| *seen.entry(answer.replace(" hello", "")).or_default() += 1);
    must_share(&seen, &[("one", 50), ("two", 50)]);
}

/// Asserts shares in percent within five standard deviations: a right program fails once in a million runs.
#[track_caller]
pub(crate) fn must_share(seen: &BTreeMap<String, usize>, shares: &[(&str, u32)]) {
    let total: usize = seen.values().sum();
    for (who, percent) in shares {
        let (count, share) =
            (seen.get(*who).copied().unwrap_or_default() as f64, f64::from(*percent) / 100.0);
        let (mean, deviation) = (total as f64 * share, (total as f64 * share * (1.0 - share)).sqrt());
        assert!(
            (count - mean).abs() <= 5.0 * deviation,
            "{who}: {count} of {total}, expected {mean}: {seen:?}"
        );
    }
    assert_eq!(seen.len(), shares.len(), "{seen:?}");
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(who, count)| ((*who).to_owned(), *count)).collect()
}
