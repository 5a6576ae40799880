//! What is compiled step by step is what is compiled at once.

use std::{net::IpAddr, sync::Arc};

use proptest::{collection::vec, prelude::*};

use super::{super::Compiler, *};

/// Resources of a world so small that they meet: `@a`, `@b` and `@c` are small numbers, `N` a namespace, `T` a policy,
/// `W` annotations, `X` those of a policy, `H` a host.
const RESOURCES: &[&str] = &[
    "{apiVersion: v1, kind: Service, metadata: {name: s@a, namespace: N, W}, spec: {clusterIP: 10.0.0.@b, selector: {app: a@b}, \
     ports: [{name: tcp, port: 8@c, targetPort: 80}]}}",
    "{apiVersion: v1, kind: Service, metadata: {name: s@a, namespace: N, creationTimestamp: 2020-01-0@bT00:00:00Z}, spec: {selector: {app: a@b, v: v@c}, \
     ports: [{name: tcp-x, port: 80, targetPort: p@b}, {name: http, port: 81}]}}",
    "{apiVersion: v1, kind: Service, metadata: {name: s@a, namespace: N}, spec: {clusterIP: None, selector: {app: a@b}, ports: [{port: 8@c}]}}",
    "{apiVersion: v1, kind: Service, metadata: {name: s@a, namespace: N}, spec: {clusterIP: 10.0.0.@b, ports: [{port: 8@c}]}}",
    "{apiVersion: v1, kind: Pod, metadata: {name: p@a, namespace: N, labels: {app: a@b, v: v@c}}, spec: {containers: [{ports: [{name: p@b, containerPort: 7}]}]}, \
     status: {podIP: 10.1.@b.@a}}",
    "{apiVersion: v1, kind: Pod, metadata: {name: p@a, namespace: N, labels: {app: a@b}}, status: {podIP: 10.1.@c.@a, conditions: [{type: Ready, status: 'False'}]}}",
    "{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: w@a, namespace: N, labels: {v: v@c}}, \
     spec: {address: 10.2.0.@b, labels: {app: a@b}, weight: @c, locality: r@a/z@b}}",
    "{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: w@a, namespace: N}, spec: {address: '2001:db8::@b', labels: {app: a@c}}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e@a, namespace: N, W}, spec: {hosts: [H], resolution: STATIC, \
     ports: [{number: 8@c, name: tcp}], endpoints: [{address: 10.3.0.@a, labels: {v: v@b}, locality: r1/z1}, {address: 10.3.0.@b, weight: 3}]}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e@a, namespace: N}, spec: {hosts: [H], addresses: [10.0.0.@b, 10.4.0.0/1@c], \
     resolution: STATIC, ports: [{number: 80, name: tcp}, {number: 9@c, name: tcp-x}], workloadSelector: {labels: {app: a@b}}}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e@a, namespace: N}, spec: {hosts: [H], addresses: [10.0.0.@b], \
     resolution: STATIC, ports: [{number: 80, name: http}], workloadSelector: {labels: {}}}}",
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v@a, namespace: N, W}, spec: {hosts: [H], \
     tcp: [{match: [{port: 8@c}], route: [{destination: {host: s@b, subset: u@c}, weight: 20}, {destination: {host: s@a}, weight: 80}]}]}}",
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v@a, namespace: N}, spec: {hosts: [H, q@b.other], gateways: [mesh, g@c], \
     tcp: [{match: [{sourceLabels: {v: v@b}}], route: [{destination: {host: 'x.test', port: {number: 8@c}}}]}, {route: [{destination: {host: s1.n1}}]}]}}",
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v@a, namespace: N}, spec: {hosts: ['*'], gateways: [g@b], \
     tcp: [{match: [{port: 8@c, sourceSubnet: 10.0.0.0/8}], route: [{destination: {host: s@b.n1.svc.cluster.local, port: {number: 80}}}]}]}}",
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v@a, namespace: N}, spec: {hosts: [H], \
     tcp: [{match: [{sourceSubnet: 10.0.0.0/8}], route: [{destination: {host: s@b}}]}]}}",
    "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d@a, namespace: N, W}, spec: {host: H, T, \
     subsets: [{name: u@b, labels: {v: v@c}, T}]}}",
    "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d@a, namespace: istio-system}, spec: {host: '*.n1.svc.cluster.local', T}}",
    "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d@a, namespace: N}, spec: {host: s@b, T, subsets: [{name: u@c, labels: {app: a@b}}]}}",
    "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g@a, namespace: N}, spec: {selector: {istio: ingressgateway}, \
     servers: [{port: {number: 8@c, name: tcp, protocol: TCP}, hosts: ['*']}, {port: {number: 90, name: t, protocol: TCP}, hosts: ['*.test']}]}}",
    "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: c@a, namespace: N, X}, spec: {workloadSelector: {labels: {app: a@b}}, \
     outboundTrafficPolicy: {mode: REGISTRY_ONLY}}}",
    "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: c@a, namespace: N, X}, spec: {outboundTrafficPolicy: {mode: ALLOW_ANY}}}",
    "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: c@a, namespace: istio-system}, spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}}",
    "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system, X}, data: {mesh: 'outboundTrafficPolicy: {mode: REGISTRY_ONLY}'}}",
    "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system, X}, data: {mesh: 'connectTimeout: 1@cs'}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e@a, namespace: N, W}, spec: {hosts: ['y.test', 'z@b.test'], resolution: DNS, \
     exportTo: [n@b], ports: [{number: 8@c, name: tls}, {number: 53, name: udp}]}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e@a, namespace: N}, spec: {hosts: ['*.z@b.test'], \
     resolution: DNS, ports: [{number: 8@c, name: http}], endpoints: [{address: y.test, labels: {v: v@b}}, {address: 'z1.test', weight: 3}]}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e@a, namespace: N}, spec: {hosts: [z@b.test], \
     ports: [{number: 8@c, name: tcp, targetPort: 80}, {number: 443, name: https}]}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e@a, namespace: N, W}, spec: {hosts: [R], addresses: [10.0.0.@b], \
     location: MESH_INTERNAL, resolution: DNS_ROUND_ROBIN, ports: [{number: 8@c, name: tcp}], endpoints: [{address: z1.test, ports: {tcp: 7@b}}]}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e@a, namespace: N, W}, spec: {hosts: [R], resolution: DNS, \
     exportTo: [E], ports: [{number: 8@c, name: http}, {number: 8@b, name: udp}], endpoints: [{address: y.test}, {address: 10.3.0.@a}]}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e@a, namespace: N}, spec: {hosts: [R], exportTo: [E], \
     ports: [{number: 8@c, name: tls}, {number: 8@b, name: udp}], addresses: [10.4.0.0/1@c]}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e@a, namespace: N, W}, spec: {hosts: [R, '*.w@b.test'], exportTo: [E], \
     ports: [{number: 8@c, name: tls}, {number: 8@b, name: tcp-x}]}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e@a, namespace: N}, spec: {hosts: ['*.w@b.test'], resolution: DYNAMIC_DNS, \
     ports: [{number: 8@c, name: tls, protocol: TLS, targetPort: 8443}]}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e@a, namespace: N}, spec: {hosts: [R], resolution: DNS, \
     ports: [{number: 8@c, name: tcp}], workloadSelector: {labels: {app: a@b}}}}",
    "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d@a, namespace: N, W}, spec: {host: R, T, \
     subsets: [{name: u@b, labels: {v: v@c}, T}]}}",
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v@a, namespace: N, W}, spec: {hosts: [R], \
     tcp: [{match: [{sourceNamespace: n@b}], route: [{destination: {host: y.test}}, {destination: {host: z@a.test}, weight: 80}]}]}}",
    "}{",
];

