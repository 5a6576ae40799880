//! `metadata.annotations` that are ours.

use crate::istio::{
    problem::Report,
    resource::{Annotations, Kind},
};

/// What may stand on which kind, and what it may say.
const KNOWN: &[(&str, &[Kind], &[&str])] = &[
    (Annotations::DATAPATH, ROUTED, &["steer", "auto"]),
    (Annotations::OVERFLOW, ROUTED, &["refuse", "close"]),
    (Annotations::LIMIT_SCOPE, &[Kind::DestinationRule], &["workload", "node", "endpoint"]),
    (Annotations::EGRESS_EXISTING, POLICED, &["close", "keep"]),
    (Annotations::EGRESS_BLOCKED, POLICED, &["close", "refuse"]),
];
/// Kinds that listeners are made of.
const ROUTED: &[Kind] = &[Kind::Service, Kind::ServiceEntry, Kind::VirtualService];
/// Kinds that say who may leave.
const POLICED: &[Kind] = &[Kind::ConfigMap, Kind::Sidecar];

/// Reports what has no effect on a resource of `kind`.
pub(in crate::istio) fn annotations(kind: Kind, annotations: &Annotations, report: &mut Report<'_>) {
    let here = || KNOWN.iter().filter(|(_, kinds, _)| kinds.contains(&kind));
    for (name, value) in &annotations.0 {
        let field = format!("metadata.annotations[{}{name}]", Annotations::PREFIX);
        match here().find(|(known, ..)| known == name) {
            Some((.., values)) if values.contains(&value.as_str()) => {}
            Some((.., values)) => {
                let what = format!("\"{value}\" has no effect; write {}", values.join(" or "));
                report.warn(field, what);
            }
            None => {
                let names: Vec<_> =
                    here().map(|(name, ..)| format!("{}{name}", Annotations::PREFIX)).collect();
                let names = if names.is_empty() { "nothing".to_owned() } else { names.join(" and ") };
                let what = format!("has no effect; of Shunt's own a {} has {names}", kind.as_str());
                report.warn(field, what);
            }
        }
    }
}
