//! What says the same as before is the same in memory.

use std::sync::Arc;

use super::*;
use crate::{Cluster, Listener};

const OTHER: &str = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: other}, spec: {hosts: [o.x], \
                     addresses: [10.9.0.0/16, 10.0.0.9], resolution: STATIC, ports: [{number: 80, name: tcp}], \
                     endpoints: [{address: 10.1.0.9}]}}\n";
const EDGE: &str = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: edge}, spec: {\
     servers: [{port: {number: 31400, name: tcp, protocol: TCP}, hosts: ['*']}]}}\n---\n\
     {apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: edge}, spec: {hosts: ['*'], \
     gateways: [edge], tcp: [{route: [{destination: {host: o.x}}]}]}}\n";

/// A VirtualService that shares `db` out.
fn shared(v1: u32, v2: u32) -> String {
    virtual_service(&format!(
        "[{{route: [{{destination: {{host: db, subset: v1}}, weight: {v1}}}, \
         {{destination: {{host: db, subset: v2}}, weight: {v2}}}]}}]"
    ))
}

/// Names of listeners and clusters of `new` that are not those of `old`, in memory.
fn changed(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let listeners = |snapshot: &Snapshot| -> Vec<Arc<Listener>> {
        let exact = snapshot.listeners.values().chain(snapshot.gateways.values()).cloned();
        exact.chain(snapshot.subnets.iter().map(|range| range.listener.clone())).collect()
    };
    let (before, now) = (listeners(old), listeners(new));
    let fresh = now.iter().filter(|one| !before.iter().any(|other| Arc::ptr_eq(one, other)));
    let mut names: Vec<_> = fresh.map(|one| one.name.clone()).collect();
    let is_new = |one: &&Arc<Cluster>| !old.clusters.get(&one.name).is_some_and(|old| Arc::ptr_eq(one, old));
    names.extend(new.clusters.values().filter(is_new).map(|one| one.name.to_string()));
    names.iter().map(|name| name.replace(".default.svc.cluster.local", "")).collect()
}

#[test]
fn what_did_not_change_is_the_same_in_memory() {
    let first = [DB.to_owned(), OTHER.to_owned(), EDGE.to_owned(), shared(80, 20)];
    let third = "---\n{apiVersion: v1, kind: Pod, metadata: {name: db-3, labels: {app: db, version: v2}}, status: {podIP: 10.1.0.3}}";
    for (index, text, want) in [
        (0, DB.to_owned(), vec![]),
        (3, shared(70, 30), vec!["db:5432"]),
        (3, shared(80, 20) + "---\n" + third, vec!["db:5432", "outbound|5432|v2|db"]),
        (
            1,
            OTHER.replace("10.1.0.9", "10.1.0.8"),
            vec!["o.x:80", "gateway default/edge:31400", "o.x:80", "outbound|80||o.x"],
        ),
        (1, OTHER.replace("10.0.0.9", "10.0.0.8"), vec![]),
        (
            1,
            OTHER.replace("name: other", "name: other, annotations: {shunt.dev/datapath: steer}"),
            vec!["o.x:80", "o.x:80"],
        ),
    ] {
        let mut store = Store::new();
        first.iter().enumerate().for_each(|(file, text)| drop(store.replace(&file.to_string(), text)));
        let settings = Settings::default();
        let (old, _) = compile(store.resources(), &Snapshot::default(), &settings);
        store.replace(&index.to_string(), &text);
        let (new, _) = compile(store.resources(), &old, &settings);
        assert_eq!(changed(&old, &new), want, "{text}");
        let reached = new.listeners.values().flat_map(|one| crate::datapath::reached(one));
        reached.for_each(|cluster| assert!(Arc::ptr_eq(cluster, &new.clusters[&cluster.name]), "{cluster}"));
        let kept = |(name, old): (&_, &Arc<Cluster>)| {
            new.clusters.get(name).is_none_or(|new| Arc::ptr_eq(&old.state, &new.state))
        };
        assert!(old.clusters.iter().all(kept), "{text}");
    }
}
