//! What a port speaks, as far as the choice of rules depends on it.

/// Classes of protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Opaque: `tcp` rules apply. Also what nobody named.
    Tcp,
    /// HTTP in clear: `http` rules apply.
    Http,
    /// TLS from the first byte: `tls` rules apply.
    Tls,
    /// Not proxied.
    Datagram,
}

impl Protocol {
    /// Of a Kubernetes port: `appProtocol`, else the name's part before the first `-`.
    pub(super) fn of_service(transport: Option<&str>, app_protocol: Option<&str>, name: &str) -> Self {
        match transport {
            None | Some("TCP" | "") => Self::named(app_protocol.unwrap_or_else(|| prefix(name))),
            Some(_) => Self::Datagram,
        }
    }

    /// Of a ServiceEntry's port: `protocol`, else as its name says.
    pub(super) fn of_entry(protocol: &str, name: &str) -> Self {
        Self::named(if protocol.is_empty() { prefix(name) } else { protocol })
    }

    fn named(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "http" | "http2" | "grpc" | "grpc-web" | "http_proxy" | "h2c" => Self::Http,
            "kubernetes.io/h2c" | "kubernetes.io/ws" => Self::Http,
            "https" | "tls" | "kubernetes.io/wss" => Self::Tls,
            "udp" => Self::Datagram,
            _ => Self::Tcp,
        }
    }
}

/// What stands before the first `-`; `grpc-web` is as good as `grpc`.
fn prefix(name: &str) -> &str {
    name.split_once('-').map_or(name, |(word, _)| word)
}
