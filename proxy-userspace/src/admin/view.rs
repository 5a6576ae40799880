//! What `shunt routes` and `shunt status` show: as JSON on the socket, as text to people.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// `IP:PORT`, or `SUBNET:PORT`.
    pub address: String,
    /// Service and port, or gateway.
    pub listener: String,
    /// `steer` for captured addresses, `listen` for a gateway's.
    pub verdict: String,
    /// The rules in order, one line each.
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
}

/// What an operator wants to know first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Publications of the rules so far.
    pub generation: u64,
    /// How many listeners, gateways, clusters and hosts the rules have.
    pub counts: BTreeMap<String, usize>,
    /// `open` or `closed`.
    pub failure_policy: String,
    /// Who is looked after.
    pub workloads: Vec<WorkloadRow>,
    /// What the kernel programs decided so far.
    pub connects: BTreeMap<String, u64>,
    /// What is wrong now, in full sentences.
    pub problems: Vec<String>,
}

impl fmt::Display for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "no listener: no Service or ServiceEntry is in force");
        }
        for row in &self.0 {
            writeln!(f, "{}  {}  {}", row.address, row.verdict, row.listener)?;
            row.rules.iter().try_for_each(|rule| writeln!(f, "    {rule}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "shunt {}, process {}, up {} s", self.version, self.pid, self.uptime_seconds)?;
        let counts: Vec<_> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        writeln!(f, "rules: generation {}, {}", self.generation, counts.join(", "))?;
        writeln!(f, "if this daemon dies: {}", self.failure_policy)?;
        writeln!(f, "workloads:")?;
        self.workloads.iter().try_for_each(|workload| writeln!(f, "  {workload}"))?;
        let connects: Vec<_> = self.connects.iter().map(|(what, count)| format!("{what} {count}")).collect();
        writeln!(f, "connects: {}", connects.join(", "))?;
        if self.problems.is_empty() {
            return writeln!(f, "problems: none");
        }
        writeln!(f, "problems:")?;
        self.problems.iter().try_for_each(|problem| writeln!(f, "  {problem}"))
    }
}

/// `default/web app=web (IPv4, IPv6; cgroup /sys/fs/cgroup/web)`.
impl fmt::Display for WorkloadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        self.labels.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))?;
        write!(f, " ({}", self.families.join(", "))?;
        if let Some(cgroup) = &self.cgroup {
            write!(f, "; cgroup {}", cgroup.display())?;
        }
        f.write_str(")")
    }
}
