//! `localityLbSetting.distribute`: shares by place.

use super::*;
use crate::ClusterName;

/// The endpoints of a service in four places, under this setting, for a process at `here`.
fn endpoints(setting: &str, here: &str) -> String {
    let entry = resource(
        "ServiceEntry",
        "{hosts: [a.x], resolution: STATIC, ports: [{number: 80, name: tcp}], endpoints: [\
         {address: 10.1.0.1, locality: eu/a/1}, {address: 10.1.0.2, locality: eu/a/2, weight: 3}, \
         {address: 10.1.0.3, locality: eu/b}, {address: 10.1.0.4, locality: us/a}, {address: 10.1.0.5}]}",
    );
    let policy =
        format!("{{host: a.x, trafficPolicy: {{loadBalancer: {{localityLbSetting: {{{setting}}}}}}}}}");
    let mut store = Store::new();
    store.replace("a.yaml", &(entry + "---\n" + &resource("DestinationRule", &policy)));
    let settings = Settings { locality: here.to_owned(), ..Settings::default() };
    let (snapshot, _) = compile(store.resources(), &Snapshot::default(), &settings);
    let listing = snapshot.clusters[&ClusterName::outbound(80, "", "a.x")].to_string();
    listing.split_once(": ").unwrap().1.replace("10.1.0.", ".").replace(":80", "")
}

#[test]
fn connections_are_distributed_by_place() {
    let all = ".1, .2 weight 3, .3, .4, .5";
    for (setting, here, want) in [
        ("", "eu/a/1", all),
        ("enabled: false, distribute: [{from: '*', to: {us: 100}}]", "eu/a/1", all),
        ("enabled: true, distribute: [{from: '*', to: {us: 100}}]", "eu/a/1", ".4"),
        ("distribute: [{from: eu, to: {us: 100}}]", "us/a", all),
        ("distribute: [{from: eu, to: {us: 100}}]", "", all),
        ("distribute: [{from: '*', to: {us: 100}}]", "", ".4"),
        ("distribute: [{from: eu/a, to: {us: 100}}, {from: us, to: {eu/b: 100}}]", "us/a/7", ".3"),
        ("distribute: [{from: 'eu/*', to: {eu/b: 80, 'us/*': 20}}]", "eu/a/1", ".3 weight 4, .4"),
        (
            "distribute: [{from: eu/a/1, to: {eu/a/1: 70, eu/b: 20, us/a: 10}}]",
            "eu/a/1",
            ".1 weight 7, .3 weight 2, .4",
        ),
        // Within a place by the endpoints' own weights: 60 % are 15 and 45.
        (
            "distribute: [{from: eu, to: {eu/a: 60, eu/b: 40}}]",
            "eu/b",
            ".1 weight 3, .2 weight 9, .3 weight 8",
        ),
        // Who has no place is only anywhere.
        ("distribute: [{from: eu, to: {'*': 100}}]", "eu", all),
        // A place where nobody is leaves its share to the others.
        ("distribute: [{from: eu, to: {eu/c: 90, eu/b: 5, us: 5}}]", "eu", ".3, .4"),
        ("distribute: [{from: eu, to: {asia: 100}}]", "eu", "no endpoint"),
    ] {
        assert_eq!(endpoints(setting, here), want, "{setting} at {here}");
    }
}
