//! Every listener with what becomes of its connections: what `shunt routes` is answered. Pure.

use std::sync::Arc;

use ipnet::IpNet;
use proxy_traffic::{
    Listener, Snapshot, Workload,
    datapath::{self, Decision},
};

use crate::admin::{RouteRow, Routes};

/// The listeners of `snapshot`. Where it makes a difference who connects, there is a row for each of `classes`, which
/// differ in namespace or labels.
pub(super) fn of(snapshot: &Snapshot, classes: &[Arc<Workload>]) -> Routes {
    let mut rows = Vec::new();
    for (address, listener) in &snapshot.listeners {
        let of_address = verdicts(listener, address.ip().into(), classes);
        rows.extend(of_address.into_iter().map(|verdict| verdict.row(address.to_string(), listener)));
    }
    for range in &snapshot.subnets {
        for (subnet, verdict) in parts(&range.listener, range.subnet, classes) {
            rows.push(verdict.row(format!("{subnet}:{}", range.port), &range.listener));
        }
    }
    for (address, listener) in &snapshot.gateways {
        let verdict = Verdict { name: "listen", reason: None, workloads: None, first: true };
        rows.push(verdict.row(address.to_string(), listener));
    }
    Routes(rows)
}

/// One row's own part.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    name: &'static str,
    reason: Option<String>,
    workloads: Option<String>,
    /// Whether it is the listener's first.
    first: bool,
}

impl Verdict {
    fn new(listener: &Listener, destination: IpNet, workload: &Workload) -> Self {
        let (name, reason) = match datapath::decide(listener, destination, workload) {
            Decision::Pass => ("pass", None),
            Decision::Direct(_) => ("direct", None),
            Decision::Steer(reason) => ("steer", Some(reason.to_string())),
        };
        Self { name, reason, workloads: None, first: false }
    }

    fn row(self, address: String, listener: &Listener) -> RouteRow {
        let rules = listener.rules.iter().filter(|_| self.first).map(ToString::to_string).collect();
        let Self { name, reason, workloads, .. } = self;
        RouteRow {
            address,
            listener: listener.name.clone(),
            verdict: name.to_owned(),
            reason,
            workloads,
            rules,
        }
    }
}

/// What becomes of connections to `destination`: one verdict, or one for each class when they differ.
fn verdicts(listener: &Listener, destination: IpNet, classes: &[Arc<Workload>]) -> Vec<Verdict> {
    let nobody = Workload { name: String::new(), namespace: String::new(), labels: [].into() };
    let of = |workload: &Workload| Verdict::new(listener, destination, workload);
    let classes = if datapath::depends_on_workload(listener) { classes } else { &[] };
    let mut all: Vec<_> = classes.iter().map(|class| of(class)).collect();
    if all.is_empty() {
        all.push(of(&nobody));
    }
    if all.iter().all(|verdict| *verdict == all[0]) {
        all.truncate(1);
    } else {
        for (verdict, class) in all.iter_mut().zip(classes) {
            verdict.workloads = Some(name(class));
        }
    }
    all[0].first = true;
    all
}

/// The verdicts of a range, then those of its parts that differ from it.
fn parts(listener: &Listener, range: IpNet, classes: &[Arc<Workload>]) -> Vec<(IpNet, Verdict)> {
    let whole = verdicts(listener, range, classes);
    let prefixes = datapath::prefixes(listener, range).into_iter().filter(|prefix| *prefix != range);
    let others = prefixes.map(|prefix| (prefix, verdicts(listener, prefix, classes)));
    let others: Vec<_> = others.filter(|(_, verdicts)| *verdicts != whole).collect();
    let whole = whole.into_iter().map(|verdict| (range, verdict));
    let others = others.into_iter().flat_map(|(prefix, verdicts)| {
        verdicts.into_iter().map(move |verdict| (prefix, Verdict { first: false, ..verdict }))
    });
    whole.chain(others).collect()
}

