//! DestinationRules: which one a host follows, what its subsets are, which blocks count.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Problems, Settings,
    blocks::{self, Blocks, Place},
    entry::Entry,
    registry::Registry,
};
use crate::istio::{
    names,
    order::Edit,
    resource::{DestinationRule, Item, Subset, selects},
};

/// Namespace whose DestinationRules hold for the whole mesh.
const ROOT_NAMESPACE: &str = "istio-system";

/// Every DestinationRule, by the full name of its host.
#[derive(Default)]
pub(super) struct Rules {
    /// Of one host each, in config order.
    exact: BTreeMap<String, Vec<Arc<Item<DestinationRule>>>>,
    wildcards: BTreeMap<String, Vec<Arc<Item<DestinationRule>>>>,
}

/// The policy of every host that has one.
#[derive(Clone, Copy)]
pub(super) struct Policies<'a> {
    rules: &'a Rules,
    registry: &'a Registry,
}

/// What a host's DestinationRules say together.
pub(super) struct Policy<'a> {
    /// The first: its policy counts.
    rule: &'a Item<DestinationRule>,
    /// Of all of them, by name.
    subsets: BTreeMap<&'a str, Member<'a>>,
}

/// A subset, with its rule and its place there.
pub(super) type Member<'a> = (&'a Item<DestinationRule>, usize, &'a Subset);

/// A DestinationRule with the full name of its host.
type Named<'a> = (&'a str, &'a Item<DestinationRule>);

impl Rules {
    /// Takes in changed DestinationRules; their hosts, which may be wildcards, go to `changed`.
    pub(super) fn edit(
        &mut self,
        edits: Vec<Edit<DestinationRule>>,
        domain: &str,
        changed: &mut BTreeSet<String>,
    ) {
        if edits.is_empty() {
            return;
        }
        for (before, after) in edits {
            if let Some(item) = before {
                let host = names::resolve(&item.spec.host, &item.key.namespace, domain);
                let list = self.list(&host);
                list.retain(|other| !Arc::ptr_eq(other, &item));
                changed.insert(host);
            }
            if let Some(item) = after {
                let host = names::resolve(&item.spec.host, &item.key.namespace, domain);
                let list = self.list(&host);
                let place = list.partition_point(|other| other.order() < item.order());
                list.insert(place, item);
                changed.insert(host);
            }
        }
        self.exact.retain(|_, list| !list.is_empty());
        self.wildcards.retain(|_, list| !list.is_empty());
    }

    fn list(&mut self, host: &str) -> &mut Vec<Arc<Item<DestinationRule>>> {
        let lists = if host.starts_with('*') { &mut self.wildcards } else { &mut self.exact };
        lists.entry(host.to_owned()).or_default()
    }

    /// Those whose host is `host` or covers it, in config order.
    fn covering<'a>(&'a self, host: &str) -> Vec<Named<'a>> {
        let wide = self.wildcards.iter().filter(|(pattern, _)| names::covers(pattern, host));
        let lists = self.exact.get_key_value(host).into_iter().chain(wide);
        let named = lists.flat_map(|(pattern, list)| list.iter().map(|item| (pattern.as_str(), &**item)));
        let mut named: Vec<_> = named.collect();
        named.sort_by_key(|(_, item)| item.order());
        named
    }

    /// Reports those that no service has use for.
    pub(super) fn report_idle(&self, registry: &Registry, settings: &Settings, problems: &mut Problems) {
        let exact = self.exact.iter().filter(|(host, _)| registry.get(host).is_none());
        let covers = |pattern: &str| registry.by_host().any(|(known, _)| names::covers(pattern, known));
        let wide = self.wildcards.iter().filter(|(pattern, _)| !covers(pattern));
        for (host, items) in exact.chain(wide) {
            let what = unknown_host(host, registry, settings);
            items.iter().for_each(|item| problems.warn(&**item, "host", what.clone()));
        }
    }
}

impl<'a> Policies<'a> {
    pub(super) fn new(rules: &'a Rules, registry: &'a Registry) -> Self {
        Self { rules, registry }
    }

    /// The policy of the host of that full name.
    pub(super) fn get(&self, host: &str) -> Option<Policy<'a>> {
        // Its problems are told when it is reported on, not each time that somebody asks.
        policy(host, self.registry.get(host)?, &self.rules.covering(host), &mut Problems::default())
    }

    /// Reports what is without effect in the DestinationRules of a host.
    pub(super) fn report(&self, host: &str, problems: &mut Problems) {
        let Some(entry) = self.registry.get(host) else { return };
        if let Some(policy) = policy(host, entry, &self.rules.covering(host), problems) {
            policy.report_deserted(entry, problems);
            policy.report_ports(entry, problems);
        }
    }
}

/// The other names that somebody may have meant by `host`.
pub(super) fn literal(host: &str, settings: &Settings) -> [String; 2] {
    [format!("{host}.svc.{}", settings.cluster_domain), format!("{host}.{}", settings.cluster_domain)]
}

