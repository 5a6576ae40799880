//! What to say of a field that is in the YAML and not in our types: not served yet, or not a field at all.
//!
//! The tables hold the names that a kind's objects know, by the name of the field that holds the object.

use super::{problem::Report, resource::Kind};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `.name`
    Field(String),
    /// `[3]`
    Index(usize),
}

/// An object of a kind: the field that holds it, names that are served or of no consequence, names that are
/// not served yet.
type Object = (&'static str, &'static str, &'static str);

const WORKLOAD: Object = ("", "address ports labels weight locality serviceAccount", "network");

const VIRTUAL_SERVICE: &[Object] = &[
    ("", "hosts gateways tcp http tls exportTo", ""),
    ("tcp", "match route", ""),
    ("match", "destinationSubnets port sourceSubnet sourceLabels sourceNamespace gateways", ""),
    ("route", "destination weight", ""),
    ("destination", "host subset port", ""),
    ("port", "number", ""),
];
const DESTINATION_RULE: &[Object] = &[
    ("", "host subsets trafficPolicy exportTo", "workloadSelector"),
    ("subsets", "name labels trafficPolicy", ""),
    (
        "trafficPolicy",
        "loadBalancer connectionPool outlierDetection portLevelSettings",
        "tls tunnel proxyProtocol retryBudget",
    ),
    ("portLevelSettings", "port loadBalancer connectionPool outlierDetection", "tls"),
    (
        "loadBalancer",
        "simple consistentHash localityLbSetting zoneAwareLbSetting",
        "warmup warmupDurationSecs",
    ),
    (
        "consistentHash",
        "useSourceIp maglev ringHash minimumRingSize httpHeaderName httpCookie httpQueryParameterName",
        "",
    ),
    ("maglev", "tableSize", ""),
    ("ringHash", "minimumRingSize", ""),
    ("localityLbSetting", "enabled distribute failover failoverPriority", ""),
    ("distribute", "from to", ""),
    ("connectionPool", "tcp", "http"),
    ("tcp", "maxConnections connectTimeout tcpKeepalive", "maxConnectionDuration idleTimeout"),
    ("tcpKeepalive", "probes time interval", ""),
    (
        "outlierDetection",
        "consecutiveErrors consecutive5xxErrors consecutiveGatewayErrors splitExternalLocalOriginErrors \
         consecutiveLocalOriginFailures interval baseEjectionTime maxEjectionPercent minHealthPercent",
        "outlierDetectionHttpErrorCodes",
    ),
    ("port", "number", ""),
];
const SERVICE_ENTRY: &[Object] = &[
    ("", "hosts addresses ports location resolution endpoints workloadSelector exportTo", "subjectAltNames"),
    ("ports", "number name protocol targetPort", ""),
    ("endpoints", WORKLOAD.1, WORKLOAD.2),
    ("workloadSelector", "labels", ""),
];
const GATEWAY: &[Object] = &[
    ("", "selector servers", ""),
    ("servers", "port bind hosts name", "tls defaultEndpoint"),
    ("port", "number name protocol", "targetPort"),
];
const SERVICE: &[Object] = &[
    (
        "",
        "ports selector clusterIP clusterIPs type publishNotReadyAddresses sessionAffinity externalName ipFamilies \
         ipFamilyPolicy internalTrafficPolicy externalTrafficPolicy healthCheckNodePort loadBalancerClass \
         allocateLoadBalancerNodePorts loadBalancerIP loadBalancerSourceRanges sessionAffinityConfig",
        "externalIPs trafficDistribution",
    ),
    ("ports", "name port protocol targetPort appProtocol nodePort", ""),
];

const SIDECAR: &[Object] = &[
    ("", "workloadSelector outboundTrafficPolicy egress ingress inboundConnectionPool", ""),
    ("workloadSelector", "labels", ""),
    ("outboundTrafficPolicy", "mode egressProxy", ""),
];
const MESH_CONFIG: &[Object] = &[
    (
        "",
        "outboundTrafficPolicy connectTimeout rootNamespace",
        "proxyHttpPort protocolDetectionTimeout tcpKeepalive accessLogFile accessLogFormat accessLogEncoding \
         enableEnvoyAccessLogService disableEnvoyListenerLog inboundTrafficPolicy configSources caCertificates \
         defaultServiceExportTo defaultVirtualServiceExportTo defaultDestinationRuleExportTo localityLbSetting \
         h2UpgradePolicy inboundClusterStatName outboundClusterStatName certificates thriftConfig serviceSettings \
         verifyCertificateAtClient ca discoverySelectors pathNormalization defaultHttpRetryPolicy meshMTLS tlsDefaults \
         serviceScopeConfigs defaultTrafficPolicy serviceEntryVisibility mixerCheckServer mixerReportServer \
         enableClientSidePolicyCheck policyCheckFailOpen sidecarToTelemetrySessionAffinity authPolicy \
         enableSidecarInjection",
    ),
    ("outboundTrafficPolicy", "mode egressProxy", ""),
];
/// Fields of MeshConfig that every installation has, and that are about what Shunt does without.
const MESH_IDLE: &str = "defaultConfig defaultProviders extensionProviders enablePrometheusMerge enableAutoMtls \
     enableTracing trustDomain trustDomainAliases ingressClass ingressService ingressControllerMode ingressSelector \
     dnsRefreshRate proxyListenPort proxyInboundListenPort disablePolicyChecks disableMixerHttpReports \
     reportBatchMaxEntries reportBatchMaxTime sdsUdsPath sdsRefreshDelay enableSdsTokenMount sdsUseK8sSaJwt";

/// Reports the fields at `paths`, which nobody read.
pub(crate) fn all_unread(kind: Kind, paths: &[Vec<Step>], report: &mut Report<'_>) {
    let is_idle = |path: &&Vec<Step>| {
        let known = |name: &str| MESH_IDLE.split(' ').any(|idle| idle == name);
        kind == Kind::ConfigMap && matches!(path.as_slice(), [Step::Field(name)] if known(name))
    };
    let (idle, others): (Vec<_>, Vec<_>) = paths.iter().partition(is_idle);
    others.into_iter().for_each(|path| unread(kind, path, report));
    if !idle.is_empty() {
        let names: Vec<_> = idle.into_iter().map(|path| shown(path)).collect();
        let what =
            format!("{} are about sidecars and their certificates, and have no effect", names.join(", "));
        report.warn("", what);
    }
}

/// Reports the field at `path`, which nobody read.
fn unread(kind: Kind, path: &[Step], report: &mut Report<'_>) {
    let objects = match kind {
        Kind::VirtualService => VIRTUAL_SERVICE,
        Kind::DestinationRule => DESTINATION_RULE,
        Kind::ServiceEntry => SERVICE_ENTRY,
        Kind::WorkloadEntry => &[WORKLOAD],
        Kind::Gateway => GATEWAY,
        Kind::Service => SERVICE,
        Kind::Sidecar => SIDECAR,
        Kind::ConfigMap => MESH_CONFIG,
        // A Pod is full of what routing does not ask for.
        Kind::Pod => return,
    };
    let mut names = path.iter().rev().filter_map(|step| match step {
        Step::Field(name) => Some(name.as_str()),
        Step::Index(_) => None,
    });
    let (name, parent) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    let (_, served, unserved) =
        objects.iter().find(|(holder, ..)| *holder == parent).unwrap_or(&("", "", ""));
    if served.split(' ').any(|known| known == name) {
        return;
    }
    let what = if unserved.split(' ').any(|known| known == name) {
        "is not served yet and has no effect".to_owned()
    } else {
        unknown(kind, name, served.split(' ').chain(unserved.split(' ')))
    };
    report.warn(shown(path), what);
}

/// `is not a field of KIND`, with the known name that it resembles.
fn unknown<'a>(kind: Kind, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known.map(|one| (distance(name, one), one)).min();
    let holder = if kind == Kind::ConfigMap { "MeshConfig" } else { kind.as_str() };
    let what = format!("is not a field of {holder} and has no effect");
    match near {
        Some((edits, one)) if edits <= 2 && edits * 2 < one.len() => format!("{what}; did you mean {one}?"),
        _ => what,
    }
}

/// `tcp[0].route[1].weight`.
pub(crate) fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) if text.is_empty() => text.push_str(name),
            Step::Field(name) => text.extend([".", name]),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// How many letters to insert, remove or replace to turn `from` into `to` (Levenshtein), without regard to case.
fn distance(from: &str, to: &str) -> usize {
    let (from, to) = (from.to_lowercase(), to.to_lowercase());
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_letters() {
        for (from, to, want) in
            [("host", "hosts", 1), ("wieght", "weight", 2), ("", "abc", 3), ("Ports", "ports", 0)]
        {
            assert_eq!(distance(from, to), want, "{from} {to}");
        }
    }
}
