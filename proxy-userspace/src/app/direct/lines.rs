//! What the kernel tells of one connection → its line in the access log, the same that the proxy would have written.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use proxy_common::{
    Destination,
    direct::{Event, EventCause, EventKind},
};
use proxy_traffic::{
    Cluster, ClusterKind, ClusterName, Flag, Listener, Route, Snapshot, Workload, WorkloadName,
    datapath::{self, Decision},
};

use super::denied;
use crate::proxy::{self, Cause, Entry};

/// Who a connection belongs to when nobody says.
pub(super) static NOBODY: LazyLock<Arc<Workload>> = LazyLock::new(|| {
    let unknown = || WorkloadName::UNKNOWN.to_owned();
    Arc::new(Workload { name: unknown(), namespace: unknown(), labels: [].into() })
});

/// What an event means beside its numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parties<'a> {
    pub(super) workload: Option<&'a Arc<Workload>>,
    pub(super) cluster: Option<&'a Arc<Cluster>>,
    /// Its endpoint, where the cluster has any.
    pub(super) endpoint: Option<SocketAddr>,
}

/// The wall clock's time of moments that the kernel tells by its own.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    now: SystemTime,
    monotonic: Duration,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self { now: SystemTime::now(), monotonic: proxy::now() }
    }

    /// Neither before the machine's start nor in the future.
    fn at(&self, ns: u64) -> SystemTime {
        let ago = self.monotonic.saturating_sub(Duration::from_nanos(ns));
        self.now.checked_sub(ago).unwrap_or(self.now)
    }
}

/// The line of `event`. Rules are those of `snapshot`: of a route that is gone since, only the cluster is known.
pub(super) fn entry(event: &Event, parties: &Parties<'_>, snapshot: &Snapshot, clock: &Clock) -> Entry {
    let destination = address(event.original, event.original_port);
    let workload = parties.workload.unwrap_or(&NOBODY);
    let (flag, cause) = outcome(event);
    Entry {
        time: clock.at(event.at_ns),
        duration: Duration::from_nanos(event.duration_ns),
        workload: Arc::clone(workload),
        source: source(event, destination),
        destination,
        route: parties.cluster.and_then(|cluster| route(snapshot, destination, workload, cluster)),
        cluster: if event.kind == EventKind::Denied as u32 {
            Some(ClusterName::blackhole())
        } else {
            parties.cluster.map(|cluster| cluster.name.clone())
        },
        endpoint: match parties.cluster.map(|cluster| &cluster.kind) {
            Some(ClusterKind::OriginalDestination) if event.kind != EventKind::Refused as u32 => {
                Some(destination)
            }
            _ => parties.endpoint,
        },
        sent: event.sent,
        received: event.received,
        flag,
        cause,
        path: "direct",
        server_name: None,
    }
}

/// Flag and cause, as the proxy would have them.
fn outcome(event: &Event) -> (Flag, Cause) {
    const CLIENT_RESET: u32 = EventCause::ClientReset as u32;
    const SERVER_RESET: u32 = EventCause::ServerReset as u32;
    const SERVER_FIN: u32 = EventCause::ServerFin as u32;
    const REFUSED: u32 = EventCause::ConnectRefused as u32;
    const TIMEOUT: u32 = EventCause::ConnectTimeout as u32;
    const GONE: u32 = EventCause::ClientGone as u32;
    const OVERFLOW: u32 = EventCause::Overflow as u32;
    const NO_CLUSTER: u32 = EventCause::NoCluster as u32;
    const CLOSED: u32 = EventKind::Closed as u32;
    const TURNED_AWAY: u32 = EventKind::Refused as u32;
    const DENIED: u32 = EventKind::Denied as u32;
    match (event.kind, event.cause) {
        (DENIED, _) => (Flag::NoHealthyUpstream, denied::cause(event)),
        (CLOSED, SERVER_FIN) => (Flag::None, Cause::ServerFin),
        (CLOSED, CLIENT_RESET) => (Flag::None, Cause::ClientRst),
        (CLOSED, SERVER_RESET) => (Flag::None, Cause::ServerRst),
        (CLOSED, _) => (Flag::None, Cause::ClientFin),
        (TURNED_AWAY, OVERFLOW) => (Flag::Overflow, Cause::Overflow),
        (TURNED_AWAY, NO_CLUSTER) => (Flag::NoCluster, Cause::NoCluster),
        (TURNED_AWAY, _) => (Flag::NoHealthyUpstream, Cause::NoEndpoint),
        (_, REFUSED) => (Flag::UpstreamFailure, Cause::ConnectRefused),
        (_, TIMEOUT) => (Flag::UpstreamFailure, Cause::ConnectTimeout),
        (_, GONE) => (Flag::DownstreamClosed, Cause::ClientGone),
        _ => (Flag::UpstreamFailure, Cause::ConnectFailed),
    }
}

/// The client's address; one that it never had is written in the family of where it went.
fn source(event: &Event, destination: SocketAddr) -> SocketAddr {
    let source = address(event.source, event.source_port);
    let none: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    if source.ip().is_unspecified() { SocketAddr::new(none, source.port()) } else { source }
}

fn address(address: [u8; 16], port: [u8; 2]) -> SocketAddr {
    Destination { address, port }.into()
}

