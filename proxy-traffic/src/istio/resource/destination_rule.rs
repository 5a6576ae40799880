//! DestinationRule: the subsets of a host, and how its connections are made.

use serde::Deserialize;

use super::{Labels, LoadBalancer};
use crate::istio::scalar::{Count, Percent, Port, Seconds, Span};

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
    pub(crate) load_balancer: Option<LoadBalancer>,
    pub(crate) connection_pool: Option<ConnectionPool>,
    pub(crate) outlier_detection: Option<OutlierDetection>,
    pub(crate) port_level_settings: Vec<PortLevelSettings>,
}

/// For one port: takes the place of everything at its level, nothing is inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PortLevelSettings {
    pub(crate) port: Option<PolicyPort>,
    pub(crate) load_balancer: Option<LoadBalancer>,
    pub(crate) connection_pool: Option<ConnectionPool>,
    pub(crate) outlier_detection: Option<OutlierDetection>,
}

impl PortLevelSettings {
    /// The port's number.
    pub(crate) fn number(&self) -> Option<u16> {
        Some(self.port?.number?.0)
    }
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
    /// 0 or missing: no limit.
    pub(crate) max_connections: Option<Count>,
    pub(crate) connect_timeout: Option<Span>,
    pub(crate) tcp_keepalive: Option<TcpKeepalive>,
}

/// What is missing is the system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TcpKeepalive {
    pub(crate) probes: Option<Count>,
    pub(crate) time: Option<Seconds>,
    pub(crate) interval: Option<Seconds>,
}

/// When an endpoint is left alone for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct OutlierDetection {
    /// Deprecated; means gateway errors, where neither of the two that came later is set.
    pub(crate) consecutive_errors: Option<Count>,
    pub(crate) consecutive_5xx_errors: Option<Count>,
    pub(crate) consecutive_gateway_errors: Option<Count>,
    pub(crate) split_external_local_origin_errors: bool,
    pub(crate) consecutive_local_origin_failures: Option<Count>,
    pub(crate) interval: Option<Span>,
    pub(crate) base_ejection_time: Option<Span>,
    /// 0 or missing: 10.
    pub(crate) max_ejection_percent: Percent,
    pub(crate) min_health_percent: Percent,
}
