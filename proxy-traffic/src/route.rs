//! Flow and snapshot → cluster.

use std::sync::Arc;

use proxy_common::pick;

use crate::{Cluster, Door, Error, Flow, Listener, Match, Route, Snapshot};

/// The route of `flow`; `None` when no listener claims its destination, or none of a mesh listener's rules
/// matches: such a connection goes to the address that the client dialled.
///
/// # Errors
/// [`Error::NoRoute`] for a gateway's connection that no rule matches: there is no address to pass it on to.
pub fn select<'a>(snapshot: &'a Snapshot, flow: &Flow<'_>) -> Result<Option<&'a Arc<Route>>, Error> {
    match flow.door {
        Door::Mesh => Ok(snapshot.listener(flow.destination).and_then(|listener| matching(listener, flow))),
        Door::Gateway(bind) => snapshot
            .gateways
            .get(&bind)
            .and_then(|listener| matching(listener, flow))
            .map(Some)
            .ok_or(Error::NoRoute(flow.destination)),
    }
}

/// One of the route's clusters, by weight. `draw` is uniform over all of u64.
#[must_use]
pub fn draw(route: &Route, draw: u64) -> &Arc<Cluster> {
    let weights = || route.destinations.iter().map(|destination| destination.weight);
    let point = pick::scale(draw, weights().sum());
    let index = pick::weighted(point, weights()).unwrap_or_default();
    &route.destinations[index].cluster
}

/// The rule that Istio's filter chains would pick (istio-semantics: a match without subnets ends the list; of
/// the matches with subnets before it, the longest prefix wins, then the order).
fn matching<'a>(listener: &'a Listener, flow: &Flow<'_>) -> Option<&'a Arc<Route>> {
    let mut best: Option<(u8, &Arc<Route>)> = None;
    for rule in &listener.rules {
        let any = rule.matches.is_empty().then_some(0);
        let matched = rule.matches.iter().filter(|one| admits(one, flow));
        for length in any.into_iter().chain(matched.filter_map(|one| longest_prefix(one, flow))) {
            if best.is_none_or(|(longest, _)| longest < length) {
                best = Some((length, &rule.route));
            }
        }
        if any.is_some() || rule.matches.iter().any(|one| is_terminal(one) && admits(one, flow)) {
            break;
        }
    }
    best.map(|(_, route)| route)
}

/// Whether a match ends the list for the flows it admits.
fn is_terminal(one: &Match) -> bool {
    one.destination_subnets.is_empty()
}

/// Whether everything but the destination fits.
fn admits(one: &Match, flow: &Flow<'_>) -> bool {
    let labels = &flow.workload.labels;
    one.source_namespace.as_ref().is_none_or(|namespace| *namespace == flow.workload.namespace)
        && one.source_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && one.source_subnet.is_none_or(|subnet| subnet.contains(&flow.source.ip()))
}

/// Length of the longest of the match's prefixes that holds the destination; 0 where it names none.
fn longest_prefix(one: &Match, flow: &Flow<'_>) -> Option<u8> {
    if is_terminal(one) {
        return Some(0);
    }
    let holds = one.destination_subnets.iter().filter(|subnet| subnet.contains(&flow.destination.ip()));
    holds.map(ipnet::IpNet::prefix_len).max()
}