const HOSTS: &[&str] = &[
    "s1",
    "s2",
    "s1.n1.svc.cluster.local",
    "x.test",
    "y.test",
    "'*.test'",
    "'*.n1.svc.cluster.local'",
    "s1.n1",
];

/// Hosts of ServiceEntries that are looked up, or not, and who may see them, as numbers choose.
const NAMES: &[&str] = &["x.test", "y.test", "z1.test", "z2.test", "db.n1.test"];
const EXPORTS: &[&str] = &["'*'", ".", "n1", "'~'"];

const POLICIES: &[&str] = &[
    "trafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}}",
    "trafficPolicy: {connectionPool: {tcp: {maxConnections: 7, connectTimeout: 500ms}}}",
    "trafficPolicy: {outlierDetection: {}, loadBalancer: {localityLbSetting: {distribute: [{from: '*', to: {r1: 80, r2: 20}}]}}}",
    "trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}",
];

const ANNOTATIONS: &[&str] = &[
    "annotations: {}",
    "annotations: {}",
    "annotations: {shunt.dev/datapath: steer}",
    "annotations: {shunt.dev/overflow: close}",
    "annotations: {shunt.dev/limit-scope: node}",
];

const EGRESS: &[&str] = &[
    "annotations: {}",
    "annotations: {shunt.dev/egress-existing: close}",
    "annotations: {shunt.dev/egress-blocked: refuse}",
];