/// `NAMESPACE KEY=VALUE …`.
fn name(class: &Workload) -> String {
    let labels = class.labels.iter().map(|(key, value)| format!(" {key}={value}"));
    std::iter::once(class.namespace.clone()).chain(labels).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proxy_traffic::{Cluster, Destination, Match, Route, Rule, SteerReason, SubnetListener};

    use super::*;

    fn workload(namespace: &str, label: Option<&str>) -> Arc<Workload> {
        let labels = label.map(|value| ("app".to_owned(), value.to_owned())).into_iter().collect();
        Arc::new(Workload { name: "any".to_owned(), namespace: namespace.to_owned(), labels })
    }

    fn rule(one: Match) -> Rule {
        let cluster = Arc::new(Cluster::passthrough(Duration::from_secs(1)));
        let route = Route { name: "a".to_owned(), destinations: vec![Destination { weight: 1, cluster }] };
        Rule { matches: vec![one], route: Arc::new(route) }
    }

    fn listener(matches: Vec<Match>, steer: Option<SteerReason>) -> Arc<Listener> {
        let rules = matches.into_iter().map(rule).collect();
        Arc::new(Listener { name: "a:80".to_owned(), rules, steer, ..Listener::default() })
    }

    fn from(namespace: &str) -> Match {
        Match { source_namespace: Some(namespace.to_owned()), ..Match::default() }
    }

    fn text(snapshot: &Snapshot, classes: &[Arc<Workload>]) -> String {
        of(snapshot, classes).to_string()
    }

    fn at(listener: Arc<Listener>) -> Snapshot {
        let listeners = BTreeMap::from([("10.0.0.5:80".parse().unwrap(), listener)]);
        Snapshot { listeners: listeners.into(), ..Snapshot::default() }
    }

    const RULE: &str = "    if any -> 100% PassthroughCluster\n";

    #[test]
    fn a_listener_says_its_verdict_and_why_it_is_steered() {
        let direct = at(listener(vec![Match::default()], None));
        assert_eq!(text(&direct, &[]), format!("10.0.0.5:80  direct  a:80\n{RULE}"));
        let steered = at(listener(vec![Match::default()], Some(SteerReason::Setting)));
        assert_eq!(text(&steered, &[]), format!("10.0.0.5:80  steer  a:80  (--datapath steer)\n{RULE}"));
        let gateways = direct.listeners.clone();
        let gateway = Snapshot { gateways, ..Snapshot::default() };
        assert_eq!(text(&gateway, &[]), format!("10.0.0.5:80  listen  a:80\n{RULE}"));
    }

    #[test]
    fn classes_have_a_row_each_only_where_they_differ() {
        let snapshot = at(listener(vec![from("shop")], None));
        let classes = [workload("default", None), workload("shop", Some("web"))];
        let rules = "    if source namespace shop -> 100% PassthroughCluster\n";
        let want = format!(
            "10.0.0.5:80  pass  a:80  for default\n{rules}10.0.0.5:80  direct  a:80  for shop app=web\n"
        );
        assert_eq!(text(&snapshot, &classes), want);
        let same = [workload("shop", None), workload("shop", Some("web"))];
        assert_eq!(text(&snapshot, &same), format!("10.0.0.5:80  direct  a:80\n{rules}"));
    }

    #[test]
    fn a_part_of_a_range_has_a_row_only_where_it_differs() {
        let part =
            |subnet: &str| Match { destination_subnets: vec![subnet.parse().unwrap()], ..Match::default() };
        let subnets = |matches| {
            let (subnet, listener) = ("10.0.0.0/8".parse().unwrap(), listener(matches, None));
            Snapshot { subnets: vec![SubnetListener { subnet, port: 80, listener }], ..Snapshot::default() }
        };
        let only = text(&subnets(vec![part("10.1.0.0/16")]), &[]);
        assert!(only.starts_with("10.0.0.0/8:80  pass  a:80\n"), "{only}");
        assert!(only.ends_with("\n10.1.0.0/16:80  direct  a:80\n"), "{only}");
        let all = text(&subnets(vec![part("10.1.0.0/16"), Match::default()]), &[]);
        assert_eq!(all.matches("direct").count(), 1, "{all}");
    }
}
