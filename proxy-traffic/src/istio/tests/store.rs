//! What stays in force when files change.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::{super::order, *};

/// A VirtualService named `name` with one rule to that subset; an empty one is an error.
fn routed(name: &str, subset: &str) -> String {
    let rule = if subset.is_empty() {
        "tcp: []"
    } else {
        "tcp: [{route: [{destination: {host: db, subset: SUBSET}}]}]"
    };
    let rule = rule.replace("SUBSET", subset);
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: {name}}}, spec: {{hosts: [db], {rule}}}}}\n---\n"
    )
}

/// Names in force, with the subset that each routes to.
fn in_force(store: &Store) -> String {
    let services = store.resources().virtual_services.iter();
    let subset = |route: &super::super::resource::RouteDestination| {
        route.destination.as_ref().map_or_else(String::new, |one| one.subset.clone())
    };
    let names = services.map(|one| format!("{}={}", one.key.name, subset(&one.spec.tcp[0].route[0])));
    names.collect::<Vec<_>>().join(" ")
}

#[test]
fn each_resource_keeps_its_last_good_version() {
    let (a1, a2, a_bad) = (routed("a", "v1"), routed("a", "v2"), routed("a", ""));
    let (b1, broken) = (routed("b", "v1"), "}{\n---\n");
    for (texts, want) in [
        (vec![a1.clone()], "a=v1"),
        (vec![a1.clone(), a2.clone()], "a=v2"),
        (vec![a1.clone(), a_bad.clone()], "a=v1"),
        (vec![a_bad.clone()], ""),
        (vec![a1.clone(), a_bad.clone(), a2.clone()], "a=v2"),
        (vec![a1.clone() + &b1, a_bad.clone() + &b1], "a=v1 b=v1"),
        (vec![a1.clone() + &b1, a_bad.clone()], "a=v1"),
        (vec![a1.clone() + &b1, b1.clone()], "b=v1"),
        (vec![a1.clone() + &b1, broken.to_owned() + &b1], "a=v1 b=v1"),
        (vec![a1.clone() + &b1, broken.to_owned() + &b1, b1.clone()], "b=v1"),
        (vec![a1.clone(), broken.to_owned() + &a2], "a=v2"),
        (vec![a1.clone(), String::new()], ""),
        (vec![broken.to_owned() + &a1 + broken + &b1], "a=v1 b=v1"),
    ] {
        let mut store = Store::new();
        texts.iter().for_each(|text| drop(store.replace("a.yaml", text)));
        assert_eq!(in_force(&store), want, "{texts:?}");
    }
}

#[test]
fn an_error_says_what_stays_in_force() {
    let mut store = Store::new();
    let problems = store.replace("a.yaml", &routed("a", ""));
    assert!(problems[0].what.ends_with("; left out"), "{problems:?}");
    store.replace("a.yaml", &routed("a", "v1"));
    let problems = store.replace("a.yaml", &routed("a", ""));
    assert!(problems[0].what.ends_with("; its last good version stays in force"), "{problems:?}");
}

#[test]
fn the_first_file_has_a_resource_that_two_bring() {
    let mut store = Store::new();
    store.replace("b.yaml", &routed("a", "v1"));
    assert_eq!(in_force(&store), "a=v1");
    store.replace("a.yaml", &routed("a", "v2"));
    assert_eq!(in_force(&store), "a=v2");
    let (_, problems) = compile(store.resources(), &Snapshot::default(), &Settings::default());
    assert!(problems.iter().any(|one| one.file == "b.yaml" && one.what.contains("a.yaml has a resource")));
    store.remove("a.yaml");
    assert_eq!(in_force(&store), "a=v1");
    store.remove("b.yaml");
    assert!(store.resources().is_empty());
}