/// What a name is found to be from now on; nothing: it is not.
fn any_answer() -> impl Strategy<Value = (&'static str, Vec<IpAddr>)> {
    let address = prop_oneof![
        (1u8..4).prop_map(|last| IpAddr::from([203, 0, 113, last])),
        (1u16..3).prop_map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last])),
    ];
    (prop::sample::select(NAMES), vec(address, 0..4))
}

/// One resource of the small world.
fn any_resource() -> impl Strategy<Value = String> {
    let numbers = (1usize..3, 1usize..4, 0usize..3);
    let choices = (0..RESOURCES.len(), 0..HOSTS.len(), 0..POLICIES.len(), 0..ANNOTATIONS.len(), 1usize..3);
    (numbers, choices).prop_map(|((a, b, c), (index, host, policy, annotations, namespace))| {
        made([a, b, c], index, HOSTS[host], POLICIES[policy], ANNOTATIONS[annotations], namespace)
    })
}

fn made(
    numbers: [usize; 3],
    index: usize,
    host: &str,
    policy: &str,
    annotations: &str,
    namespace: usize,
) -> String {
    let mut text = RESOURCES[index].to_owned();
    for (name, number) in ["@a", "@b", "@c"].iter().zip(numbers) {
        text = text.replace(name, &number.to_string());
    }
    let number = numbers.iter().sum::<usize>() + namespace;
    text = text.replace("exportTo: [E]", &format!("exportTo: [{}]", EXPORTS[number % EXPORTS.len()]));
    let name = NAMES[(number + host.len()) % NAMES.len()];
    text = text.replace("hosts: [R", &format!("hosts: [{name}")).replace("host: R", &format!("host: {name}"));
    text = text.replace("hosts: [H", &format!("hosts: [{host}")).replace("host: H", &format!("host: {host}"));
    text = text.replace(" T,", &format!(" {policy},")).replace(" T}", &format!(" {policy}}}"));
    text = text.replace("namespace: N", &format!("namespace: n{namespace}"));
    let egress = EGRESS[numbers[1] % EGRESS.len()];
    let text = text.replace(" X}", &format!(" {egress}}}"));
    text.replace(" W}", &format!(" {annotations}}}")) + "\n---\n"
}

#[test]
fn the_small_world_is_sound() {
    for index in 0..RESOURCES.len() - 1 {
        for turn in 0..HOSTS.len() {
            let (policy, annotations) =
                (POLICIES[turn % POLICIES.len()], ANNOTATIONS[turn % ANNOTATIONS.len()]);
            let text =
                made([turn % 2 + 1, turn % 3 + 1, turn % 3], index, HOSTS[turn], policy, annotations, 1);
            let problems = Store::new().replace("a.yaml", &text);
            assert!(problems.iter().all(|one| one.severity == Severity::Warning), "{text}: {problems:?}");
        }
    }
}

/// Insists that what is alike is the same in memory.
fn same_where_alike<T: PartialEq>(old: Option<&Arc<T>>, new: &Arc<T>) -> bool {
    old.is_none_or(|old| Arc::ptr_eq(old, new) || **old != **new)
}

