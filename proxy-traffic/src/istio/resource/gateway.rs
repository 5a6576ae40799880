//! Gateway: what the edge listens on.

use std::net::IpAddr;

use serde::Deserialize;

use super::Labels;
use crate::istio::scalar::Port;

/// Listeners of the gateways that the selector picks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Gateway {
    /// Empty: every gateway.
    pub(crate) selector: Labels,
    pub(crate) servers: Vec<Server>,
}

/// One listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Server {
    pub(crate) port: Option<ServerPort>,
    pub(crate) bind: Option<String>,
    /// `host`, `namespace/host`, `./host`, `*/host`.
    pub(crate) hosts: Vec<String>,
}

/// Its port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServerPort {
    pub(crate) number: Option<Port>,
    pub(crate) name: String,
    pub(crate) protocol: String,
}

impl Server {
    /// Number of its port, if it is a TCP server.
    pub(crate) fn tcp_port(&self) -> Option<u16> {
        let port = self.port.as_ref()?;
        port.protocol.eq_ignore_ascii_case("TCP").then_some(port.number?.0)
    }

    /// The address it asks for.
    pub(crate) fn bind_address(&self) -> Option<IpAddr> {
        self.bind.as_ref()?.parse().ok()
    }
}
