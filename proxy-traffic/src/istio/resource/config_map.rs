//! ConfigMap `istio`: the mesh's own settings, YAML inside a string.

use serde::Deserialize;
use serde_yaml::Value;

use crate::istio::scalar::{Present, Span};

/// What stands under the key `mesh`. Istio reads it over its defaults, and what it says takes the place of the default
/// as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MeshConfig {
    /// None: `ALLOW_ANY`.
    pub(crate) outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// How long connecting may take when no DestinationRule says.
    pub(crate) connect_timeout: Option<Span>,
    /// Where the mesh's own resources live: for Shunt a setting decides.
    pub(crate) root_namespace: Option<String>,
}

/// What may be reached that no listener takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct OutboundTrafficPolicy {
    /// None: zero of the enumeration, which is `REGISTRY_ONLY`; the default of a policy that is not there at all is
    /// another.
    pub(crate) mode: Option<Mode>,
    pub(crate) egress_proxy: Present,
}

/// Mode of an [`OutboundTrafficPolicy`], by name or number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) enum Mode {
    /// What listeners take, and nothing else.
    #[default]
    RegistryOnly,
    /// Everything.
    AllowAny,
    /// Everything; Istio looks up names by itself.
    AllowAnyDynamicDns,
}

impl TryFrom<Value> for Mode {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let shown = serde_yaml::to_string(&value).unwrap_or_default();
        let name = value.as_str().unwrap_or_else(|| shown.trim());
        Ok(match name {
            "REGISTRY_ONLY" | "0" => Self::RegistryOnly,
            "ALLOW_ANY" | "1" => Self::AllowAny,
            "ALLOW_ANY_DYNAMIC_DNS" => Self::AllowAnyDynamicDns,
            _ => return Err(format!("\"{name}\" is not a mode; write ALLOW_ANY or REGISTRY_ONLY")),
        })
    }
}