/// Compares the two ways to the next snapshot.
fn compare(before: &Snapshot, step: &Snapshot, whole: &Snapshot) -> Result<(), TestCaseError> {
    prop_assert_eq!(step.to_string(), whole.to_string());
    prop_assert_eq!(&step.hosts, &whole.hosts);
    prop_assert_eq!(&step.egress, &whole.egress);
    prop_assert_eq!(&step.http_ports, &whole.http_ports);
    prop_assert_eq!(&step.lookups, &whole.lookups);
    prop_assert_eq!(&step.datagrams, &whole.datagrams);
    prop_assert_eq!(&step.clusters, &whole.clusters);
    prop_assert_eq!(&step.listeners, &whole.listeners);
    prop_assert_eq!(&step.gateways, &whole.gateways);
    prop_assert_eq!(&step.subnets, &whole.subnets);
    for (name, cluster) in &step.clusters {
        let old = before.clusters.get(name);
        prop_assert!(same_where_alike(old, cluster), "{name}");
        prop_assert!(old.is_none_or(|old| Arc::ptr_eq(&old.state, &cluster.state)), "{name}");
    }
    for (old, new) in [(&before.listeners, &step.listeners), (&before.gateways, &step.gateways)] {
        for (address, listener) in new {
            prop_assert!(same_where_alike(old.get(address), listener), "{address}");
        }
    }
    for range in &step.subnets {
        let same = |old: &&crate::SubnetListener| (old.subnet, old.port) == (range.subnet, range.port);
        let old = before.subnets.iter().find(same).map(|old| &old.listener);
        prop_assert!(same_where_alike(old, &range.listener), "{}", range.subnet);
    }
    Ok(())
}

/// Every arm of every listener leads to a cluster of the snapshot itself, but for what a gateway cannot pass through.
fn arms_lead_home(snapshot: &Snapshot) -> bool {
    let ranges = snapshot.subnets.iter().map(|range| &range.listener);
    let rules = snapshot.listeners.values().chain(ranges).flat_map(|listener| &listener.rules);
    let mut arms = rules.flat_map(|rule| &rule.route.destinations);
    arms.all(|arm| snapshot.clusters.get(&arm.cluster.name).is_some_and(|own| Arc::ptr_eq(own, &arm.cluster)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn step_by_step_is_as_good_as_at_once(
        edits in vec((0usize..5, vec(any_resource(), 0..5), 0usize..12, vec(any_answer(), 0..3)), 1..25),
    ) {
        let settings = Settings { locality: "r1/z1".to_owned(), ..Settings::default() };
        let (mut store, mut compiler) = (Store::new(), Compiler::new());
        let mut before = Snapshot::default();
        for (file, resources, turn, answers) in edits {
            let file = format!("{file}.yaml");
            match turn {
                0 => store.remove(&file),
                // An answer comes by itself.
                1..4 => {}
                _ => drop(store.replace(&file, &resources.concat())),
            }
            answers.into_iter().for_each(|(name, addresses)| store.resolve(name, addresses));
            let settings = Settings { overflow_closes: turn == 5, ..settings.clone() };
            let (step, found) = compiler.compile(store.resources(), &before, &settings);
            let (whole, all) = compile(store.resources(), &before, &settings);
            compare(&before, &step, &whole)?;
            prop_assert_eq!(found.to_vec(), all);
            prop_assert!(arms_lead_home(&step));
            // Now and then somebody else's snapshot comes in between, as after a restart.
            before = if turn == 6 { Snapshot::with_hosts(step.hosts) } else { step };
        }
    }
}

/// A Gateway that comes and goes changes who counts a limit of the node's, and no listener of the mesh says so itself.
#[test]
fn the_edge_alone_changes_who_counts() {
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: more, annotations: {shunt.dev/limit-scope: node}}, \
                spec: {host: db, trafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}}}}";
    let edge = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: edge}, spec: {hosts: [a.test], gateways: [edge], \
                tcp: [{route: [{destination: {host: db.default.svc.cluster.local}}]}]}}\n---\n\
                {apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: edge}, spec: {servers: [\
                {port: {number: 5432, name: tcp, protocol: TCP}, hosts: ['*']}]}}";
    let service = DB.split("---\n").next().unwrap();
    let (mut store, mut compiler, settings) = (Store::new(), Compiler::new(), Settings::default());
    let mut before = Snapshot::default();
    store.replace("a.yaml", &format!("{service}---\n{rule}"));
    let mut steered = Vec::new();
    for text in ["", edge, ""] {
        store.replace("b.yaml", text);
        let (step, _) = compiler.compile(store.resources(), &before, &settings);
        let (whole, _) = compile(store.resources(), &before, &settings);
        compare(&before, &step, &whole).unwrap();
        steered.push(step.listeners.values().all(|listener| listener.steer.is_some()));
        before = step;
    }
    assert_eq!(steered, [false, true, false]);
}

