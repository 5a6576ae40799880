//! Certificates for the internet's hosts, signed by an authority that exists for one story.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::Zone;

/// Who signs. A host has a certificate if its name exists.
#[derive(Debug)]
pub(super) struct Authority {
    /// What clients must trust, as text and as bytes.
    pub(super) pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    zone: Arc<Zone>,
}

impl Authority {
    pub(super) fn new(zone: &Arc<Zone>) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "authority of the tests");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let (pem, certificate) = (certificate.pem(), certificate.der().clone());
        Self { pem, certificate, issuer: Issuer::new(params, key), zone: zone.clone() }
    }

    /// What a server needs that has all the hosts' certificates.
    pub(super) fn server(self: &Arc<Self>) -> Arc<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("ring has ciphers").with_no_client_auth();
        Arc::new(config.with_cert_resolver(self.clone()))
    }

    /// A client that is about to greet `name`, and offers `protocols` protocols that nobody knows, 100 bytes each.
    pub(super) fn client(&self, name: &str, protocols: usize) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config =
            config.expect("ring has ciphers").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = (0..protocols).map(|number| format!("{number:099}").into_bytes()).collect();
        let name = ServerName::try_from(name.to_owned()).expect("a host name");
        ClientConnection::new(Arc::new(config), name).expect("a client")
    }

    fn certify(&self, name: &str) -> CertifiedKey {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a host name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let secret = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let secret = ring::sign::any_supported_type(&secret).expect("a key that signs");
        CertifiedKey::new(vec![certificate.der().clone()], secret)
    }
}

impl ResolvesServerCert for Authority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?;
        self.zone.has(name).then(|| Arc::new(self.certify(name)))
    }
}
