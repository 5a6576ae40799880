//! Who may leave: the mesh's policy and its Sidecars'.

use super::*;
use crate::{EgressVerdict, Workload};

/// The mesh's settings with these annotations.
fn mesh(annotations: &str, text: &str) -> String {
    let metadata = format!("{{name: istio, namespace: istio-system, annotations: {{{annotations}}}}}");
    format!("{{apiVersion: v1, kind: ConfigMap, metadata: {metadata}, data: {{mesh: '{text}'}}}}\n---\n")
}

/// A Sidecar `name` of `namespace` with these annotations.
fn sidecar(path: &str, annotations: &str, spec: &str) -> String {
    let (namespace, name) = path.split_once('/').unwrap();
    let metadata = format!("{{name: {name}, namespace: {namespace}, annotations: {{{annotations}}}}}");
    format!(
        "{{apiVersion: networking.istio.io/v1alpha3, kind: Sidecar, metadata: {metadata}, spec: {spec}}}\n---\n"
    )
}

const CLOSED: &str = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}";
const OPEN: &str = "outboundTrafficPolicy: {mode: ALLOW_ANY}";

/// The first lines of the listing, those of the policies.
fn policies(snapshot: &Snapshot) -> String {
    let listing = snapshot.to_string();
    listing.lines().filter(|line| line.starts_with("egress ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_mesh_allows_everything_or_what_is_registered() {
    for (text, want) in [
        ("", ""),
        ("accessLogFile: /dev/stdout", ""),
        (OPEN, "egress ALLOW_ANY by ConfigMap istio-system/istio"),
        ("outboundTrafficPolicy: {mode: 1}", "egress ALLOW_ANY by ConfigMap istio-system/istio"),
        (CLOSED, "egress REGISTRY_ONLY, closed by ConfigMap istio-system/istio"),
        ("outboundTrafficPolicy: {mode: 0}", "egress REGISTRY_ONLY, closed by ConfigMap istio-system/istio"),
        // Zero of the enumeration takes the place of the default.
        ("outboundTrafficPolicy: {}", "egress REGISTRY_ONLY, closed by ConfigMap istio-system/istio"),
        ("outboundTrafficPolicy:", ""),
        (
            "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}",
            "egress ALLOW_ANY by ConfigMap istio-system/istio",
        ),
    ] {
        let (snapshot, _) = load(&[&mesh("", text)]);
        assert_eq!(policies(&snapshot), want, "{text}");
    }
}

#[test]
fn a_selector_goes_before_a_namespace_before_the_root_before_the_mesh() {
    let select = |labels: &str| format!("{{workloadSelector: {{labels: {{{labels}}}}}, {OPEN}}}");
    let text = [
        mesh("", CLOSED),
        sidecar("istio-system/all", "", &format!("{{{OPEN}}}")),
        sidecar("istio-system/own", "", &format!("{{workloadSelector: {{labels: {{app: a}}}}, {CLOSED}}}")),
        sidecar("shop/all", "", &format!("{{{CLOSED}}}")),
        sidecar("shop/some", "", &select("app: a, version: v1")),
    ];
    let (snapshot, problems) = load(&[&text.concat()]);
    assert_eq!(problems, []);
    assert_eq!(
        policies(&snapshot),
        "egress REGISTRY_ONLY, closed by ConfigMap istio-system/istio\n\
         egress of namespace istio-system with app=a: REGISTRY_ONLY, closed by Sidecar istio-system/own\n\
         egress of namespace shop with app=a with version=v1: ALLOW_ANY by Sidecar shop/some\n\
         egress of namespace shop: REGISTRY_ONLY, closed by Sidecar shop/all\n\
         egress of every namespace: ALLOW_ANY by Sidecar istio-system/all"
    );
    for (namespace, labels, want) in [
        ("shop", &[("app", "a"), ("version", "v1"), ("x", "y")][..], "Sidecar shop/some"),
        ("shop", &[("app", "a")], "Sidecar shop/all"),
        ("other", &[("app", "a")], "Sidecar istio-system/all"),
        ("istio-system", &[("app", "a")], "Sidecar istio-system/own"),
        ("istio-system", &[], "Sidecar istio-system/all"),
    ] {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let workload =
            Workload { namespace: namespace.to_owned(), labels: labels.collect(), name: "w".to_owned() };
        assert_eq!(snapshot.egress.of(&workload).source, want, "{namespace} {:?}", workload.labels);
    }
}

#[test]
fn a_sidecar_without_a_policy_has_the_meshs_and_one_without_a_mode_forbids() {
    let text = [
        mesh("", OPEN),
        sidecar("a/x", "", "{egress: [{hosts: ['./*']}]}"),
        sidecar("b/x", "", "{outboundTrafficPolicy: {}}"),
        // Not the root namespace's, as in Istio.
        sidecar("istio-system/x", "", &format!("{{{CLOSED}}}")),
    ];
    assert_eq!(
        policies(&load(&[&text.concat()]).0),
        "egress ALLOW_ANY by ConfigMap istio-system/istio\n\
         egress of namespace a: ALLOW_ANY by ConfigMap istio-system/istio\n\
         egress of namespace b: REGISTRY_ONLY, closed by Sidecar b/x\n\
         egress of every namespace: REGISTRY_ONLY, closed by Sidecar istio-system/x"
    );
}

#[test]
fn the_oldest_of_two_for_the_same_workloads_wins() {
    let dated = |path: &str, date: &str, spec: &str| {
        let time = format!("creationTimestamp: 2020-01-0{date}T00:00:00Z, annotations: ");
        sidecar(path, "", spec).replace("annotations: ", &time)
    };
    let select = format!("{{workloadSelector: {{labels: {{app: a}}}}, {CLOSED}}}");
    let text = [
        dated("a/younger", "2", &format!("{{{OPEN}}}")),
        dated("a/zzz", "1", &format!("{{{CLOSED}}}")),
        dated("a/second", "2", &select),
        dated("a/zzzz", "1", &select),
    ];
    let (snapshot, problems) = load(&[&text.concat()]);
    assert_eq!(
        policies(&snapshot),
        "egress ALLOW_ANY by default\n\
         egress of namespace a with app=a: REGISTRY_ONLY, closed by Sidecar a/zzzz\n\
         egress of namespace a: REGISTRY_ONLY, closed by Sidecar a/zzz"
    );
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "0.yaml: Sidecar a/second: workloadSelector: left out: Sidecar a/zzzz selects the same workloads and comes first, \
             by age, then name; remove one",
            "0.yaml: Sidecar a/younger: left out: Sidecar a/zzz is about every workload of the namespace, too, and comes first, \
             by age, then name; remove one"
        ]
    );
}

