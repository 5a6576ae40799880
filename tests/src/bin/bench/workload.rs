//! The workloads: what each does on the wire, and in which unit it is counted.

use anyhow::{Result, bail};

/// One workload, by its short name of the reference tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Its short name, for `--only` and `--workload`.
    pub(crate) name: &'static str,
    /// What it does, for people.
    pub(crate) title: &'static str,
    /// How many connections are open at any time.
    pub(crate) connections: usize,
    /// What happens on a connection.
    pub(crate) shape: Shape,
}

/// What happens on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Connect, echo one byte, close, again.
    Churn,
    /// Send a request of so many bytes, wait for its echo, again.
    Echo(usize),
    /// Download for as long as it lasts.
    Bulk,
}

/// Every workload, in the order of the report.
pub(crate) const ALL: [Workload; 6] = [
    Workload {
        name: "c64",
        title: "connect + 1 B echo + close, 64 in parallel",
        connections: 64,
        shape: Shape::Churn,
    },
    Workload {
        name: "r64x64",
        title: "64 B there and back, 64 connections",
        connections: 64,
        shape: Shape::Echo(64),
    },
    Workload {
        name: "r64x4096",
        title: "4 KiB there and back, 64 connections",
        connections: 64,
        shape: Shape::Echo(4096),
    },
    Workload {
        name: "r1x64",
        title: "64 B there and back, 1 connection",
        connections: 1,
        shape: Shape::Echo(64),
    },
    Workload { name: "b1", title: "bulk download, 1 stream", connections: 1, shape: Shape::Bulk },
    Workload { name: "b8", title: "bulk download, 8 streams", connections: 8, shape: Shape::Bulk },
];

impl Workload {
    /// The workload called `name`.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let Some(found) = ALL.into_iter().find(|workload| workload.name == name) else {
            let known = ALL.map(|workload| workload.name).join(", ");
            bail!("workload {name:?}: no such workload; there are {known}, idle, costs and held");
        };
        Ok(found)
    }

    /// How many bytes a request has; 1 for a bulk download, which is asked for with one byte.
    pub(crate) fn request(&self) -> usize {
        match self.shape {
            Shape::Echo(size) => size,
            Shape::Churn | Shape::Bulk => 1,
        }
    }

    /// The unit of throughput, and how many operations or bytes per second are one of it.
    pub(crate) fn unit(&self) -> (&'static str, f64) {
        match self.shape {
            Shape::Bulk => ("Gbit/s", 1e9 / 8.0),
            Shape::Churn | Shape::Echo(_) => ("per s", 1.0),
        }
    }

    /// The unit of work that CPU time is related to, and how many operations or bytes are one of it.
    pub(crate) fn work(&self) -> (&'static str, f64) {
        match self.shape {
            Shape::Bulk => ("CPU-s/GB", 1e9),
            Shape::Churn | Shape::Echo(_) => ("CPU-s/k", 1e3),
        }
    }
}
