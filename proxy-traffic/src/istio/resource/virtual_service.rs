//! VirtualService: which connections go where.

use serde::Deserialize;

use super::Labels;
use crate::istio::scalar::{Port, Present, Subnet};

/// Routing rules for hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VirtualService {
    pub(crate) hosts: Vec<String>,
    /// Empty: the mesh.
    pub(crate) gateways: Vec<String>,
    pub(crate) tcp: Vec<TcpRoute>,
    pub(crate) http: Present,
    pub(crate) tls: Present,
    pub(crate) export_to: Vec<String>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TcpRoute {
    /// ORed; empty: every connection.
    pub(crate) r#match: Vec<L4Match>,
    pub(crate) route: Vec<RouteDestination>,
}

/// Conditions, ANDed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct L4Match {
    pub(crate) destination_subnets: Vec<Subnet>,
    pub(crate) port: Option<Port>,
    pub(crate) source_subnet: Option<Subnet>,
    pub(crate) source_labels: Labels,
    pub(crate) source_namespace: Option<String>,
    /// Not empty: takes the place of the VirtualService's own.
    pub(crate) gateways: Vec<String>,
}

/// One arm of a weighted choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RouteDestination {
    pub(crate) destination: Option<Destination>,
    pub(crate) weight: Option<i64>,
}

/// A host, a subset of it, and a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Destination {
    pub(crate) host: String,
    pub(crate) subset: String,
    pub(crate) port: Option<PortSelector>,
}

/// A port by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PortSelector {
    pub(crate) number: Option<Port>,
}
