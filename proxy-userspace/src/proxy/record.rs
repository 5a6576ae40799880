//! The books of one connection: opened when it is accepted, closed when it is dropped, whatever happened between.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime},
};

use proxy_common::Destination;
use proxy_traffic::{Cluster, ClusterKind, Endpoint, Error, Flag, Route, balance::Picked};

use super::{Dial, acceptor::Entrance, access_log::Entry, forward::Ended};
use crate::metrics::Series;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Both sides ended their streams, the client first.
    ClientFin,
    /// Both sides ended their streams, the server first.
    ServerFin,
    /// The client's side was reset.
    ClientRst,
    /// The server's side was reset.
    ServerRst,
    /// The endpoint refused.
    ConnectRefused,
    /// The endpoint did not answer in time.
    ConnectTimeout,
    /// The endpoint could not be reached for another reason.
    ConnectFailed,
    /// The client was reset while its endpoint was being dialled.
    ClientGone,
    /// A gateway's listener had no rule for it.
    NoRoute,
    /// The route's host or subset does not exist.
    NoCluster,
    /// The cluster is empty.
    NoEndpoint,
    /// The daemon stopped before the connection did.
    Drain,
}

impl Cause {
    /// As the access log writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientFin => "client_fin",
            Self::ServerFin => "server_fin",
            Self::ClientRst => "client_rst",
            Self::ServerRst => "server_rst",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::ClientGone => "client_gone",
            Self::NoRoute => "no_route",
            Self::NoCluster => "no_cluster",
            Self::NoEndpoint => "no_endpoint",
            Self::Drain => "drain",
        }
    }
}

impl From<Ended> for Cause {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::ClientFirst => Self::ClientFin,
            Ended::ServerFirst => Self::ServerFin,
            Ended::ClientReset => Self::ClientRst,
            Ended::ServerReset => Self::ServerRst,
        }
    }
}

impl From<&Error> for Cause {
    fn from(error: &Error) -> Self {
        match error {
            Error::NoRoute(_) => Self::NoRoute,
            Error::NoCluster { .. } => Self::NoCluster,
            Error::NoHealthyUpstream(_) => Self::NoEndpoint,
            Error::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                Self::ConnectRefused
            }
            Error::Connect { .. } => Self::ConnectFailed,
            Error::ConnectTimeout { .. } => Self::ConnectTimeout,
            Error::DownstreamClosed { .. } => Self::ClientGone,
        }
    }
}

/// Who was picked.
#[derive(Clone, Copy)]
enum Place {
    Nobody,
    OriginalDestination,
    /// The place in the cluster's list.
    Endpoint(u32),
}

/// A moment as nanoseconds since the first one asked for: half as big as an `Instant`.
#[derive(Clone, Copy)]
struct Moment(u64);

impl Moment {
    fn now() -> Self {
        static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
        // Enough for 584 years.
        Self(FIRST.elapsed().as_nanos() as u64)
    }

    fn elapsed(self) -> Duration {
        Duration::from_nanos(Self::now().0 - self.0)
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

/// One connection's books. Kept small: an idle connection has one.
pub(super) struct Record {
    entrance: Rc<Entrance>,
    started: Moment,
    ends: Ends,
    route: Option<Arc<Route>>,
    cluster: Option<Arc<Cluster>>,
    series: Option<Arc<Series>>,
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
            sent: 0,
            received: 0,
            place: Place::Nobody,
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

    /// The rules chose `cluster`; without a `route` nobody claimed the destination.
    pub(super) fn routed(&mut self, route: Option<&Arc<Route>>, cluster: &Arc<Cluster>) {
        cluster.state.opened();
        self.route = route.cloned();
        self.cluster = Some(Arc::clone(cluster));
    }

    /// The cluster chose whom to dial.
    pub(super) fn picked(&mut self, picked: &Picked<'_>) {
        self.place = match (self.endpoints(), picked.endpoint) {
            (Some(all), Some(one)) => all
                .iter()
                .position(|each| std::ptr::eq(each, one))
                .and_then(|place| u32::try_from(place).ok())
                .map_or(Place::Nobody, Place::Endpoint),
            _ => Place::OriginalDestination,
        };
    }

    /// The endpoint answered: from here on bytes are counted as they move.
    pub(super) fn connected(&mut self) {
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
        tracing::debug!(source = %self.source(), destination = %self.destination(), %error, "connection not served");
    }

    fn endpoints(&self) -> Option<&[Endpoint]> {
        match &self.cluster.as_ref()?.kind {
            ClusterKind::Endpoints(all) => Some(all),
            ClusterKind::OriginalDestination | ClusterKind::Missing(_) => None,
        }
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        match self.place {
            Place::Endpoint(place) => self.endpoints()?.get(place as usize),
            Place::Nobody | Place::OriginalDestination => None,
        }
    }

    fn endpoint_address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Nobody => None,
            Place::OriginalDestination => Some(self.destination()),
            Place::Endpoint(_) => self.endpoint().map(|endpoint| endpoint.address),
        }
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
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.count_open().closed();
        if let Some(cluster) = &self.cluster {
            cluster.state.closed();
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
        assert!(size_of::<Record>() <= 112, "{} bytes", size_of::<Record>());
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
