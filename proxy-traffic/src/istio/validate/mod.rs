//! What each resource may say, on its own: the rules that Istio's own checks have for the part that is served.
//!
//! Whether the things that a resource names exist is only known with all resources at hand: see `compile`.

mod annotations;
mod config_map;
mod destination_rule;
mod gateway;
mod kubernetes;
mod load_balancer;
mod service_entry;
mod sidecar;
mod traffic_policy;
mod virtual_service;

use std::collections::BTreeSet;

pub(super) use annotations::annotations;
pub(super) use config_map::mesh_config;
pub(super) use destination_rule::destination_rule;
pub(super) use gateway::gateway;
pub(super) use kubernetes::{pod, service};
pub(super) use service_entry::{service_entry, workload_entry};
pub(super) use sidecar::sidecar;
pub(super) use virtual_service::virtual_service;

use super::problem::Report;

/// Visibility is not served: everything is visible everywhere.
fn export_to(export_to: &[String], report: &mut Report<'_>) {
    if !export_to.is_empty() && export_to != ["*"] {
        report.warn(
            "exportTo",
            "is not served yet: the resource is visible in every namespace, as with [\"*\"]",
        );
    }
}

/// Reports each value that stands there twice. `field` makes the path of the n-th.
fn duplicates<T: Ord + std::fmt::Display>(
    values: impl Iterator<Item = (usize, T)>,
    field: impl Fn(usize) -> String,
    report: &mut Report<'_>,
) {
    let mut seen = BTreeSet::new();
    for (index, value) in values {
        if seen.contains(&value) {
            report.error(field(index), format!("{value} is there twice; each may stand once"));
        }
        seen.insert(value);
    }
}
