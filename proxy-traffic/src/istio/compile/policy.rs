//! DestinationRules: which one a host follows, what its subsets are, which blocks count.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Problems, Settings,
    blocks::{Blocks, Place},
    registry::{Entry, Registry},
};
use crate::istio::{
    Resources, names,
    resource::{DestinationRule, Item, Subset, selects},
};

/// Namespace whose DestinationRules hold for the whole mesh.
const ROOT_NAMESPACE: &str = "istio-system";

/// The policy of every host that has one.
pub(super) struct Policies<'a>(BTreeMap<String, Policy<'a>>);

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
type Named<'a> = (String, &'a Arc<Item<DestinationRule>>);

impl<'a> Policies<'a> {
    /// Finds each host's DestinationRules, and reports those without effect.
    pub(super) fn new(
        resources: &'a Resources,
        registry: &Registry<'a>,
        settings: &Settings,
        problems: &mut Problems,
    ) -> Self {
        let named = |item: &'a Arc<Item<DestinationRule>>| {
            (names::resolve(&item.spec.host, &item.key.namespace, &settings.cluster_domain), item)
        };
        let rules: Vec<Named<'a>> = resources.destination_rules.iter().map(named).collect();
        let mut policies = BTreeMap::new();
        for (host, entry) in registry.by_host() {
            let Some(policy) = policy(host, entry, &rules, problems) else { continue };
            policy.report_deserted(entry, problems);
            policies.insert(host.to_owned(), policy);
        }
        for (host, item) in rules {
            let known = registry.get(&host).is_some();
            if !known && !registry.by_host().any(|(known, _)| names::covers(&host, known)) {
                problems.warn(&**item, "host", unknown_host(&host, registry, settings));
            }
        }
        Self(policies)
    }

    /// The policy of the host of that full name.
    pub(super) fn get(&self, host: &str) -> Option<&Policy<'a>> {
        self.0.get(host)
    }
}

/// What to say of a host that no service has.
pub(super) fn unknown_host(host: &str, registry: &Registry<'_>, settings: &Settings) -> String {
    let literal =
        [format!("{host}.svc.{}", settings.cluster_domain), format!("{host}.{}", settings.cluster_domain)];
    let hint = literal.iter().find(|full| registry.get(full).is_some());
    let hint = hint.map(|full| format!("; a name with a dot is taken literally, write {full}"));
    format!("no Service or ServiceEntry has the host {host}{}", hint.unwrap_or_default())
}

/// The policy of one host: the service's namespace speaks first, then the root namespace, then any other; the
/// first that has a rule for the host wins whole, with its most specific host.
fn policy<'a>(
    host: &str,
    entry: &Entry<'_>,
    rules: &[Named<'a>],
    problems: &mut Problems,
) -> Option<Policy<'a>> {
    let covering: Vec<_> = rules.iter().filter(|(pattern, _)| names::covers(pattern, host)).collect();
    let home = entry.service.namespace.as_str();
    let within = |namespace: &str| covering.iter().any(|(_, item)| item.key.namespace == namespace);
    let elsewhere = covering.first().map(|(_, item)| item.key.namespace.as_str());
    let namespace = [home, ROOT_NAMESPACE].into_iter().find(|one| within(one)).or(elsewhere)?;
    let local = covering.iter().filter(|(_, item)| item.key.namespace == namespace);
    let best = local
        .clone()
        .map(|(pattern, _)| pattern)
        .max_by_key(|pattern| (!pattern.starts_with('*'), pattern.len()))?;
    let mut same = local.filter(|(pattern, _)| pattern == best).map(|(_, item)| &***item);
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
    fn report_deserted(&self, entry: &Entry<'_>, problems: &mut Problems) {
        let instances = || entry.ports.iter().flat_map(|port| &port.instances);
        let labels: BTreeSet<_> = instances().map(|instance| &*instance.workload.labels).collect();
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
