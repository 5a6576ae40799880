//! Blocks of a traffic policy → what a cluster does, with Istio's defaults filled in.

use std::time::Duration;

use crate::{
    Balancing, Keepalive, Limit, LimitScope, OutlierDetection,
    istio::{
        resource::{self, Annotations, LoadBalancer, TcpSettings},
        scalar::{Count, Span},
    },
};

use super::blocks::Blocks;

/// Failures in a row that eject where nobody said how many.
const CONSECUTIVE: u32 = 5;
/// `interval` where nobody said.
const INTERVAL: Duration = Duration::from_secs(10);
/// `baseEjectionTime` where nobody said.
const BASE_EJECTION: Duration = Duration::from_secs(30);
/// `maxEjectionPercent` where nobody said.
const MAX_EJECTION_PERCENT: u32 = 10;

/// How endpoints are chosen: `LEAST_REQUEST` where nothing is said.
pub(super) fn balancing(blocks: &Blocks<'_>) -> Balancing {
    blocks.balancer.map_or(Balancing::LeastRequest, |block| choice(block.value))
}

fn choice(balancer: &LoadBalancer) -> Balancing {
    if balancer.consistent_hash.as_ref().is_some_and(|hash| hash.use_source_ip) {
        return Balancing::SourceHash;
    }
    match balancer.simple.as_deref() {
        Some("RANDOM") => Balancing::Random,
        Some("ROUND_ROBIN") => Balancing::RoundRobin,
        Some("PASSTHROUGH") => Balancing::OriginalDestination,
        _ => Balancing::LeastRequest,
    }
}

/// How long connecting may take, where somebody said.
pub(super) fn connect_timeout(blocks: &Blocks<'_>) -> Option<Duration> {
    Some(tcp(blocks)?.connect_timeout?.0)
}

/// `tcpKeepalive`; the block without any field turns it on as the system does it.
pub(super) fn keepalive(blocks: &Blocks<'_>) -> Option<Keepalive> {
    let said = tcp(blocks)?.tcp_keepalive?;
    Some(Keepalive {
        time: said.time.map(|time| time.0),
        interval: said.interval.map(|interval| interval.0),
        probes: enabled(said.probes),
    })
}

/// `maxConnections`, counted as the rule's annotation says.
pub(super) fn limit(blocks: &Blocks<'_>) -> Option<Limit> {
    let max_connections = enabled(tcp(blocks)?.max_connections)?;
    let said = blocks.pool?.place.rule.metadata.annotations.get(Annotations::LIMIT_SCOPE);
    let scope = match said {
        Some("node") => LimitScope::Node,
        Some("endpoint") => LimitScope::Endpoint,
        _ => LimitScope::Workload,
    };
    Some(Limit { max_connections, scope })
}

fn tcp(blocks: &Blocks<'_>) -> Option<TcpSettings> {
    blocks.pool?.value.tcp
}

/// `outlierDetection`; `None` where nothing ejects.
pub(super) fn outlier(blocks: &Blocks<'_>) -> Option<OutlierDetection> {
    let said = blocks.outlier?.value;
    let duration = |said: Option<Span>, default| said.map_or(default, |span| span.0);
    Some(OutlierDetection {
        consecutive: consecutive(said)?,
        interval: duration(said.interval, INTERVAL),
        base_ejection: duration(said.base_ejection_time, BASE_EJECTION),
        max_ejection_percent: match said.max_ejection_percent.0 {
            0 => MAX_EJECTION_PERCENT,
            percent => percent,
        },
        min_health_percent: said.min_health_percent.0,
    })
}

/// Failures in a row that eject. A failure to connect is both a 5xx and a gateway error, unless failures on the way
/// are counted apart. A count of 0 never ejects; Istio takes it for nothing said in the two fields without an off.
fn consecutive(said: &resource::OutlierDetection) -> Option<u32> {
    if said.split_external_local_origin_errors {
        return enabled(said.consecutive_local_origin_failures).or(Some(CONSECUTIVE));
    }
    let (five, gateway) = (said.consecutive_5xx_errors, said.consecutive_gateway_errors);
    // Up to Istio 1.6 this one field meant gateway errors, and nothing else ejected.
    let old = enabled(said.consecutive_errors).filter(|_| five.is_none() && gateway.is_none());
    let five = five.map_or(Some(CONSECUTIVE), |count| enabled(Some(count)));
    old.or_else(|| [five, enabled(gateway)].into_iter().flatten().min())
}

/// A count where 0 means none.
fn enabled(count: Option<Count>) -> Option<u32> {
    count.map(|count| count.0).filter(|count| *count > 0)
}
