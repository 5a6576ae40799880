//! Why a connection was not forwarded. Each cause has one response flag, so log and metrics agree by
//! construction.

use std::{fmt, io, net::SocketAddr, time::Duration};

use crate::ClusterName;

/// Envoy's response flags, as far as a TCP proxy can raise them. Shown as `-` when all went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flag {
    /// Nothing to report.
    #[default]
    None,
    /// `NR`: no rule of the gateway's listener matched.
    NoRoute,
    /// `NC`: the route names a host or subset that does not exist.
    NoCluster,
    /// `UH`: the cluster has no endpoint, or all are ejected.
    NoHealthyUpstream,
    /// `UO`: the cluster's limit is reached.
    Overflow,
    /// `UF,URX`: the one attempt to connect failed.
    UpstreamFailure,
    /// `DC`: the client went away before its connection was answered.
    DownstreamClosed,
}

impl Flag {
    /// As Envoy and Istio's metrics write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::NoRoute => "NR",
            Self::NoCluster => "NC",
            Self::NoHealthyUpstream => "UH",
            Self::Overflow => "UO",
            Self::UpstreamFailure => "UF,URX",
            Self::DownstreamClosed => "DC",
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a connection was accepted and then closed without an upstream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A gateway listener without a rule for this flow.
    #[error("no route for {0}")]
    NoRoute(SocketAddr),
    /// The route's host or subset does not exist (yet).
    #[error("{name} does not exist: {reason}")]
    NoCluster {
        /// The cluster that the route names.
        name: ClusterName,
        /// Which part is missing, in Istio's words.
        reason: String,
    },
    /// No listener takes it, and its workload may reach nothing else.
    #[error("{0} is not in the registry, and outboundTrafficPolicy is REGISTRY_ONLY")]
    Blocked(SocketAddr),
    /// The address is one that no workload is led to unless a rule names it: see [`proxy_common::egress::is_off_limits`].
    #[error("{0} is loopback, link-local or somebody's metadata server, and no rule names it")]
    OffLimits(SocketAddr),
    /// The name that the client said first has no address.
    #[error("{0} cannot be resolved")]
    Unresolved(Box<str>),
    /// The cluster exists and has nobody in it, or nobody who is not ejected.
    #[error("{0} has no healthy endpoint")]
    NoHealthyUpstream(ClusterName),
    /// `maxConnections` are open.
    #[error("{cluster} has {max_connections} connections already, its limit")]
    Overflow {
        /// The cluster that is limited.
        cluster: ClusterName,
        /// The limit in force.
        max_connections: u32,
    },
    /// The endpoint did not accept.
    #[error("cannot connect to {endpoint}: {source}")]
    Connect {
        /// Who was dialled.
        endpoint: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The endpoint did not answer in time (`connectTimeout`).
    #[error("{endpoint} did not answer within {after:?}")]
    ConnectTimeout {
        /// Who was dialled.
        endpoint: SocketAddr,
        /// The timeout in force.
        after: Duration,
    },
    /// The client went away while its upstream was being dialled.
    #[error("the client went away before {endpoint} answered")]
    DownstreamClosed {
        /// Who was dialled.
        endpoint: SocketAddr,
    },
}

impl Error {
    /// The response flag of this cause.
    #[must_use]
    pub const fn flag(&self) -> Flag {
        match self {
            Self::NoRoute(_) => Flag::NoRoute,
            Self::NoCluster { .. } => Flag::NoCluster,
            Self::NoHealthyUpstream(_) | Self::Blocked(_) | Self::OffLimits(_) | Self::Unresolved(_) => {
                Flag::NoHealthyUpstream
            }
            Self::Overflow { .. } => Flag::Overflow,
            Self::Connect { .. } | Self::ConnectTimeout { .. } => Flag::UpstreamFailure,
            Self::DownstreamClosed { .. } => Flag::DownstreamClosed,
        }
    }
    /// Whether it speaks against the endpoint: not what our side, its limits or the client brought about.
    #[must_use]
    pub fn is_endpoints(&self) -> bool {
        use io::ErrorKind::{
            ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
            TimedOut,
        };
        let told = [
            ConnectionRefused,
            ConnectionReset,
            ConnectionAborted,
            HostUnreachable,
            NetworkUnreachable,
            TimedOut,
        ];
        match self {
            Self::Connect { source, .. } => told.contains(&source.kind()),
            Self::ConnectTimeout { .. } => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use io::ErrorKind;

    use super::*;

    #[test]
    fn only_what_the_endpoint_did_speaks_against_it() {
        let endpoint: SocketAddr = ([10, 0, 0, 1], 80).into();
        for (kind, want) in [
            (ErrorKind::ConnectionRefused, true),
            (ErrorKind::HostUnreachable, true),
            (ErrorKind::NetworkUnreachable, true),
            (ErrorKind::TimedOut, true),
            (ErrorKind::AddrNotAvailable, false),
            (ErrorKind::PermissionDenied, false),
            (ErrorKind::Other, false),
        ] {
            let error = Error::Connect { endpoint, source: kind.into() };
            assert_eq!(error.is_endpoints(), want, "{kind}");
        }
        assert!(Error::ConnectTimeout { endpoint, after: Duration::ZERO }.is_endpoints());
        assert!(!Error::DownstreamClosed { endpoint }.is_endpoints());
    }
}