#[test]
fn documents_are_split_at_their_markers() {
    let plain = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: NAME\n  annotations:\n    text: |\n      one\n      ---\n      two\nspec:\n  hosts: [db]\n  tcp:\n  - route:\n    - destination: {host: db, subset: v1}\n";
    let (a, b) = (plain.replace("NAME", "a"), plain.replace("NAME", "b"));
    for text in [
        format!("{a}---\n{b}"),
        format!("--- # first\n{a}--- \n{b}"),
        format!("\u{feff}---\n\n# nothing\n---\n{a}...\n---\n{b}---\n"),
        format!("%YAML 1.2\n---\n{a}...\n%YAML 1.2\n---\n{b}"),
        format!("{a}---\n{b}").replace('\n', "\r\n"),
    ] {
        let mut store = Store::new();
        assert_eq!(store.replace("a.yaml", &text), [], "{text}");
        assert_eq!(in_force(&store), "a=v1 b=v1", "{text}");
    }
}

#[test]
fn a_list_brings_its_items() {
    let items = [routed("a", "v1"), routed("b", "v2")].map(|one| one.replace("\n---\n", ""));
    let text = format!(
        "{{apiVersion: v1, kind: List, metadata: {{resourceVersion: ''}}, items: [{}]}}",
        items.join(", ")
    );
    let mut store = Store::new();
    assert_eq!(store.replace("a.yaml", &text), []);
    assert_eq!(in_force(&store), "a=v1 b=v2");
}

#[test]
fn null_is_not_given() {
    let text = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a, namespace: null, labels: null}, \
                spec: {hosts: [db], gateways: null, tcp: [{match: null, route: [{destination: {host: db, subset: v1, port: null}}]}]}, status: {}}";
    let mut store = Store::new();
    assert_eq!(store.replace("a.yaml", text), []);
    assert_eq!(in_force(&store), "a=v1");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_change_at_a_time_is_as_good_as_all_at_once(
        edits in vec((0usize..3, prop::option::of(vec((0usize..4, 0usize..4), 0..4))), 0..20),
    ) {
        let (mut store, mut slow) = (Store::new(), Store::new());
        for (file, documents) in edits {
            let file = format!("{file}.yaml");
            let text = |(name, version): (usize, usize)| match version {
                0 => routed(["a", "b", "c", "d"][name], ""),
                1 if name == 0 => "}{\n---\n".to_owned(),
                _ => routed(["a", "b", "c", "d"][name], ["", "v1", "v2", "v3"][version]),
            };
            match documents {
                Some(documents) => {
                    let text: String = documents.into_iter().map(text).collect();
                    prop_assert_eq!(store.replace(&file, &text), slow.replace_anew(&file, &text));
                }
                None => {
                    store.remove(&file);
                    slow.remove(&file);
                }
            }
            prop_assert_eq!(format!("{:?}", store.resources()), format!("{:?}", slow.resources()));
            prop_assert_eq!(format!("{:?}", store.resources()), format!("{:?}", store.resources_anew()));
        }
    }

    #[test]
    fn lists_follow_others_and_say_where_they_differed(
        first in vec(0usize..40, 0..30),
        second in vec((0usize..40, any::<bool>()), 0..30),
    ) {
        let all: String = (0..40).map(|name| routed(&format!("n{name}"), "v1")).collect();
        let again: String = (0..40).map(|name| routed(&format!("n{name}"), "v2")).collect();
        let (mut one, mut other) = (Store::new(), Store::new());
        one.replace("a.yaml", &all);
        other.replace("a.yaml", &again);
        let (one, other) = (&one.resources().virtual_services, &other.resources().virtual_services);
        let pick = |index: usize, new: bool| if new { other[index].clone() } else { one[index].clone() };
        let older: BTreeMap<_, _> = first.into_iter().map(|index| (index, pick(index, false))).collect();
        let newer: BTreeMap<_, _> = second.into_iter().map(|(index, new)| (index, pick(index, new))).collect();
        let mut known: Vec<_> = older.values().cloned().collect();
        let now: Vec<_> = newer.values().cloned().collect();
        let edits = order::follow(&mut known, &now);
        let same = |one: &[std::sync::Arc<_>], other: &[std::sync::Arc<_>]| {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| std::sync::Arc::ptr_eq(a, b))
        };
        prop_assert!(same(&known, &now));
        let mut again: Vec<_> = older.into_values().collect();
        order::apply(&mut again, edits);
        prop_assert!(same(&again, &now));
    }
}
