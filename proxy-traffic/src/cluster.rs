//! Who serves: clusters and their endpoints, with every default of Istio's filled in.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

pub use proxy_common::direct::{Balancing, LimitScope};

use crate::{ClusterState, balance::Table};

/// Istio's name of a cluster: `outbound|PORT|SUBSET|FQDN`, `PassthroughCluster`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(Arc<str>);

impl ClusterName {
    /// `outbound|port|subset|host`; an empty `subset` means the whole service.
    #[must_use]
    pub fn outbound(port: u16, subset: &str, host: &str) -> Self {
        Self(format!("outbound|{port}|{subset}|{host}").into())
    }

    /// The cluster of what may not leave.
    #[must_use]
    pub fn blackhole() -> Self {
        Self("BlackHoleCluster".into())
    }

    /// The cluster of destinations that no listener claims.
    #[must_use]
    pub fn passthrough() -> Self {
        Self("PassthroughCluster".into())
    }

    /// The name as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The service that a cluster belongs to, as Istio's metrics label it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// Full name: `tcp-echo.default.svc.cluster.local`; `PassthroughCluster` for unclaimed traffic.
    pub host: String,
    /// Short name: `tcp-echo`.
    pub name: String,
    /// Namespace; `unknown` for unclaimed traffic.
    pub namespace: String,
}

/// Endpoints that serve one service port, or one subset of it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Istio's name of it.
    pub name: ClusterName,
    /// Its service.
    pub service: Service,
    /// How endpoints are found.
    pub kind: ClusterKind,
    /// The port to dial instead of the one that the client dialled, where only the client knows the address (`targetPort` with
    /// resolution NONE).
    pub port: Option<u16>,
    /// `connectionPool.tcp.connectTimeout`, 10 s when nobody said otherwise.
    pub connect_timeout: Duration,
    /// `loadBalancer`: how an endpoint is chosen.
    pub balancing: Balancing,
    /// `connectionPool.tcp.maxConnections`.
    pub limit: Option<Limit>,
    /// `connectionPool.tcp.tcpKeepalive`; `None`: what the socket has.
    pub keepalive: Option<Keepalive>,
    /// `outlierDetection`.
    pub outlier: Option<OutlierDetection>,
    /// The running side; a recompiled cluster of the same name takes it over.
    pub state: Arc<ClusterState>,
    /// What picking needs; makes itself.
    pub table: Table,
}

/// `connectionPool.tcp.maxConnections` and what it counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// At most this many at a time.
    pub max_connections: u32,
    /// Annotation `shunt.dev/limit-scope`.
    pub scope: LimitScope,
}

/// `connectionPool.tcp.tcpKeepalive`; `None`: the system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// `time`: idle before the first probe.
    pub time: Option<Duration>,
    /// `interval`: between probes.
    pub interval: Option<Duration>,
    /// `probes`: unanswered before the connection is dead.
    pub probes: Option<u32>,
}

/// `outlierDetection`, with Istio's defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Failures to connect in a row that eject: the smallest of `consecutive5xxErrors` and
    /// `consecutiveGatewayErrors` (`consecutiveLocalOriginFailures` with `splitExternalLocalOriginErrors`).
    pub consecutive: u32,
    /// `interval`: how often ejected endpoints are looked at.
    pub interval: Duration,
    /// `baseEjectionTime`: times the number of ejections so far.
    pub base_ejection: Duration,
    /// `maxEjectionPercent`.
    pub max_ejection_percent: u32,
    /// `minHealthPercent`: below it health does not count.
    pub min_health_percent: u32,
}

/// How a cluster finds its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterKind {
    /// A known list; empty is possible (flag UH).
    Endpoints(Vec<Endpoint>),
    /// The address that the client dialled.
    OriginalDestination,
    /// The name that the client said first ([`crate::Sniffed`]): the address that it dialled if the name has it, else another
    /// address of the name, on this port or the one that it dialled.
    Named(Option<u16>),
    /// The host or subset does not exist (flag NC); the text says which, in Istio's words.
    Missing(String),
}

/// Somebody who serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// Relative share of the cluster's connections; 1 unless a WorkloadEntry or `localityLbSetting` says otherwise. Never 0.
    pub weight: u32,
    /// Who it is, as Istio's metrics label it.
    pub workload: Arc<WorkloadName>,
}

/// Names of a serving workload for metrics; `unknown` where nobody said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadName {
    /// Pod or WorkloadEntry name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Label `app` (or `app.kubernetes.io/name`).
    pub app: String,
    /// Label `version` (or `app.kubernetes.io/version`).
    pub version: String,
}

impl Cluster {
    /// Whether its connections go anywhere.
    #[must_use]
    pub fn dials(&self) -> bool {
        match &self.kind {
            ClusterKind::Endpoints(endpoints) => !endpoints.is_empty(),
            ClusterKind::OriginalDestination | ClusterKind::Named(_) => true,
            ClusterKind::Missing(_) => false,
        }
    }

    /// The cluster of destinations that no listener claims: dials what the client dialled.
    #[must_use]
    pub fn passthrough(connect_timeout: Duration) -> Self {
        let (kind, balancing) = (ClusterKind::OriginalDestination, Balancing::OriginalDestination);
        Self { kind, balancing, ..Self::unclaimed(ClusterName::passthrough(), connect_timeout) }
    }

    /// The cluster of what may not leave: nobody is in it.
    #[must_use]
    pub fn blackhole() -> Self {
        Self::unclaimed(ClusterName::blackhole(), Duration::ZERO)
    }

    fn unclaimed(name: ClusterName, connect_timeout: Duration) -> Self {
        let service = Service {
            host: name.to_string(),
            name: name.to_string(),
            namespace: WorkloadName::UNKNOWN.to_owned(),
        };
        Self {
            name,
            service,
            kind: ClusterKind::Endpoints(Vec::new()),
            port: None,
            connect_timeout,
            balancing: Balancing::default(),
            limit: None,
            keepalive: None,
            outlier: None,
            state: Arc::default(),
            table: Table::default(),
        }
    }

    /// Who serves it; nobody where the kind knows none.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        match &self.kind {
            ClusterKind::Endpoints(all) => all,
            ClusterKind::OriginalDestination | ClusterKind::Named(_) | ClusterKind::Missing(_) => &[],
        }
    }
}

/// Two clusters that say the same are equal, whatever their connections did.
impl PartialEq for Cluster {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            name,
            service,
            kind,
            port,
            connect_timeout,
            balancing,
            limit,
            keepalive,
            outlier,
            state: _,
            table: _,
        } = self;
        let first = (name, service, kind, (port, connect_timeout));
        let second = (balancing, limit, keepalive, outlier);
        first == (&other.name, &other.service, &other.kind, (&other.port, &other.connect_timeout))
            && second == (&other.balancing, &other.limit, &other.keepalive, &other.outlier)
    }
}

impl Eq for Cluster {}

impl WorkloadName {
    /// What Istio's metrics say where nobody said.
    pub const UNKNOWN: &'static str = "unknown";
}

impl Default for WorkloadName {
    fn default() -> Self {
        let unknown = || Self::UNKNOWN.to_owned();
        Self { name: unknown(), namespace: unknown(), app: unknown(), version: unknown() }
    }
}
