//! What `shunt status` shows: as JSON on the socket, as text to people.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::WorkloadRow;

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
    /// Who routes: `auto` or `steer`, in a sentence.
    #[serde(default)]
    pub datapath: String,
    /// What outlives the daemon, when it pins.
    #[serde(default)]
    pub pins: Option<Pins>,
    /// Seconds that the kernel would go on routing without the daemon; absent: for ever.
    #[serde(default)]
    pub lease_seconds: Option<u64>,
    /// How full the kernel's tables are.
    #[serde(default)]
    pub tables: Vec<TableRow>,
    /// Endpoints that outlier detection leaves out now.
    #[serde(default)]
    pub ejected: Vec<EjectedRow>,
    /// Other people's programs on the hooks of ours.
    #[serde(default)]
    pub foreign: Vec<ForeignRow>,
    /// What the kernel programs decided so far.
    pub connects: BTreeMap<String, u64>,
    /// What is wrong now, in full sentences.
    pub problems: Vec<String>,
}

/// Programs and tables that stay when the daemon is killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// Version of the tables.
    pub layout: u32,
    /// Whether an earlier daemon made them, and this one took them over.
    pub adopted: bool,
    /// Seconds since they were made.
    pub age_seconds: u64,
}

/// One table of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRow {
    /// Its name.
    pub table: String,
    /// Entries in use.
    pub used: u64,
    /// Entries that it has room for.
    pub size: u64,
}

/// An endpoint that failed too often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EjectedRow {
    /// Its cluster.
    pub cluster: String,
    /// Its address and port.
    pub endpoint: String,
    /// So few of the cluster are healthy that it is used all the same.
    pub used_anyway: bool,
}

/// A program of somebody else's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignRow {
    /// The workload's cgroup; the program may be attached above it.
    pub cgroup: PathBuf,
    /// The hook.
    pub hook: String,
    /// The kernel's number of the program.
    pub program: u32,
    /// Its name; may be empty.
    pub name: String,
    /// `before` or `after`: when it runs, seen from ours.
    pub runs: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "shunt {}, process {}, up {} s", self.version, self.pid, self.uptime_seconds)?;
        let counts: Vec<_> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        writeln!(f, "rules: generation {}, {}", self.generation, counts.join(", "))?;
        writeln!(f, "datapath: {}", self.datapath)?;
        writeln!(f, "if this daemon dies: {}", self.failure_policy)?;
        self.survival(f)?;
        writeln!(f, "workloads:")?;
        self.workloads.iter().try_for_each(|workload| writeln!(f, "  {workload}"))?;
        self.kernel(f)?;
        let connects: Vec<_> = self.connects.iter().map(|(what, count)| format!("{what} {count}")).collect();
        writeln!(f, "connects: {}", connects.join(", "))?;
        if self.problems.is_empty() {
            return writeln!(f, "problems: none");
        }
        writeln!(f, "problems:")?;
        self.problems.iter().try_for_each(|problem| writeln!(f, "  {problem}"))
    }
}

impl Status {
    /// What stays without a daemon, and for how long.
    fn survival(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pins {
            None => f.write_str("pins: none, the kernel's programs end with the daemon")?,
            Some(Pins { layout, adopted, age_seconds }) => {
                let origin = if *adopted { "taken over from an earlier daemon" } else { "made by this one" };
                write!(f, "pins: layout {layout}, {origin}, {age_seconds} s old")?;
            }
        }
        match self.lease_seconds {
            None => writeln!(f, "; the lease never ends"),
            Some(seconds) => writeln!(f, "; the lease has {seconds} s left"),
        }
    }

    /// What the kernel holds.
    fn kernel(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables: Vec<_> =
            self.tables.iter().map(|one| format!("{} {} of {}", one.table, one.used, one.size)).collect();
        writeln!(f, "tables: {}", tables.join(", "))?;
        if !self.ejected.is_empty() {
            writeln!(f, "ejected endpoints:")?;
        }
        for EjectedRow { cluster, endpoint, used_anyway } in &self.ejected {
            let note = if *used_anyway { " (too few are healthy: used all the same)" } else { "" };
            writeln!(f, "  {endpoint} of {cluster}{note}")?;
        }
        if !self.foreign.is_empty() {
            writeln!(f, "other programs on our hooks:")?;
        }
        for ForeignRow { cgroup, hook, program, name, runs } in &self.foreign {
            writeln!(f, "  {hook} of {}: program {program} {name:?} runs {runs} ours", cgroup.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            version: "0.1.0".to_owned(),
            pid: 7,
            uptime_seconds: 1,
            generation: 2,
            counts: [("listeners".to_owned(), 3)].into(),
            failure_policy: "captured connects go their own way (open)".to_owned(),
            workloads: Vec::new(),
            datapath: "auto".to_owned(),
            pins: None,
            lease_seconds: None,
            tables: Vec::new(),
            ejected: Vec::new(),
            foreign: Vec::new(),
            connects: [("direct".to_owned(), 4)].into(),
            problems: Vec::new(),
        }
    }

    #[test]
    fn the_text_says_what_stays_and_who_else_is_there() {
        let text = status().to_string();
        assert!(text.contains("pins: none") && text.contains("the lease never ends"), "{text}");
        assert!(!text.contains("ejected") && !text.contains("other programs"), "{text}");
        let ejected = |used_anyway| EjectedRow {
            cluster: "outbound|80||a".to_owned(),
            endpoint: "10.0.0.1:80".to_owned(),
            used_anyway,
        };
        let foreign = ForeignRow {
            cgroup: "/sys/fs/cgroup/web".into(),
            hook: "connect4".to_owned(),
            program: 12,
            name: "cil_sock4".to_owned(),
            runs: "before".to_owned(),
        };
        let text = Status {
            pins: Some(Pins { layout: 1, adopted: true, age_seconds: 90 }),
            lease_seconds: Some(59),
            tables: vec![TableRow { table: "CLUSTERS".to_owned(), used: 2, size: 8 }],
            ejected: vec![ejected(false), ejected(true)],
            foreign: vec![foreign],
            ..status()
        };
        let text = text.to_string();
        for line in [
            "pins: layout 1, taken over from an earlier daemon, 90 s old; the lease has 59 s left\n",
            "tables: CLUSTERS 2 of 8\n",
            "  10.0.0.1:80 of outbound|80||a\n",
            "  10.0.0.1:80 of outbound|80||a (too few are healthy: used all the same)\n",
            "  connect4 of /sys/fs/cgroup/web: program 12 \"cil_sock4\" runs before ours\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn an_older_daemons_answer_is_still_read() {
        let mut json = serde_json::to_value(status()).unwrap();
        for field in ["datapath", "pins", "lease_seconds", "tables", "ejected", "foreign"] {
            json.as_object_mut().unwrap().remove(field);
        }
        let read: Status = serde_json::from_value(json).unwrap();
        assert_eq!(read, Status { datapath: String::new(), ..status() });
    }
}
