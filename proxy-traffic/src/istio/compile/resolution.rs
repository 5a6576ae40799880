//! How the endpoints of a ServiceEntry are found, and which names have to be looked up for that.

use std::net::IpAddr;

use crate::{
    Lookup,
    istio::resource::{Item, ServiceEntry},
};

/// `resolution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Addresses are written down, or those of workloads.
    #[default]
    Static,
    /// Names are looked up: every address serves.
    Dns,
    /// The same, but only the first address serves.
    DnsRoundRobin,
    /// Nothing is found: connections go to the address that the client dialled.
    None,
    /// The name is what the client says first.
    Dynamic,
}

impl Resolution {
    /// What `spec` says; nothing means NONE, as in Istio.
    pub(super) fn of(spec: &ServiceEntry) -> Self {
        match spec.resolution.as_deref() {
            Some("STATIC") => Self::Static,
            Some("DNS") => Self::Dns,
            Some("DNS_ROUND_ROBIN") => Self::DnsRoundRobin,
            Some("DYNAMIC_DNS") => Self::Dynamic,
            _ => Self::None,
        }
    }

    /// Whether names are looked up for it.
    pub(super) fn looks_up(self) -> bool {
        matches!(self, Self::Dns | Self::DnsRoundRobin)
    }

    /// Whether its endpoints are known before a client speaks.
    pub(super) fn has_endpoints(self) -> bool {
        self == Self::Static || self.looks_up()
    }
}

/// The names that stand for endpoints of `host`, one of the hosts of `spec`: those of its endpoints, else its own.
pub(super) fn names(spec: &ServiceEntry, host: &str) -> Vec<String> {
    if !Resolution::of(spec).looks_up() {
        return Vec::new();
    }
    if spec.endpoints.is_empty() {
        let stands_for_itself = !host.starts_with('*') && spec.workload_selector.is_none();
        return stands_for_itself.then(|| host.to_ascii_lowercase()).into_iter().collect();
    }
    let is_name = |address: &&String| !address.is_empty() && address.parse::<IpAddr>().is_err();
    let addresses = spec.endpoints.iter().map(|endpoint| &endpoint.address);
    addresses.filter(is_name).map(|name| name.to_ascii_lowercase()).collect()
}

/// How the names of `item` are looked up.
pub(super) fn lookup(item: &Item<ServiceEntry>) -> Lookup {
    Lookup {
        external: is_external(&item.spec),
        allowed: item.spec.addresses.iter().map(|net| net.0).collect(),
    }
}

/// Istio's default is MESH_EXTERNAL.
pub(super) fn is_external(spec: &ServiceEntry) -> bool {
    spec.location.as_deref() != Some("MESH_INTERNAL")
}

/// `exportTo` as namespaces; `None`: everybody sees it.
pub(super) fn exported(item: &Item<ServiceEntry>) -> Option<std::collections::BTreeSet<String>> {
    let all = &item.spec.export_to;
    if all.is_empty() || all.iter().any(|one| one == "*") {
        return None;
    }
    let own = item.key.namespace.clone();
    let namespace = |one: &String| match one.as_str() {
        "." => Some(own.clone()),
        "~" => None,
        other => Some(other.to_owned()),
    };
    Some(all.iter().filter_map(namespace).collect())
}
