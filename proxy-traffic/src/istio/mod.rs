//! Istio's and Kubernetes' resources, and the dictionary that turns them into a snapshot.

use std::fmt;

/// Something wrong with a resource, in words that let its owner mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file (or API server) it came from.
    pub file: String,
    /// `VirtualService default/tcp-echo`; empty when the file itself cannot be read as YAML.
    pub resource: String,
    /// `tcp[0].route[1].weight`; empty when the whole resource is meant.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub what: String,
    /// How much of the resource is lost.
    pub severity: Severity,
}

/// What a problem costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The resource is in force, without what the problem names.
    Warning,
    /// The resource is left out; its last good version, if there was one, stays in force.
    Error,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        for part in [&self.resource, &self.field] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        write!(f, ": {}", self.what)
    }
}
