//! Why connections end: one cause for each record.

use std::io;

use proxy_traffic::Error;

use super::forward::Ended;

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
    /// The cluster is empty, or all are ejected.
    NoEndpoint,
    /// Its workload may not reach what no listener takes, or what it was led to is off limits.
    EgressDenied,
    /// A datagram went where its workload may send none.
    DatagramDenied,
    /// Its workload may not have a socket of that kind.
    SocketDenied,
    /// A packet that no program at a socket saw went where its workload may send none.
    PacketDenied,
    /// The name that the client said first has no address.
    Unresolved,
    /// The cluster's limit is reached.
    Overflow,
    /// It asked for names, and the daemon answered itself.
    Names,
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
            Self::EgressDenied => "egress_denied",
            Self::DatagramDenied => "datagram_denied",
            Self::SocketDenied => "socket_denied",
            Self::PacketDenied => "packet_denied",
            Self::Unresolved => "unresolved",
            Self::Overflow => "overflow",
            Self::Names => "names",
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
            Error::Blocked(_) | Error::OffLimits(_) => Self::EgressDenied,
            Error::Unresolved(_) => Self::Unresolved,
            Error::Overflow { .. } => Self::Overflow,
            Error::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                Self::ConnectRefused
            }
            Error::Connect { .. } => Self::ConnectFailed,
            Error::ConnectTimeout { .. } => Self::ConnectTimeout,
            Error::DownstreamClosed { .. } => Self::ClientGone,
        }
    }
}
