//! DestinationRule: host, subsets and the part of the policies that is served.

use crate::istio::{
    names,
    problem::Report,
    resource::{DestinationRule, TrafficPolicy},
};

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
        policy(&format!("{field}.trafficPolicy"), subset.traffic_policy.as_ref(), report);
    }
    policy("trafficPolicy", spec.traffic_policy.as_ref(), report);
}

fn policy(field: &str, policy: Option<&TrafficPolicy>, report: &mut Report<'_>) {
    let Some(policy) = policy else { return };
    let ports = policy.port_level_settings.iter().enumerate();
    for (index, _) in
        ports.clone().filter(|(_, settings)| settings.port.and_then(|port| port.number).is_none())
    {
        let field = format!("{field}.portLevelSettings[{index}].port.number");
        report.error(field, "is missing; say which port the settings are for");
    }
    let numbers = ports.filter_map(|(index, settings)| Some((index, settings.port?.number?.0)));
    super::duplicates(numbers, |index| format!("{field}.portLevelSettings[{index}].port.number"), report);
}