#[test]
fn an_annotation_says_what_a_blocked_connection_meets() {
    let blocked = |value: &str| format!("shunt.dev/egress-blocked: {value}");
    let closed = format!("{{{CLOSED}}}");
    let of = |settings: &Settings, mesh_says: &str, sidecar_says: &str| {
        let mut store = Store::new();
        store.replace("a.yaml", &(mesh(mesh_says, CLOSED) + &sidecar("a/x", sidecar_says, &closed)));
        let (snapshot, problems) = compile(store.resources(), &Snapshot::default(), settings);
        assert_eq!(problems, []);
        (snapshot.egress.mesh.verdict, snapshot.egress.sidecars[0].policy.verdict)
    };
    use EgressVerdict::{Close, Refuse};
    let closes = Settings::default();
    let refuses = Settings { egress_refuses: true, ..Settings::default() };
    assert_eq!(of(&closes, "", ""), (Close, Close));
    assert_eq!(of(&refuses, "", ""), (Refuse, Refuse));
    assert_eq!(of(&closes, &blocked("refuse"), ""), (Refuse, Refuse));
    assert_eq!(of(&refuses, &blocked("close"), ""), (Close, Close));
    assert_eq!(of(&closes, &blocked("refuse"), &blocked("close")), (Refuse, Close));
    assert_eq!(of(&closes, "", &blocked("refuse")), (Close, Refuse));
}

#[test]
fn an_annotation_says_what_becomes_of_open_connections() {
    let closed = format!("{{{CLOSED}}}");
    for (mesh_says, sidecar_says, want) in [
        ("", "", (false, false)),
        ("shunt.dev/egress-existing: close", "", (true, true)),
        ("shunt.dev/egress-existing: close", "shunt.dev/egress-existing: keep", (true, false)),
        ("", "shunt.dev/egress-existing: close", (false, true)),
    ] {
        let text = mesh(mesh_says, CLOSED) + &sidecar("a/x", sidecar_says, &closed);
        let egress = load(&[&text]).0.egress;
        assert_eq!((egress.mesh.closes_existing, egress.sidecars[0].policy.closes_existing), want);
    }
    let text = mesh("shunt.dev/egress-existing: close", CLOSED);
    let want = "egress REGISTRY_ONLY, closed, also what is open by ConfigMap istio-system/istio";
    assert_eq!(policies(&load(&[&text]).0), want);
}

#[test]
fn a_broken_mesh_config_costs_only_itself() {
    let mut store = Store::new();
    store.replace("a.yaml", &mesh("", CLOSED));
    let problems = store.replace("a.yaml", &mesh("", "outboundTrafficPolicy: {mode: ALLOW_ANY"));
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(told[0].starts_with("a.yaml: ConfigMap istio-system/istio: data.mesh: not YAML: "), "{told:?}");
    assert!(told[0].ends_with("; its last good version stays in force"), "{told:?}");
    let (snapshot, _) = compile(store.resources(), &Snapshot::default(), &Settings::default());
    assert_eq!(snapshot.egress.mesh.verdict, EgressVerdict::Close);
}

#[test]
fn the_meshs_connect_timeout_is_everybodys_default() {
    let (snapshot, problems) = load(&[DB, &mesh("", "connectTimeout: 3s")]);
    assert_eq!(problems, []);
    assert!(snapshot.to_string().contains("connectTimeout 3s"), "{snapshot}");
}

#[test]
fn other_peoples_config_maps_are_their_own() {
    let other = mesh("", CLOSED).replace("name: istio,", "name: settings,");
    let mut store = Store::new();
    assert_eq!(store.replace("a.yaml", &other), []);
    assert_eq!(store.resources().len(), 0);
    let elsewhere = mesh("", CLOSED).replace("namespace: istio-system", "namespace: shop");
    assert_eq!(policies(&load(&[&elsewhere]).0), "");
    let settings = Settings { root_namespace: "shop".to_owned(), ..Settings::default() };
    store.replace("b.yaml", &elsewhere);
    let (snapshot, _) = compile(store.resources(), &Snapshot::default(), &settings);
    assert_eq!(policies(&snapshot), "egress REGISTRY_ONLY, closed by ConfigMap shop/istio");
}
