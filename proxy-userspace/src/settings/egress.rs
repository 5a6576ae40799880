//! What an operator sets of egress and of names.

use std::net::{IpAddr, SocketAddr};

/// What a connection meets that may not leave (`outboundTrafficPolicy` REGISTRY_ONLY).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Blocked {
    /// It is accepted and closed, as Istio's sidecar does.
    #[default]
    Close,
    /// `ECONNREFUSED`.
    Refuse,
}

/// Whether something is done at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// It is.
    #[default]
    On,
    /// It is not.
    Off,
}

/// Which addresses of a name are used; the words are Envoy's (`dns_lookup_family`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LookupFamily {
    /// IPv6 only where there is no IPv4.
    #[default]
    V4Preferred,
    /// IPv4 alone.
    V4Only,
    /// IPv6 alone.
    V6Only,
    /// IPv4 only where there is no IPv6.
    V6Preferred,
    /// Both. Listeners that have endpoints of both families are steered.
    All,
}

/// The part of the arguments of `shunt run` that is about egress and names.
#[derive(Clone, Debug, clap::Args)]
pub struct EgressSettings {
    /// Namespace of the ConfigMap `istio`, and of the Sidecar that is everybody's
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    pub root_namespace: String,
    /// What a connection meets that REGISTRY_ONLY forbids: `close` (Istio's way) accepts it and closes it, `refuse` is
    /// ECONNREFUSED; the annotation shunt.dev/egress-blocked says otherwise
    #[arg(
        long,
        value_name = "close|refuse",
        default_value = "close",
        value_enum,
        hide_possible_values = true
    )]
    pub egress_blocked: Blocked,
    /// Status that a forbidden HTTP request is answered with: 502, or 404 as Istio 1.1 did
    #[arg(long, value_name = "502|404", default_value = "502", value_parser = status)]
    pub http_blocked_status: u16,
    /// Whether workloads' name queries are answered with the mesh's addresses; without, only `shunt exec` knows its names
    #[arg(long, value_name = "on|off", default_value = "on", value_enum, hide_possible_values = true)]
    pub dns: Switch,
    /// DNS server that looks up the names of ServiceEntries, its port 53 unless told otherwise; may be repeated; those of
    /// /etc/resolv.conf when absent
    #[arg(long = "resolver", value_name = "IP[:PORT]", value_parser = resolver)]
    pub resolvers: Vec<SocketAddr>,
    /// Which of a name's addresses become endpoints: `v4-preferred`, `v4-only`, `v6-only`, `v6-preferred`, `all`
    #[arg(
        long,
        value_name = "FAMILY",
        default_value = "v4-preferred",
        value_enum,
        hide_possible_values = true
    )]
    pub dns_lookup_family: LookupFamily,
}

fn status(text: &str) -> Result<u16, String> {
    match text {
        "502" => Ok(502),
        "404" => Ok(404),
        _ => Err("write 502 or 404".to_owned()),
    }
}

fn resolver(text: &str) -> Result<SocketAddr, String> {
    let plain = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    text.parse().or_else(|_| plain()).map_err(|_| "write an IP address, or IP:PORT".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_serves_on_port_53_unless_told_otherwise() {
        for (text, want) in [
            ("10.0.0.1", Some("10.0.0.1:53")),
            ("10.0.0.1:5353", Some("10.0.0.1:5353")),
            ("2001:db8::1", Some("[2001:db8::1]:53")),
            ("[2001:db8::1]:54", Some("[2001:db8::1]:54")),
            ("dns.example", None),
            ("", None),
        ] {
            assert_eq!(resolver(text).ok(), want.map(|want| want.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn forbidden_requests_get_one_of_istios_answers() {
        assert_eq!((status("502"), status("404")), (Ok(502), Ok(404)));
        assert!(status("503").is_err());
    }
}