#[test]
fn a_change_touches_its_own_host_only() {
    let entries: String = (0..200)
        .map(|number| {
            format!(
                "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: e{number}}}, spec: {{hosts: [e{number}.test], \
                 resolution: STATIC, ports: [{{number: 80, name: tcp}}], endpoints: [{{address: 10.0.0.1}}]}}}}\n---\n"
            )
        })
        .collect();
    let (mut store, mut compiler, settings) = (Store::new(), Compiler::new(), Settings::default());
    store.replace("a.yaml", &entries);
    let (before, _) = compiler.compile(store.resources(), &Snapshot::default(), &settings);
    let changed = entries.replacen("10.0.0.1", "10.0.0.2", 1);
    store.replace("a.yaml", &changed);
    let (after, _) = compiler.compile(store.resources(), &before, &settings);
    let listeners = before.listeners.changes(&after.listeners);
    assert_eq!(listeners.filter(|(_, old, new)| !Arc::ptr_eq(old.unwrap(), new.unwrap())).count(), 1);
    let clusters = before.clusters.changes(&after.clusters);
    assert_eq!(clusters.filter(|(_, old, new)| !Arc::ptr_eq(old.unwrap(), new.unwrap())).count(), 1);
    assert!(before.hosts.is_same(&after.hosts));
}

#[test]
fn an_answer_touches_only_who_asked_for_it() {
    let entries: String = (0..100)
        .map(|number| {
            format!(
                "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: e{number}}}, spec: {{hosts: [e{number}.test], \
                 resolution: DNS, ports: [{{number: 80, name: tcp}}, {{number: 443, name: tls}}], endpoints: [{{address: n{}.test}}]}}}}\n---\n",
                number / 2
            )
        })
        .collect();
    let (mut store, mut compiler, settings) = (Store::new(), Compiler::new(), Settings::default());
    store.replace("a.yaml", &entries);
    let (mut before, _) = compiler.compile(store.resources(), &Snapshot::default(), &settings);
    assert_eq!(before.lookups.len(), 50);
    for (name, addresses, hosts) in [
        ("n7.test", vec!["203.0.113.1", "203.0.113.2"], vec!["e14.test", "e15.test"]),
        ("n7.test", vec!["203.0.113.1", "203.0.113.2"], vec![]),
        ("n7.test", vec!["203.0.113.2"], vec!["e14.test", "e15.test"]),
        ("n7.test", vec![], vec!["e14.test", "e15.test"]),
        ("nobody.test", vec!["203.0.113.1"], vec![]),
    ] {
        store.resolve(name, addresses.iter().map(|address| address.parse().unwrap()).collect());
        let (after, _) = compiler.compile(store.resources(), &before, &settings);
        let changes = before.clusters.changes(&after.clusters);
        let changes = changes.filter(|(_, old, new)| !Arc::ptr_eq(old.unwrap(), new.unwrap()));
        let touched: std::collections::BTreeSet<_> =
            changes.map(|(_, _, new)| new.unwrap().service.host.clone()).collect();
        assert_eq!(touched.into_iter().collect::<Vec<_>>(), hosts, "{name} {addresses:?}");
        let served = |host: &&&str| {
            let name = crate::ClusterName::outbound(80, "", host);
            after.clusters[&name].endpoints().len() == addresses.len()
        };
        assert_eq!(hosts.iter().filter(served).count(), hosts.len(), "{name} {addresses:?}");
        assert!(after.hosts.is_same(&before.hosts) && after.lookups.is_same(&before.lookups));
        before = after;
    }
}
