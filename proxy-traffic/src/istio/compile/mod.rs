//! Resources → [`Snapshot`]: the dictionary from Istio's words to Envoy's.
//!
//! Services and their workloads become the registry, DestinationRules the policies, each service port a
//! listener of the mesh, each bound server of a Gateway a listener of the edge. Pure and deterministic: what
//! must stay as it was comes in as the previous snapshot.

mod anywhere;
mod blocks;
mod by_hand;
mod claims;
mod cluster;
mod compiler;
mod egress;
mod entry;
mod gateway;
mod ledger;
mod locality;
mod mesh;
mod policy;
mod protocol;
mod registry;
mod resolution;
mod rules;
mod selection;
mod tallies;
mod traffic;
mod units;
mod verdict;
mod vip;
mod workload;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

pub use self::compiler::Compiler;
use super::{
    Problem, Resources, Severity,
    resource::{Item, Key},
};
use crate::Snapshot;

/// What this process adds to the resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The tail of every service's full name.
    pub cluster_domain: String,
    /// Labels that a Gateway's `selector` must match for this process to serve it.
    pub gateway_labels: BTreeMap<String, String>,
    /// Where a Gateway's server listens when it has no `bind`.
    pub gateway_address: IpAddr,
    /// How long connecting may take when no DestinationRule says.
    pub connect_timeout: Duration,
    /// Where this process is: `region/zone/subzone`, of which the end may be missing; empty: nobody said.
    pub locality: String,
    /// The daemon carries every connection that a rule claims.
    pub steer_all: bool,
    /// What is over a limit is accepted and closed where no annotation says otherwise; else `connect()` fails.
    pub overflow_closes: bool,
    /// Namespace of the ConfigMap `istio`, and of the Sidecar that is everybody's.
    pub root_namespace: String,
    /// What REGISTRY_ONLY forbids fails in `connect()` where no annotation says otherwise; else it is accepted and closed.
    pub egress_refuses: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".to_owned(),
            gateway_labels: BTreeMap::from([("istio".to_owned(), "ingressgateway".to_owned())]),
            gateway_address: Ipv4Addr::UNSPECIFIED.into(),
            connect_timeout: Duration::from_secs(10),
            locality: String::new(),
            steer_all: false,
            overflow_closes: false,
            root_namespace: "istio-system".to_owned(),
            egress_refuses: false,
        }
    }
}

/// What [`Compiler::compile`] says if it compiled nothing before.
#[must_use]
pub fn compile(resources: &Resources, previous: &Snapshot, settings: &Settings) -> (Snapshot, Vec<Problem>) {
    let (snapshot, problems) = Compiler::new().compile(resources, previous, settings);
    (snapshot, problems.to_vec())
}

/// Which resource a problem is on.
#[derive(Clone, Copy, Debug)]
struct Source<'a> {
    file: &'a str,
    key: &'a Key,
}

impl<'a, T> From<&'a Item<T>> for Source<'a> {
    fn from(item: &'a Item<T>) -> Self {
        Self { file: &item.file, key: &item.key }
    }
}

/// What was found on the way.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    /// Something that costs only itself.
    fn warn<'a>(&mut self, source: impl Into<Source<'a>>, field: impl Into<String>, what: impl Into<String>) {
        let source = source.into();
        self.0.push(Problem {
            file: source.file.to_owned(),
            resource: source.key.to_string(),
            field: field.into(),
            what: what.into(),
            severity: Severity::Warning,
        });
    }

    /// Each once, in order: several listeners may have met the same rule.
    fn finish(mut self) -> Vec<Problem> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}
