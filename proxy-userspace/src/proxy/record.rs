//! The books of one connection: opened when it is accepted, closed when it is dropped, whatever happened between.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use proxy_common::Destination;
use proxy_traffic::{
    Cluster, Door, Endpoint, Error, Flag, Flow, Permit, Route, Sniffed,
    balance::{self, Picked},
    outlier::Outcome,
};

use super::{Cause, Dial, acceptor::Entrance, access_log::Entry, clock, forward::Ended};
use crate::metrics::Series;

/// Who was picked: a place in the cluster's list, or one of the two below. Half as big as an enum.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u32);

impl Place {
    const NOBODY: Self = Self(u32::MAX);
    const ORIGINAL_DESTINATION: Self = Self(u32::MAX - 1);

    /// The place in the cluster's list.
    fn of_endpoint(self) -> Option<u32> {
        (self.0 < Self::ORIGINAL_DESTINATION.0).then_some(self.0)
    }
}

/// A moment as nanoseconds: half as big as an `Instant`.
#[derive(Clone, Copy)]
struct Moment(u64);

impl Moment {
    fn now() -> Self {
        // Enough for 584 years.
        Self(clock::now().as_nanos() as u64)
    }

    fn elapsed(self) -> Duration {
        Duration::from_nanos(Self::now().0.saturating_sub(self.0))
    }
}

/// A client's address and the one it dialled, in less space than two `SocketAddr`s need.
struct Ends {
    source: Destination,
    destination: Destination,
    /// The link they are on, if they are link-local.
    scope: u32,
}

impl Ends {
    fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        let scope = if let SocketAddr::V6(v6) = destination { v6.scope_id() } else { 0 };
        Self { source: source.into(), destination: destination.into(), scope }
    }

    fn unpack(&self, end: Destination) -> SocketAddr {
        let mut address = end.into();
        if let SocketAddr::V6(v6) = &mut address
            && v6.ip().is_unicast_link_local()
        {
            v6.set_scope_id(self.scope);
        }
        address
    }
}

/// What only connections have that were listened to.
#[derive(Default)]
struct Heard {
    /// The name that the client said.
    name: Option<Box<str>>,
    is_http: bool,
    /// The address that the name was found to have.
    endpoint: Option<SocketAddr>,
}

/// One connection's books. Kept small: an idle connection has one.
pub(super) struct Record {
    entrance: Rc<Entrance>,
    started: Moment,
    ends: Ends,
    route: Option<Arc<Route>>,
    cluster: Option<Arc<Cluster>>,
    series: Option<Arc<Series>>,
    /// Its place within the cluster's limit, if there is one.
    permit: Option<Permit>,
    heard: Option<Box<Heard>>,
    sent: u64,
    received: u64,
    place: Place,
    flag: Flag,
    cause: Cause,
}

impl Record {
    /// An accepted connection.
    pub(super) fn open(entrance: Rc<Entrance>, source: SocketAddr, destination: SocketAddr) -> Self {
        entrance.live.opened();
        entrance.context.metrics.connection_opened();
        Self {
            entrance,
            started: Moment::now(),
            ends: Ends::new(source, destination),
            route: None,
            cluster: None,
            series: None,
            permit: None,
            heard: None,
            sent: 0,
            received: 0,
            place: Place::NOBODY,
            flag: Flag::None,
            // What remains true when nobody lives to say otherwise: the worker was stopped.
            cause: Cause::Drain,
        }
    }

    pub(super) fn entrance(&self) -> Rc<Entrance> {
        Rc::clone(&self.entrance)
    }

    pub(super) fn dial(&self) -> &dyn Dial {
        &*self.entrance.owner.dial
    }

    pub(super) fn source(&self) -> SocketAddr {
        self.ends.unpack(self.ends.source)
    }

    pub(super) fn destination(&self) -> SocketAddr {
        self.ends.unpack(self.ends.destination)
    }

    /// The connection as rules see it.
    pub(super) fn flow<'a>(&self, entrance: &'a Entrance, sniffed: &'a Sniffed) -> Flow<'a> {
        let Entrance { owner, .. } = entrance;
        let (source, destination) = (self.source(), self.destination());
        Flow { door: owner.door, workload: &owner.workload, source, destination, sniffed }
    }

    /// Whether `address` is the daemon's own listener: the one that took this connection. A gateway's may be on every address,
    /// of which the client has dialled one.
    pub(super) fn is_ourselves(&self, address: SocketAddr) -> bool {
        let owner = &self.entrance.owner;
        address == owner.address || (owner.door != Door::Mesh && address == self.destination())
    }

    /// What the client said first.
    pub(super) fn heard(&mut self, sniffed: &Sniffed) {
        if *sniffed != Sniffed::Nothing {
            let (name, is_http) = (sniffed.name().map(Box::from), matches!(sniffed, Sniffed::Http(_)));
            self.heard = Some(Box::new(Heard { name, is_http, endpoint: None }));
        }
    }

    /// The name that the client said leads here.
    pub(super) fn found(&mut self, endpoint: SocketAddr) {
        self.heard.get_or_insert_default().endpoint = Some(endpoint);
    }

    /// The rules chose `cluster`; without a `route` nobody claimed the destination.
    pub(super) fn routed(&mut self, route: Option<&Arc<Route>>, cluster: &Arc<Cluster>) {
        cluster.state.opened();
        self.route = route.cloned();
        self.cluster = Some(Arc::clone(cluster));
    }

