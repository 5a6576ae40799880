//! `loadBalancer` of a DestinationRule: how an endpoint is chosen.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::istio::scalar::{Count, Present};

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LoadBalancer {
    pub(crate) simple: Option<String>,
    pub(crate) consistent_hash: Option<ConsistentHash>,
    pub(crate) locality_lb_setting: Option<LocalityLbSetting>,
    pub(crate) zone_aware_lb_setting: Present,
}

/// The same client gets the same endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ConsistentHash {
    pub(crate) use_source_ip: bool,
    pub(crate) http_header_name: Present,
    pub(crate) http_cookie: Present,
    pub(crate) http_query_parameter_name: Present,
    pub(crate) ring_hash: Option<RingHash>,
    pub(crate) maglev: Option<Maglev>,
    /// Deprecated; `ringHash` has one of the same name.
    pub(crate) minimum_ring_size: Option<u64>,
}

/// Ketama's ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RingHash {
    pub(crate) minimum_ring_size: Option<u64>,
}

/// Maglev's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Maglev {
    pub(crate) table_size: Option<u64>,
}

/// Who serves whom by where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LocalityLbSetting {
    /// Missing: yes.
    pub(crate) enabled: Option<bool>,
    pub(crate) distribute: Vec<Distribute>,
    pub(crate) failover: Present,
    pub(crate) failover_priority: Present,
}

/// Shares of the connections that come from one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Distribute {
    /// `region/zone/subzone`; its end may be left out or `*`.
    pub(crate) from: String,
    /// Place → percent.
    pub(crate) to: BTreeMap<String, Count>,
}
