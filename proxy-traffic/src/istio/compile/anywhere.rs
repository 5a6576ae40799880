//! Ports that are taken at any address: who goes where is told by what the client says first.
//!
//! For hosts without an address of their own, whose clients may have one from elsewhere. The most specific name comes first, and
//! last whoever takes the whole port.

use std::sync::Arc;

use super::{
    Problems,
    cluster::Clusters,
    entry::{Entry, Port},
    mesh,
    protocol::Protocol,
    rules::Bindings,
    verdict::{Draft, Wishes},
};
use crate::{Destination, Listener, Match, Route, Rule, Sniff};

/// What stands for the host of such a port where hosts have listeners: no host has such a name.
pub(super) fn pseudonym(port: u16) -> String {
    format!("*:{port}")
}

/// The listener of `port` at any address, for `hosts`.
pub(super) fn draft<'h>(
    port: u16,
    hosts: impl Iterator<Item = &'h String>,
    bindings: &Bindings,
    clusters: &mut Clusters<'_>,
    problems: &mut Problems,
) -> Draft {
    let mut listener = Listener { name: pseudonym(port), ..Listener::default() };
    let mut wishes = Wishes::default();
    let registry = clusters.registry;
    let found = hosts.filter_map(|host| {
        let entry = registry.get(host)?;
        Some((host, entry, entry.anywhere().find(|one| one.number == port)?))
    });
    let (mut named, mut whole): (Vec<_>, Vec<_>) = found.partition(|(_, _, port)| port.has_names());
    // Longer is more specific, and a name is more specific than a wildcard of the same length.
    named.sort_by_key(|(host, ..)| (host.starts_with('*'), std::cmp::Reverse(host.len()), *host));
    whole.sort_by_key(|(host, entry, _)| (entry.source.order(), *host));
    for (host, entry, port) in named {
        let rule = by_name(host, entry, port, &mut listener.sniff, clusters);
        wishes.join(entry.wishes.clone());
        listener.rules.extend(exported(entry, vec![rule]));
    }
    for (place, (host, entry, port)) in whole.into_iter().enumerate() {
        if place == 0 {
            let what = format!(
                "{host} has no addresses, so it takes port {} of every address that nobody else claims; give addresses",
                port.number
            );
            problems.warn(&entry.source, "addresses", what);
        } else {
            let what = format!(
                "port {} of any address belongs to an older one already; give addresses",
                port.number
            );
            problems.warn(&entry.source, "addresses", what);
        }
        wishes.join(entry.wishes.clone());
        listener.rules.extend(mesh::rules(host, entry, port, bindings, clusters, problems, &mut wishes));
    }
    Draft { listener, wishes }
}

/// The rule for connections that ask for `host`.
fn by_name(host: &str, entry: &Entry, port: &Port, sniff: &mut Sniff, clusters: &mut Clusters<'_>) -> Rule {
    let mut one = Match::default();
    if port.protocol == Protocol::Http {
        sniff.http = true;
        one.authorities.push(host.to_owned());
    } else {
        sniff.tls = true;
        one.server_names.push(host.to_owned());
    }
    let (cluster, _) = clusters.get(host, port.number, "");
    let destinations = vec![Destination { weight: 1, cluster }];
    Rule { matches: vec![one], route: Arc::new(Route { name: entry.service.host.clone(), destinations }) }
}

/// `rules` for those alone who see the service (`exportTo`).
pub(super) fn exported(entry: &Entry, rules: Vec<Rule>) -> Vec<Rule> {
    let Some(namespaces) = &entry.exported else { return rules };
    let narrowed = rules.into_iter().map(|rule| {
        let matches = if rule.matches.is_empty() { vec![Match::default()] } else { rule.matches };
        let within = |one: Match| -> Vec<Match> {
            match &one.source_namespace {
                Some(namespace) if namespaces.contains(namespace) => vec![one],
                Some(_) => Vec::new(),
                None => {
                    let each = |namespace: &String| Match {
                        source_namespace: Some(namespace.clone()),
                        ..one.clone()
                    };
                    namespaces.iter().map(each).collect()
                }
            }
        };
        Rule { matches: matches.into_iter().flat_map(within).collect(), ..rule }
    });
    // A rule without conditions would hold for everybody.
    narrowed.filter(|rule| !rule.matches.is_empty()).collect()
}
