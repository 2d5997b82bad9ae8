//! TLS of the fleet's server: its own short-lived certificate, and client certificates of the fleet's CA.

use std::sync::{Arc, PoisonError, RwLock};

use ballast_bundle::UnixMillis;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::ca::{self, Authority, CaError};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// rustls.
    #[error("TLS could not be set up: {0}")]
    Setup(String),
}

/// Accepts what webpki accepts, and certificates of our CA whose time is over: a gateway that was off for months renews
/// with its key. Who may do what with an expired certificate is for the handlers.
#[derive(Debug)]
struct OurGateways {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for OurGateways {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.inner.verify_client_cert(end_entity, intermediates, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => {
                let expires = ca::peer(end_entity)
                    .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?
                    .expires;
                // Everything else about it (signature, purpose, chain) must hold at its last second.
                let then = UnixTime::since_unix_epoch(std::time::Duration::from_millis(expires.0));
                self.inner.verify_client_cert(end_entity, intermediates, then)
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false // /v1/enroll has none yet; every other handler asks for it
    }
}

/// The server's certificate, replaced while it serves.
#[derive(Debug)]
pub(crate) struct ServerCertificate {
    current: RwLock<Arc<CertifiedKey>>,
    provider: Arc<CryptoProvider>,
    hosts: Vec<String>,
}

impl ServerCertificate {
    fn make(
        authority: &Authority,
        provider: &CryptoProvider,
        hosts: &[String],
        now: UnixMillis,
    ) -> Result<Arc<CertifiedKey>, TlsError> {
        let (certificate, key) = authority.server(hosts, now)?;
        let chain = vec![certificate, authority.certificate().clone()];
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|e| TlsError::Setup(e.to_string()))?;
        Ok(Arc::new(key))
    }

    /// Makes a new key and certificate; connections from now on get it.
    pub(crate) fn renew(&self, authority: &Authority, now: UnixMillis) -> Result<(), TlsError> {
        let fresh = Self::make(authority, &self.provider, &self.hosts, now)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The server's TLS configuration, and the handle by which its certificate is renewed.
pub(crate) fn server_config(
    authority: &Authority,
    hosts: &[String],
    now: UnixMillis,
) -> Result<(ServerConfig, Arc<ServerCertificate>), TlsError> {
    let setup = |e: &dyn std::fmt::Display| TlsError::Setup(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).map_err(|e| setup(&e))?;
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|e| setup(&e))?;
    let certificate = Arc::new(ServerCertificate {
        current: RwLock::new(ServerCertificate::make(authority, &provider, hosts, now)?),
        provider: Arc::clone(&provider),
        hosts: hosts.to_vec(),
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| setup(&e))?
        .with_client_cert_verifier(Arc::new(OurGateways { inner }))
        .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, certificate))
}
