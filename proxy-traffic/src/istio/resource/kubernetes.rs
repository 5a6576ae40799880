//! Kubernetes' Service and Pod, as far as they say who serves what.

use std::net::IpAddr;

use serde::Deserialize;

use super::Labels;
use crate::istio::scalar::{Port, TargetPort};

/// A service: names, addresses, ports, and which Pods serve it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Service {
    pub(crate) ports: Vec<ServicePort>,
    pub(crate) selector: Labels,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub(crate) cluster_ips: Vec<String>,
    pub(crate) r#type: Option<String>,
    pub(crate) publish_not_ready_addresses: bool,
    pub(crate) session_affinity: Option<String>,
}

impl Service {
    /// `clusterIPs`, or the one `clusterIP`, as they are written.
    pub(crate) fn cluster_ips(&self) -> &[String] {
        if self.cluster_ips.is_empty() { self.cluster_ip.as_slice() } else { &self.cluster_ips }
    }

    /// Its own addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.cluster_ips().iter().filter_map(|text| text.parse().ok())
    }

    /// Whether its name stands for its Pods' addresses instead of one of its own.
    pub(crate) fn is_headless(&self) -> bool {
        self.cluster_ips().first().is_some_and(|address| address == "None")
    }
}

/// One port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) port: Option<Port>,
    pub(crate) protocol: Option<String>,
    pub(crate) target_port: Option<TargetPort>,
    pub(crate) app_protocol: Option<String>,
}

/// A running workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Pod {
    pub(crate) spec: PodSpec,
    pub(crate) status: PodStatus,
}

/// What it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) containers: Vec<Container>,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) ports: Vec<ContainerPort>,
}

/// A port it listens on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerPort {
    pub(crate) name: String,
    pub(crate) container_port: Option<Port>,
}

/// How it fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus {
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub(crate) pod_ips: Vec<PodIp>,
    pub(crate) phase: Option<String>,
    pub(crate) conditions: Vec<Condition>,
}

/// One of its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PodIp {
    pub(crate) ip: String,
}

/// `type: Ready, status: "False"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    pub(crate) r#type: String,
    pub(crate) status: String,
}

impl Pod {
    /// Its address as it is written: `podIP`, else the first of `podIPs`.
    pub(crate) fn address_text(&self) -> Option<&str> {
        let first = || self.status.pod_ips.first().map(|one| one.ip.as_str());
        self.status.pod_ip.as_deref().or_else(first)
    }

    /// Whether it runs and does not say that it is not ready.
    pub(crate) fn is_ready(&self) -> bool {
        let unready = |one: &Condition| one.r#type == "Ready" && one.status == "False";
        !self.has_ended() && !self.status.conditions.iter().any(unready)
    }

    /// Whether it has ended for good.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// Number of the container port called `name`.
    pub(crate) fn named_port(&self, name: &str) -> Option<u16> {
        let mut ports = self.spec.containers.iter().flat_map(|container| &container.ports);
        ports.find(|port| port.name == name)?.container_port.map(|port| port.0)
    }
}
