//! Names of hosts: short and full ones, wildcards, and which covers which.

use std::net::IpAddr;

/// The full name of `host` as a resource of `namespace` writes it. Anything with a dot is taken literally.
pub(crate) fn resolve(host: &str, namespace: &str, cluster_domain: &str) -> String {
    let host = host.to_ascii_lowercase();
    if host.contains('.') || host.starts_with('*') || host.parse::<IpAddr>().is_ok() {
        return host;
    }
    service(&host, namespace, cluster_domain)
}

/// The full name of a Kubernetes service.
pub(crate) fn service(name: &str, namespace: &str, cluster_domain: &str) -> String {
    format!("{name}.{namespace}.svc.{cluster_domain}").to_ascii_lowercase()
}

/// Whether every name that fits `host` fits `pattern`: `*.foo.com` covers a.foo.com and *.a.foo.com, never
/// foo.com.
pub(crate) fn covers(pattern: &str, host: &str) -> bool {
    let rest = host.strip_prefix('*').unwrap_or(host);
    let within = |tail: &str| rest.len() > tail.len() && rest.ends_with(tail);
    pattern == host || pattern.strip_prefix('*').is_some_and(within)
}

/// Whether some name fits both.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    covers(one, other) || covers(other, one)
}

/// What is wrong with `host` as a name that may be a wildcard.
pub(crate) fn fault(host: &str) -> Option<String> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    if host.is_empty() {
        Some("is empty; write a host".to_owned())
    } else if host == "*" || host.parse::<IpAddr>().is_ok() {
        None
    } else if name.contains('*') {
        Some(format!("\"{host}\": a wildcard stands alone or as the first label, as in *.example.com"))
    } else if name.split('.').all(is_label) {
        None
    } else {
        Some(format!("\"{host}\" is not a host name; write letters, digits, - and dots"))
    }
}

/// Whether `text` is one label of a name (RFC 1123), without regard to case.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let edges = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    text.len() <= 63 && edges && text.chars().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_what_is_longer_and_ends_alike() {
        for (pattern, host, want) in [
            ("*", "a", true),
            ("*", "*", true),
            ("*", "*.foo.com", true),
            ("*.foo.com", "a.foo.com", true),
            ("*.foo.com", "a.b.foo.com", true),
            ("*.foo.com", "*.b.foo.com", true),
            ("*.foo.com", "foo.com", false),
            ("*.foo.com", "*", false),
            ("*.foo.com", "xfoo.com", false),
            ("a.foo.com", "*.foo.com", false),
            ("a.foo.com", "a.foo.com", true),
        ] {
            assert_eq!(covers(pattern, host), want, "{pattern} {host}");
        }
    }

    #[test]
    fn a_name_with_a_dot_is_taken_literally() {
        for (host, want) in [
            ("Reviews", "reviews.prod.svc.cluster.local"),
            ("reviews.other", "reviews.other"),
            ("*", "*"),
            ("::1", "::1"),
        ] {
            assert_eq!(resolve(host, "prod", "cluster.local"), want);
        }
    }
}