/// What to say of a host that no service has.
pub(super) fn unknown_host(host: &str, registry: &Registry, settings: &Settings) -> String {
    let literal = literal(host, settings);
    let hint = literal.iter().find(|full| registry.get(full).is_some());
    let hint = hint.map(|full| format!("; a name with a dot is taken literally, write {full}"));
    format!("no Service or ServiceEntry has the host {host}{}", hint.unwrap_or_default())
}

/// The policy of one host: the service's namespace speaks first, then the root namespace, then any other; the
/// first that has a rule for the host wins whole, with its most specific host.
fn policy<'a>(
    host: &str,
    entry: &Entry,
    covering: &[Named<'a>],
    problems: &mut Problems,
) -> Option<Policy<'a>> {
    let home = entry.service.namespace.as_str();
    let within = |namespace: &str| covering.iter().any(|(_, item)| item.key.namespace == namespace);
    let elsewhere = covering.first().map(|(_, item)| item.key.namespace.as_str());
    let namespace = [home, ROOT_NAMESPACE].into_iter().find(|one| within(one)).or(elsewhere)?;
    let local = covering.iter().filter(|(_, item)| item.key.namespace == namespace);
    let best = local
        .clone()
        .map(|(pattern, _)| pattern)
        .max_by_key(|pattern| (!pattern.starts_with('*'), pattern.len()))?;
    let mut same = local.filter(|(pattern, _)| pattern == best).map(|(_, item)| *item);
    let rule = same.next()?;
    if namespace != home && namespace != ROOT_NAMESPACE {
        let what = format!(
            "{host} lives in namespace {home}; this rule holds for clients of every namespace there is"
        );
        problems.warn(rule, "host", what);
    }
    let mut policy = Policy { rule, subsets: BTreeMap::new() };
    policy.add_subsets(rule, problems);
    for later in same {
        if later.spec.traffic_policy.is_some() {
            let what = format!("has no effect: that of {} counts for {host}", rule.path());
            problems.warn(later, "trafficPolicy", what);
        }
        policy.add_subsets(later, problems);
    }
    Some(policy)
}

impl<'a> Policy<'a> {
    fn add_subsets(&mut self, rule: &'a Item<DestinationRule>, problems: &mut Problems) {
        for (index, subset) in rule.spec.subsets.iter().enumerate() {
            if let Some((owner, ..)) = self.subsets.get(subset.name.as_str()) {
                let what = format!("has no effect: {} has a subset {} already", owner.path(), subset.name);
                problems.warn(rule, format!("subsets[{index}]"), what);
            } else {
                self.subsets.insert(&subset.name, (rule, index, subset));
            }
        }
    }

    /// `namespace/name` of the rule that counts.
    pub(super) fn rule(&self) -> String {
        self.rule.path()
    }

    /// The subset of that name.
    pub(super) fn subset(&self, name: &str) -> Option<Member<'a>> {
        self.subsets.get(name).copied()
    }

    /// Subsets that nobody is in: connections sent there are closed.
    fn report_deserted(&self, entry: &Entry, problems: &mut Problems) {
        let instances = || entry.ports.iter().flat_map(|port| &port.instances);
        let labels: BTreeSet<_> = instances().map(|instance| instance.workload.labels()).collect();
        for (rule, index, subset) in self.subsets.values() {
            let host = names::covers(&rule.spec.host, &entry.service.host) && rule.spec.host.starts_with('*');
            if !host && !labels.iter().any(|labels| selects(&subset.labels, labels)) {
                let what = format!(
                    "nobody serves {} with these labels: connections to {} are closed (UH)",
                    entry.service.host, subset.name
                );
                problems.warn(*rule, format!("subsets[{index}].labels"), what);
            }
        }
    }

    /// Settings for ports that the service does not have.
    fn report_ports(&self, entry: &Entry, problems: &mut Problems) {
        let rule = self.rule;
        if rule.spec.host.starts_with('*') {
            return;
        }
        let top = blocks::ports(rule.spec.traffic_policy.as_ref(), Place::new(rule, None));
        let of_subsets = self.subsets.values().flat_map(|(rule, index, subset)| {
            blocks::ports(subset.traffic_policy.as_ref(), Place::new(rule, Some(*index)))
        });
        for (place, port) in top.chain(of_subsets).filter(|(_, port)| entry.port(*port).is_none()) {
            let what = format!("{} has no TCP port {port}", entry.service.host);
            problems.warn(place.rule, place.field("port.number"), what);
        }
    }

    /// The blocks that count for `port` of `subset`.
    pub(super) fn blocks(&self, subset: Option<Member<'a>>, port: u16) -> Blocks<'a> {
        let top = self.rule.spec.traffic_policy.as_ref();
        let blocks = Blocks::default().narrowed(top, Place::new(self.rule, None), port);
        match subset {
            Some((rule, index, subset)) => {
                blocks.narrowed(subset.traffic_policy.as_ref(), Place::new(rule, Some(index)), port)
            }
            None => blocks,
        }
    }
}