/// The route that led to `cluster`: the one that this workload's connections take now, else another of the listener.
fn route(
    snapshot: &Snapshot,
    destination: SocketAddr,
    workload: &Workload,
    cluster: &Cluster,
) -> Option<Arc<Route>> {
    let leads = |route: &Arc<Route>| route.destinations.iter().any(|arm| arm.cluster.name == cluster.name);
    let listener: &Listener = snapshot.listener(destination)?;
    if let Decision::Direct(route) = datapath::decide(listener, IpNet::from(destination.ip()), workload)
        && leads(route)
    {
        return Some(Arc::clone(route));
    }
    let mut routes = listener.rules.iter().map(|rule| &rule.route);
    routes.find(|route| leads(route)).cloned()
}

#[cfg(test)]
mod tests {
    use proxy_traffic::{Match, Rule, SubnetListener};

    use super::*;

    const DIALLED: &str = "10.0.0.5:80";

    fn event(kind: EventKind, cause: EventCause) -> Event {
        let original: Destination = DIALLED.parse::<SocketAddr>().unwrap().into();
        Event {
            kind: kind as u32,
            cause: cause as u32,
            original: original.address,
            original_port: original.port,
            ..Event::default()
        }
    }

    fn rule(name: &str, clusters: &[&Arc<Cluster>], namespace: Option<&str>) -> Rule {
        let destinations = clusters
            .iter()
            .map(|cluster| proxy_traffic::Destination { weight: 1, cluster: Arc::clone(cluster) });
        let one = Match { source_namespace: namespace.map(str::to_owned), ..Match::default() };
        let route = Route { name: name.to_owned(), destinations: destinations.collect() };
        Rule { matches: vec![one], route: Arc::new(route) }
    }

    #[test]
    fn every_outcome_has_the_flag_and_cause_that_the_proxy_gives_it() {
        use {EventCause as Why, EventKind as Kind};
        for (kind, cause, flag, word) in [
            (Kind::Closed, Why::ClientFin, "-", "client_fin"),
            (Kind::Closed, Why::ServerFin, "-", "server_fin"),
            (Kind::Closed, Why::ClientReset, "-", "client_rst"),
            (Kind::Closed, Why::ServerReset, "-", "server_rst"),
            (Kind::Closed, Why::Unknown, "-", "client_fin"),
            (Kind::Refused, Why::Overflow, "UO", "overflow"),
            (Kind::Refused, Why::NoEndpoint, "UH", "no_endpoint"),
            (Kind::Refused, Why::NoCluster, "NC", "no_cluster"),
            (Kind::Failed, Why::ConnectRefused, "UF,URX", "connect_refused"),
            (Kind::Failed, Why::ConnectTimeout, "UF,URX", "connect_timeout"),
            (Kind::Failed, Why::Unknown, "UF,URX", "connect_failed"),
            (Kind::Failed, Why::ClientGone, "DC", "client_gone"),
        ] {
            let (got, why) = outcome(&event(kind, cause));
            assert_eq!((got.as_str(), why.as_str()), (flag, word), "{kind:?} {cause:?}");
        }
    }

    #[test]
    fn the_time_is_that_of_the_event() {
        let clock = Clock {
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
            monotonic: Duration::from_secs(30),
        };
        for (ns, seconds) in [(30_000_000_000, 100), (10_000_000_000, 80), (31_000_000_000, 100)] {
            assert_eq!(clock.at(ns), SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), "{ns}");
        }
    }

    #[test]
    fn a_line_names_the_rule_that_leads_to_its_cluster() {
        let cluster = |port| {
            let name = ClusterName::outbound(port, "", "a");
            Arc::new(Cluster { name, ..Cluster::passthrough(Duration::from_secs(1)) })
        };
        let (one, two, gone) = (cluster(1), cluster(2), cluster(3));
        let rules = vec![rule("first", &[&one], Some("default")), rule("second", &[&one, &two], None)];
        let listener = Listener { name: String::new(), rules, ..Listener::default() };
        let range =
            SubnetListener { subnet: "10.0.0.0/8".parse().unwrap(), port: 80, listener: Arc::new(listener) };
        let snapshot = Snapshot { subnets: vec![range], ..Snapshot::default() };
        let workload =
            Workload { name: "web".to_owned(), namespace: "default".to_owned(), labels: [].into() };
        for (cluster, want) in [(&one, Some("first")), (&two, Some("second")), (&gone, None)] {
            let found = route(&snapshot, DIALLED.parse().unwrap(), &workload, cluster);
            assert_eq!(found.as_ref().map(|route| &*route.name), want, "{}", cluster.name);
        }
        let elsewhere = route(&snapshot, "10.0.0.5:81".parse().unwrap(), &workload, &one);
        assert!(elsewhere.is_none());
    }

    #[test]
    fn who_never_had_an_address_is_shown_in_the_family_of_the_destination() {
        let clock = Clock::now();
        let refused = event(EventKind::Refused, EventCause::Overflow);
        let entry = entry(&refused, &Parties::default(), &Snapshot::default(), &clock);
        assert_eq!(
            (entry.source, entry.destination),
            ("0.0.0.0:0".parse().unwrap(), DIALLED.parse().unwrap())
        );
        assert_eq!((&*entry.workload.name, entry.path), ("unknown", "direct"));
        assert!(entry.cluster.is_none() && entry.endpoint.is_none() && entry.route.is_none());
    }
}
