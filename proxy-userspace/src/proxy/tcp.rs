//! The walk: one connection, start to finish. Each step's work is in the file of its name.

use std::{collections::HashSet, net::SocketAddr};

use proxy_common::pick;
use proxy_traffic::{Cluster, ClusterKind, Door, Error, Flow, LimitScope, Sniffed, balance, route};
use tokio::net::TcpStream;

use super::{
    farewell,
    forward::BothWays,
    named, names,
    record::Record,
    sniff,
    upstream::{self, Target},
};

/// Serves one accepted connection. However it ends, dropping its record closes the books, exactly once.
///
/// What a connection keeps is boxed in parts, so that its task fits 256 bytes: tasks are aligned to 128, and the
/// allocator rounds what is aligned up to a power of two.
#[allow(
    clippy::manual_async_fn,
    reason = "an async fn would keep its arguments twice in every idle connection"
)]
pub(super) fn serve(mut downstream: TcpStream, mut record: Box<Record>) -> impl Future<Output = ()> {
    async move {
        if let Some(server) = names::server(&record) {
            return Box::pin(names::serve(server, downstream, record)).await;
        }
        // Boxed, so that what connecting needs is freed before the long part begins.
        let reached = Box::pin(reach(&mut downstream, &mut record)).await;
        let Ok(upstream) = reached.map_err(|error| record.failed(&error)) else {
            return Box::pin(farewell::say(&downstream, &mut record)).await;
        };
        record.connected();
        let ended = Box::pin(BothWays::new(&downstream, &upstream, &mut record)).await;
        record.ended(ended);
    }
}

/// sniff → flow → route → pick → connect; what follows is forwarding.
async fn reach(downstream: &mut TcpStream, record: &mut Record) -> Result<TcpStream, Error> {
    let sniffed = sniff::listen(downstream, record).await?;
    record.heard(&sniffed);
    let mut target = choose(record, &sniffed)?;
    if let Some(port) = target.named {
        target.endpoint = named::find(&target, port, &sniffed, record, downstream).await?;
        record.found(target.endpoint);
    }
    if record.is_ourselves(target.endpoint) {
        // Dialling it would come back here, for ever.
        return Err(Error::NoRoute(target.endpoint));
    }
    upstream::connect(&target, record.dial(), downstream).await
}

/// Who serves this connection by the rules in force now, and how to dial them.
fn choose(record: &mut Record, sniffed: &Sniffed) -> Result<Target, Error> {
    let entrance = record.entrance();
    let (context, owner) = (&entrance.context, &entrance.owner);
    let flow = record.flow(&entrance, sniffed);
    let snapshot = context.snapshot.load();
    let route = route::select(&snapshot, &flow)?;
    if route.is_none() && flow.destination == owner.address {
        return Err(Error::NoRoute(flow.destination));
    }
    if route.is_none() && owner.door == Door::Mesh && !snapshot.egress.of(&owner.workload).allows_any() {
        record.routed(None, &context.blackhole);
        return Err(Error::Blocked(flow.destination));
    }
    let cluster = route.map_or(&context.passthrough, |route| route::draw(route, fastrand::u64(..)));
    record.routed(route, cluster);
    let endpoint = admit(record, cluster, &flow)?;
    let named = if let ClusterKind::Named(port) = cluster.kind { Some(port) } else { None };
    Ok(Target { endpoint, named, timeout: cluster.connect_timeout, keepalive: cluster.keepalive })
}

/// pick, within the cluster's limit: first the limit, as Envoy does, unless it is each endpoint's own.
fn admit(record: &mut Record, cluster: &Cluster, flow: &Flow<'_>) -> Result<SocketAddr, Error> {
    if cluster.limit.is_some_and(|limit| limit.scope == LimitScope::Endpoint) {
        return admit_each(record, cluster, flow);
    }
    record.admit(cluster, None)?;
    let picked = balance::pick(cluster, flow, &HashSet::new(), || fastrand::u32(..))?;
    record.picked(cluster, &picked);
    Ok(picked.address)
}

/// The same where each endpoint has its own limit: who is full is passed over, until it is all who were found.
fn admit_each(record: &mut Record, cluster: &Cluster, flow: &Flow<'_>) -> Result<SocketAddr, Error> {
    let (mut full, mut overflow) = (HashSet::new(), None);
    for _ in 0..=pick::SCAN {
        let picked = match balance::pick(cluster, flow, &full, || fastrand::u32(..)) {
            Ok(picked) => picked,
            Err(error) => return Err(overflow.unwrap_or(error)),
        };
        match record.admit(cluster, picked.place.map(|_| picked.address)) {
            Ok(()) => {
                record.picked(cluster, &picked);
                return Ok(picked.address);
            }
            Err(error) => overflow = Some(error),
        }
        full.insert(picked.address);
    }
    Err(overflow.unwrap_or_else(|| Error::NoHealthyUpstream(cluster.name.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_stays_small() {
        let size = future_size(serve);
        assert!(size <= 152, "{size} bytes");
    }

    /// The size of the future that `serve` would return; none is made.
    fn future_size<F>(_serve: impl Fn(TcpStream, Box<Record>) -> F) -> usize {
        size_of::<F>()
    }
}
