//! DestinationRule: the subsets of a host, and how its connections are made.

use serde::Deserialize;

use super::Labels;
use crate::istio::scalar::{Port, Span};

/// Subsets and policies of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DestinationRule {
    pub(crate) host: String,
    pub(crate) subsets: Vec<Subset>,
    pub(crate) traffic_policy: Option<TrafficPolicy>,
    pub(crate) export_to: Vec<String>,
}

/// The workloads of a host that have these labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Subset {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) traffic_policy: Option<TrafficPolicy>,
}

/// How connections are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TrafficPolicy {
    pub(crate) connection_pool: Option<ConnectionPool>,
    pub(crate) port_level_settings: Vec<PortLevelSettings>,
}

/// For one port: takes the place of everything at its level, nothing is inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PortLevelSettings {
    pub(crate) port: Option<PolicyPort>,
    pub(crate) connection_pool: Option<ConnectionPool>,
}

/// A port by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PolicyPort {
    pub(crate) number: Option<Port>,
}

/// Limits and timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ConnectionPool {
    pub(crate) tcp: Option<TcpSettings>,
}

/// Limits and timers of TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TcpSettings {
    pub(crate) connect_timeout: Option<Span>,
}
