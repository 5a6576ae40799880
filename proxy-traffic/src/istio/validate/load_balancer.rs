//! `loadBalancer` of a traffic policy.

use crate::istio::{
    problem::Report,
    resource::{ConsistentHash, Distribute, LoadBalancer, LocalityLbSetting},
};

/// Istio's words for `simple`.
const SIMPLE: [&str; 6] =
    ["UNSPECIFIED", "LEAST_REQUEST", "LEAST_CONN", "RANDOM", "ROUND_ROBIN", "PASSTHROUGH"];
/// Maglev tables of this size and more are refused.
const HUGE_TABLE: u64 = 5_000_011;
const NO_SIZE: &str = "has no effect: the table's size follows from the number of endpoints";

/// Checks the block at `field`.
pub(super) fn load_balancer(field: &str, balancer: &LoadBalancer, report: &mut Report<'_>) {
    if let Some(simple) = balancer.simple.as_ref().filter(|word| !SIMPLE.contains(&word.as_str())) {
        let what = format!("\"{simple}\" is unknown; write one of {}", SIMPLE[1..].join(", "));
        report.error(format!("{field}.simple"), what);
    }
    if let Some(hash) = &balancer.consistent_hash {
        let field = format!("{field}.consistentHash");
        if balancer.simple.is_some() {
            report.error(&field, "simple and consistentHash exclude each other; keep one of them");
        }
        keys(&field, hash, report);
        sizes(&field, hash, report);
    }
    if balancer.zone_aware_lb_setting.0 {
        let field = format!("{field}.zoneAwareLbSetting");
        match balancer.locality_lb_setting {
            Some(_) => report.error(field, "localityLbSetting and zoneAwareLbSetting exclude each other"),
            None => report.warn(field, "is not served yet and has no effect"),
        }
    }
    if let Some(setting) = &balancer.locality_lb_setting {
        locality(&format!("{field}.localityLbSetting"), setting, report);
    }
}

fn keys(field: &str, hash: &ConsistentHash, report: &mut Report<'_>) {
    let of_http = [
        ("httpHeaderName", hash.http_header_name),
        ("httpCookie", hash.http_cookie),
        ("httpQueryParameterName", hash.http_query_parameter_name),
    ];
    let given: Vec<_> = of_http.into_iter().filter(|(_, key)| key.0).map(|(name, _)| name).collect();
    if given.len() + usize::from(hash.use_source_ip) > 1 {
        report.error(field, "has several keys; keep one of them");
        return;
    }
    for name in &given {
        let what =
            "is nothing that TCP has: LEAST_REQUEST is in force; useSourceIp is what TCP can be hashed by";
        report.warn(format!("{field}.{name}"), what);
    }
    if given.is_empty() && !hash.use_source_ip {
        report.warn(field, "has no key: LEAST_REQUEST is in force; write useSourceIp: true");
    }
}

fn sizes(field: &str, hash: &ConsistentHash, report: &mut Report<'_>) {
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        report.error(field, "ringHash and maglev exclude each other; keep one of them");
    }
    if hash.minimum_ring_size.is_some() {
        let field = format!("{field}.minimumRingSize");
        if hash.ring_hash.is_some() || hash.maglev.is_some() {
            report.error(field, "is deprecated and may not stand beside ringHash or maglev; remove it");
        } else {
            report.warn(field, NO_SIZE);
        }
    }
    if hash.ring_hash.is_some_and(|ring| ring.minimum_ring_size.is_some()) {
        report.warn(format!("{field}.ringHash.minimumRingSize"), NO_SIZE);
    }
    if let Some(size) = hash.maglev.and_then(|maglev| maglev.table_size) {
        let field = format!("{field}.maglev.tableSize");
        if size < HUGE_TABLE && is_prime(size) {
            report.warn(field, NO_SIZE);
        } else {
            report.error(field, format!("{size} is not a prime number below {HUGE_TABLE}"));
        }
    }
}

fn is_prime(number: u64) -> bool {
    number > 1
        && (2..).take_while(|divisor| divisor * divisor <= number).all(|one| !number.is_multiple_of(one))
}

fn locality(field: &str, setting: &LocalityLbSetting, report: &mut Report<'_>) {
    for (name, given) in [("failover", setting.failover), ("failoverPriority", setting.failover_priority)] {
        let field = format!("{field}.{name}");
        if given.0 && !setting.distribute.is_empty() {
            report.error(field, format!("distribute and {name} exclude each other; keep one of them"));
        } else if given.0 {
            report.warn(field, "is not served yet and has no effect");
        }
    }
    for (index, one) in setting.distribute.iter().enumerate() {
        shares(&format!("{field}.distribute[{index}]"), one, report);
    }
    let from = setting.distribute.iter().map(|one| one.from.as_str());
    let names = from.enumerate().map(|(index, from)| (format!("{field}.distribute[{index}].from"), from));
    places(names.collect(), report);
}

fn shares(field: &str, one: &Distribute, report: &mut Report<'_>) {
    let sum: u64 = one.to.values().map(|percent| u64::from(percent.0)).sum();
    for (place, percent) in one.to.iter().filter(|(_, percent)| !(1..=100).contains(&percent.0)) {
        let what = format!("{} is not a share; write 1 to 100, or leave the place out", percent.0);
        report.error(format!("{field}.to.{place}"), what);
    }
    if sum != 100 {
        report.error(format!("{field}.to"), format!("the shares add up to {sum}, not to 100"));
    }
    let names = one.to.keys().map(|place| (format!("{field}.to"), place.as_str()));
    places(names.collect(), report);
}

/// Checks each place, and that none lies within another.
fn places(all: Vec<(String, &str)>, report: &mut Report<'_>) {
    for (index, (field, place)) in all.iter().enumerate() {
        let parts: Vec<_> = place.split('/').collect();
        let early = parts.iter().rev().skip(1).any(|part| *part == "*");
        if parts.len() > 3 || early || parts.iter().any(|part| part.is_empty()) {
            let what = format!("\"{place}\" is not a place; write region/zone/subzone, whose end may be *");
            report.error(field, what);
        } else if let Some((_, other)) = all[..index].iter().find(|(_, other)| overlap(place, other)) {
            report.error(field, format!("{place} and {other} overlap; each place may stand once"));
        }
    }
}

/// Whether one place lies within the other.
fn overlap(one: &str, other: &str) -> bool {
    let parts =
        |place: &'_ str| place.split('/').filter(|part| *part != "*").map(str::to_owned).collect::<Vec<_>>();
    parts(one).iter().zip(&parts(other)).all(|(one, other)| one == other)
}
