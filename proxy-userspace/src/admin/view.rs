//! What `shunt routes` shows, and `shunt status` of workloads: as JSON on the socket, as text to people.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// `IP:PORT`, or `SUBNET:PORT`.
    pub address: String,
    /// Service and port, or gateway.
    pub listener: String,
    /// What becomes of connections: `direct` (the kernel routes), `steer` (the daemon does), `pass` (no rule holds), or
    /// `listen` for a gateway's address.
    pub verdict: String,
    /// Why they are steered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whose connections these are, where that makes a difference: `NAMESPACE KEY=VALUE …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<String>,
    /// The rules in order, one line each; of several rows of one listener, the first has them.
    pub rules: Vec<String>,
}

/// Every listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes(pub Vec<RouteRow>);

/// One workload that is looked after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadRow {
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The cgroup that narrows it down, when there is one.
    pub cgroup: Option<PathBuf>,
    /// Address families that are captured: `IPv4`, `IPv6`.
    pub families: Vec<String>,
    /// What it may reach beside its listeners, and who says so.
    #[serde(default)]
    pub egress: String,
}

impl fmt::Display for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "no listener: no Service or ServiceEntry is in force");
        }
        self.0.iter().try_for_each(|row| row.fmt(f))
    }
}

impl fmt::Display for RouteRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}  {}", self.address, self.verdict, self.listener)?;
        if let Some(workloads) = &self.workloads {
            write!(f, "  for {workloads}")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, "  ({reason})")?;
        }
        writeln!(f)?;
        self.rules.iter().try_for_each(|rule| writeln!(f, "    {rule}"))
    }
}

/// `default/web app=web (IPv4, IPv6; cgroup /sys/fs/cgroup/web) ALLOW_ANY`.
impl fmt::Display for WorkloadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        self.labels.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))?;
        write!(f, " ({}", self.families.join(", "))?;
        if let Some(cgroup) = &self.cgroup {
            write!(f, "; cgroup {}", cgroup.display())?;
        }
        f.write_str(")")?;
        if !self.egress.is_empty() {
            write!(f, " {}", self.egress)?;
        }
        Ok(())
    }
}
