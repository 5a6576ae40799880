//! DestinationRule: host and subsets.

use super::traffic_policy::traffic_policy;
use crate::istio::{names, problem::Report, resource::DestinationRule};

/// Checks `spec`.
pub(in crate::istio) fn destination_rule(spec: &DestinationRule, report: &mut Report<'_>) {
    if let Some(fault) = names::fault(&spec.host) {
        report.error("host", fault);
    }
    super::export_to(&spec.export_to, report);
    let names = spec.subsets.iter().map(|subset| subset.name.as_str()).enumerate();
    super::duplicates(names, |index| format!("subsets[{index}].name"), report);
    for (index, subset) in spec.subsets.iter().enumerate() {
        let field = format!("subsets[{index}]");
        if !names::is_label(&subset.name) {
            let what = format!("\"{}\" is not a subset's name; write letters, digits and -", subset.name);
            report.error(format!("{field}.name"), what);
        }
        if subset.labels.is_empty() {
            report.warn(format!("{field}.labels"), "is missing: the subset is the whole service");
        }
        traffic_policy(&format!("{field}.trafficPolicy"), subset.traffic_policy.as_ref(), report);
    }
    traffic_policy("trafficPolicy", spec.traffic_policy.as_ref(), report);
}
