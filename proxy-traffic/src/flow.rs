//! The facts of one connection that routing may ask for.

use std::{collections::BTreeMap, net::SocketAddr};

/// A captured pod or local cgroup: who a connection belongs to. Static for its whole life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name, unique on the node: the pod's name, or what `shunt enroll --name` said.
    pub name: String,
    /// Kubernetes namespace; `default` when nobody said otherwise.
    pub namespace: String,
    /// Labels, as `sourceLabels` matches them.
    pub labels: BTreeMap<String, String>,
}

/// Which way a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Captured from a workload: Istio's gateway `mesh`.
    Mesh,
    /// Through a listener of a `Gateway`, bound at this address.
    Gateway(SocketAddr),
}

/// What a client's first bytes said. Names are in lower case, without a port or a dot at their end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sniffed {
    /// Nobody looked, or nothing was there that we know.
    #[default]
    Nothing,
    /// A TLS ClientHello, with the server name that it asks for.
    Tls(Option<Box<str>>),
    /// An HTTP/1 request, with the host that it asks for.
    Http(Option<Box<str>>),
}

impl Sniffed {
    /// The name that the client said.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Tls(name) | Self::Http(name) => name.as_deref(),
        }
    }
}

/// One connection, before anything was decided.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Which way it came in.
    pub door: Door,
    /// Who dialled; the gateway itself for connections through a gateway.
    pub workload: &'a Workload,
    /// The client's address.
    pub source: SocketAddr,
    /// Where the client was going, before any rewriting. IPv4 is plain IPv4, never v4-mapped.
    pub destination: SocketAddr,
    /// What it said first, where a rule of its listener asks for it.
    pub sniffed: &'a Sniffed,
}