    /// Takes a place within the cluster's limit, for the endpoint at `address` where the limit is each endpoint's.
    pub(super) fn admit(&mut self, cluster: &Cluster, address: Option<SocketAddr>) -> Result<(), Error> {
        let Some(limit) = &cluster.limit else { return Ok(()) };
        let permit = cluster.state.permit(&self.entrance.owner.workload, address, limit);
        let (cluster, max_connections) = (&cluster.name, limit.max_connections);
        let full = || Error::Overflow { cluster: cluster.clone(), max_connections };
        self.permit = Some(permit.ok_or_else(full)?);
        Ok(())
    }

    /// The cluster chose whom to dial.
    pub(super) fn picked(&mut self, cluster: &Cluster, picked: &Picked) {
        self.place = picked.place.map_or(Place::ORIGINAL_DESTINATION, Place);
        if let Some(place) = picked.place {
            balance::opened(cluster, place);
        }
    }

    /// The endpoint answered: from here on bytes are counted as they move.
    pub(super) fn connected(&mut self) {
        self.report(Outcome::Connected);
        self.count_open();
    }

    /// So many bytes came from the client and went to it.
    pub(super) fn moved(&mut self, received: u64, sent: u64) {
        self.received += received;
        self.sent += sent;
        if let Some(series) = &self.series {
            series.moved(received, sent);
        }
    }

    pub(super) fn ended(&mut self, ended: Ended) {
        self.cause = ended.into();
    }

    pub(super) fn failed(&mut self, error: &Error) {
        self.flag = error.flag();
        self.cause = error.into();
        if self.cause == Cause::EgressDenied {
            let Entrance { context, owner, .. } = &*self.entrance;
            context.metrics.egress_blocked(&owner.workload, Some(self.destination()), "tcp", "close");
        }
        if error.is_endpoints() {
            self.report(Outcome::Failed { run: None });
        }
        tracing::debug!(source = %self.source(), destination = %self.destination(), %error, "connection not served");
    }

    /// The daemon itself was asked for names.
    pub(super) fn served_names(&mut self) {
        self.cause = Cause::Names;
    }

    /// Why the connection ends, and whether its client speaks HTTP.
    pub(super) fn end(&self) -> (Cause, bool) {
        (self.cause, self.heard.as_ref().is_some_and(|heard| heard.is_http))
    }

    /// The daemon itself said so many bytes to the client, after it took so many.
    pub(super) fn answered(&mut self, received: u64, sent: u64) {
        self.count_open();
        self.moved(received, sent);
    }

    /// Tells outlier detection.
    fn report(&self, outcome: Outcome) {
        if let (Some(cluster), Some(endpoint)) = (&self.cluster, self.endpoint())
            && cluster.outlier.is_some()
            && cluster.state.report(cluster, endpoint.address, outcome, clock::now())
        {
            tracing::info!(cluster = %cluster.name, endpoint = %endpoint.address, "endpoint ejected");
        }
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        self.cluster.as_ref()?.endpoints().get(self.place.of_endpoint()? as usize)
    }

    fn endpoint_address(&self) -> Option<SocketAddr> {
        if self.place == Place::ORIGINAL_DESTINATION {
            let found = self.heard.as_ref().and_then(|heard| heard.endpoint);
            return found.or_else(|| Some(self.destination()));
        }
        self.endpoint().map(|endpoint| endpoint.address)
    }

    /// Finds the connection's series, once, when its outcome is known.
    fn count_open(&mut self) -> &Series {
        let Entrance { context, owner, .. } = &*self.entrance;
        let found = self.series.take().unwrap_or_else(|| {
            let workload = self.endpoint().map(|endpoint| &endpoint.workload);
            let series =
                context.metrics.series(&owner.workload, self.cluster.as_deref(), workload, self.flag);
            series.opened();
            series
        });
        self.series.insert(found)
    }

    fn entry(&self) -> Entry {
        Entry {
            time: SystemTime::now(),
            duration: self.started.elapsed(),
            workload: Arc::clone(&self.entrance.owner.workload),
            source: self.source(),
            destination: self.destination(),
            route: self.route.clone(),
            cluster: self.cluster.as_ref().map(|cluster| cluster.name.clone()),
            endpoint: self.endpoint_address(),
            sent: self.sent,
            received: self.received,
            flag: self.flag,
            cause: self.cause,
            path: "proxy",
            server_name: self.heard.as_ref().and_then(|heard| heard.name.clone()),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // First of all: whoever sees that this connection has ended may take its place.
        self.permit = None;
        self.count_open().closed();
        if let Some(cluster) = &self.cluster {
            cluster.state.closed();
            if let Some(place) = self.place.of_endpoint() {
                balance::closed(cluster, place);
            }
        }
        let context = &self.entrance.context;
        context.access_log.write(|| self.entry());
        context.metrics.connection_closed();
        self.entrance.live.closed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_stays_small() {
        assert!(size_of::<Record>() <= 120, "{} bytes", size_of::<Record>());
    }

    #[test]
    fn both_ends_come_back_as_they_went_in() {
        let mut link_local = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 7);
        for (source, destination) in [
            ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap()),
            ("[fd00::1]:1".parse().unwrap(), "[fd00::2]:2".parse().unwrap()),
            (SocketAddr::from(link_local), {
                link_local.set_port(81);
                SocketAddr::from(link_local)
            }),
        ] {
            let ends = Ends::new(source, destination);
            assert_eq!(ends.unpack(ends.source), source);
            assert_eq!(ends.unpack(ends.destination), destination);
        }
    }
}
