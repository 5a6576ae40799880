//! ServiceEntry and WorkloadEntry: services and workloads that somebody wrote down by hand.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Labels;
use crate::istio::scalar::{Port, Subnet};

/// A service by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceEntry {
    pub(crate) hosts: Vec<String>,
    pub(crate) addresses: Vec<Subnet>,
    pub(crate) ports: Vec<ServiceEntryPort>,
    /// Says whether mTLS is expected; nothing depends on it here.
    pub(crate) location: Option<String>,
    pub(crate) resolution: Option<String>,
    pub(crate) endpoints: Vec<WorkloadEntry>,
    pub(crate) workload_selector: Option<WorkloadSelector>,
    pub(crate) export_to: Vec<String>,
}

/// One port of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceEntryPort {
    pub(crate) number: Option<Port>,
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) target_port: Option<Port>,
}

/// Which workloads of its namespace serve it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WorkloadSelector {
    pub(crate) labels: Labels,
}

/// A workload by hand; also one of a ServiceEntry's `endpoints`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WorkloadEntry {
    pub(crate) address: String,
    /// Service port name → its number here.
    pub(crate) ports: BTreeMap<String, Port>,
    pub(crate) labels: Labels,
    /// 0 or missing: 1.
    pub(crate) weight: u32,
    /// Where it is: `region/zone/subzone`.
    pub(crate) locality: String,
    /// Says who it is under mTLS; nothing depends on it here.
    pub(crate) service_account: Option<String>,
}
