//! The whole of the routing rules at one moment: immutable, compiled whole, published by one pointer.
//!
//! Everything that has a default in Istio has its value here: no `Option` means "see the documentation".
//! Its listing is in `listing`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use proxy_common::{egress::is_infrastructure, is_loopback};

use crate::{Cluster, ClusterName, Egress, Map, Sniffed, istio::names};

/// The rules of a mesh at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts publications, from 1; the app sets it.
    pub generation: u64,
    /// Captured addresses: every VIP with every port of its service.
    pub listeners: Map<SocketAddr, Arc<Listener>>,
    /// Captured ranges, longest prefix first, then by port.
    pub subnets: Vec<SubnetListener>,
    /// What this process itself listens on for `Gateway` resources, only where a route is bound.
    pub gateways: Map<SocketAddr, Arc<Listener>>,
    /// Every cluster that a route or a service names.
    pub clusters: Map<ClusterName, Arc<Cluster>>,
    /// Every host of the mesh by its full name, with what it resolves to.
    pub hosts: Map<String, Host>,
    /// Who may reach what no listener takes.
    pub egress: Egress,
    /// Ports that some service speaks HTTP on, and 80: what may not leave there is answered in HTTP if it asks in HTTP.
    pub http_ports: BTreeSet<u16>,
    /// Names whose addresses are endpoints, to be looked up and kept up to date by others ([`crate::istio::Store::resolve`]).
    pub lookups: Map<String, Lookup>,
    /// Where datagrams may go under REGISTRY_ONLY: ranges and ports of UDP ServiceEntries.
    pub datagrams: BTreeSet<(IpNet, u16)>,
}

/// How a name is looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// Of `MESH_EXTERNAL`: private addresses are no answer, unless [`Self::allowed`] has them.
    pub external: bool,
    /// Addresses that an entry names itself.
    pub allowed: Vec<IpNet>,
}

/// A listener for one port of a range of addresses (ServiceEntry with CIDR `addresses`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetListener {
    /// The range.
    pub subnet: IpNet,
    /// The port.
    pub port: u16,
    /// What it does.
    pub listener: Arc<Listener>,
}

/// A name that workloads can dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Namespace of the resource that brought it.
    pub namespace: String,
    /// Its own `addresses` (clusterIPs), else one VIP allocated for it.
    pub addresses: Vec<IpAddr>,
    /// `exportTo`: workloads of which namespaces see it; `None`: all.
    pub exported: Option<BTreeSet<String>>,
}

/// One captured address and port, or one port of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// Where it came from, for people: `tcp-echo.default.svc.cluster.local:9000`,
    /// `gateway default/tcp-echo-gateway:31400`.
    pub name: String,
    /// Tried in order, see [`crate::route::select`].
    pub rules: Vec<Rule>,
    /// Why the daemon must carry its connections; `None`: the kernel can route them by itself, as far as the rules go
    /// (see [`crate::datapath::decide`] for the rest).
    pub steer: Option<SteerReason>,
    /// What its rules need to know of a connection's first bytes.
    pub sniff: Sniff,
}

/// What has to be read of a connection's first bytes before a rule can be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sniff {
    /// The server name of a TLS ClientHello.
    pub tls: bool,
    /// The host of an HTTP request.
    pub http: bool,
}

impl Sniff {
    /// Whether anything has to be read at all.
    #[must_use]
    pub fn any(self) -> bool {
        self.tls || self.http
    }
}

/// Why a listener is steered although Shunt would rather not carry its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SteerReason {
    /// The setting `--datapath steer`.
    Setting,
    /// Annotation `shunt.dev/datapath: steer` on the named resource.
    Annotation(String),
    /// A rule asks for what the client says first: a TLS server name or an HTTP host.
    Sniff,
    /// The named cluster dials another port than the client did (`targetPort` with resolution NONE).
    TargetPort(ClusterName),
    /// A rule asks for `sourceSubnet`, which only the accepted socket knows.
    SourceSubnet,
    /// A `connectTimeout` below the kernel's first SYN retransmission, 1 s, of the named cluster.
    ShortConnectTimeout(ClusterName),
    /// The named cluster's limit is to be met by accepting and closing (`shunt.dev/overflow: close`).
    OverflowCloses(ClusterName),
    /// The named cluster's limit is counted by the daemon, because this other listener is steered.
    SharedLimit(ClusterName, String),
    /// An endpoint of another address family than the listener's address.
    Family(SocketAddr),
}

/// One rule of a VirtualService, or the default at a listener's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// ORed. Empty: every flow.
    pub matches: Vec<Match>,
    /// Where its connections go.
    pub route: Arc<Route>,
}

/// The conditions of one `match`, ANDed; port and gateways were decided when the listener was compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Original destination; empty: any. Among matches with subnets the longest prefix wins.
    pub destination_subnets: Vec<IpNet>,
    /// The client's address. Istio defines the field and leaves it unimplemented; here it works.
    pub source_subnet: Option<IpNet>,
    /// Labels that the client's workload must have.
    pub source_labels: BTreeMap<String, String>,
    /// Namespace of the client's workload.
    pub source_namespace: Option<String>,
    /// The TLS server name that the client asks for: `a.b` or `*.b`, in lower case. Empty: any, also none at all.
    pub server_names: Vec<String>,
    /// The host of its first HTTP request, in the same way.
    pub authorities: Vec<String>,
}

impl Match {
    /// Whether what the client said first fits.
    #[must_use]
    pub fn hears(&self, sniffed: &Sniffed) -> bool {
        let has = |patterns: &[String], name: Option<&str>| {
            name.is_some_and(|name| patterns.iter().any(|pattern| names::covers(pattern, name)))
        };
        match (self.server_names.is_empty(), self.authorities.is_empty(), sniffed) {
            (true, true, _) => true,
            (false, true, Sniffed::Tls(name)) => has(&self.server_names, name.as_deref()),
            (true, false, Sniffed::Http(name)) => has(&self.authorities, name.as_deref()),
            _ => false,
        }
    }
}

/// A weighted choice of clusters. At least one destination; the weights add up to more than 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// For logs: `default/tcp-echo` of the VirtualService, or the service's own name for a default route.
    pub name: String,
    /// The choice.
    pub destinations: Vec<Destination>,
}

/// One arm of a weighted choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Share of the connections, relative to the sum over the route.
    pub weight: u64,
    /// Who serves them.
    pub cluster: Arc<Cluster>,
}

impl SubnetListener {
    /// Whether it claims any address, and means this one as little as loopback: see [`is_infrastructure`].
    fn is_beyond(&self, address: IpAddr) -> bool {
        let octets = proxy_common::v4_mapped(address);
        is_loopback(&octets) || (self.subnet.prefix_len() == 0 && is_infrastructure(&octets))
    }
}

impl Snapshot {
    /// The listener that claims `destination` in the mesh: exact address first, then the longest prefix.
    #[must_use]
    pub fn listener(&self, destination: SocketAddr) -> Option<&Arc<Listener>> {
        self.listeners.get(&destination).or_else(|| {
            let claims = |range: &&SubnetListener| {
                range.port == destination.port() && range.subnet.contains(&destination.ip())
            };
            let found = self.subnets.iter().find(claims)?;
            (!found.is_beyond(destination.ip())).then_some(&found.listener)
        })
    }

    /// A snapshot that knows nothing but names and their addresses: what compiling starts from after a restart,
    /// so that every host keeps its VIP.
    #[must_use]
    pub fn with_hosts(hosts: impl Into<Map<String, Host>>) -> Self {
        Self { hosts: hosts.into(), ..Self::default() }
    }
}
