//! TLS to the fleet's server: at enrolment its CA is the one whose digest the token pins, later the one kept with the identity.

use std::sync::Arc;

use ballast_bundle::Digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::time::Clock;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the certificates kept with the identity cannot be read; enrol again: {0}")]
    Pem(String),
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

/// ring, the one provider of this program.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// For enrolment: no certificate of our own yet, and a server whose chain ends in the pinned CA.
pub(crate) fn pinned(ca: Digest, clock: Arc<Clock>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let config = ClientConfig::builder_with_details(Arc::clone(&provider), clock)
        .with_safe_default_protocol_versions()?
        .dangerous() // rustls' name for a verifier of one's own; it does what webpki does, with a root found by digest
        .with_custom_certificate_verifier(Arc::new(Server { chain: Chain::Pinned(ca), provider }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// For everything after: mutual TLS.
pub(crate) fn mutual(
    ca: &[String],
    certificate: &str,
    key: &str,
    clock: Arc<Clock>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for pem in ca {
        for certificate in certificates(pem)? {
            roots.add(certificate)?;
        }
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| TlsError::Pem(e.to_string()))?;
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|e| TlsError::Pem(e.to_string()))?;
    let config = ClientConfig::builder_with_details(provider(), Arc::clone(&clock) as _)
        .with_safe_default_protocol_versions()?
        .dangerous() // as above: webpki's verifier, asked for two times
        .with_custom_certificate_verifier(Arc::new(Server {
            chain: Chain::Known { chain, clock },
            provider: provider(),
        }))
        .with_client_auth_cert(certificates(certificate)?, key)?;
    Ok(Arc::new(config))
}

/// All certificates of a PEM text.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|e| TlsError::Pem(e.to_string()))?;
    if all.is_empty() { Err(TlsError::Pem("there is no certificate".to_owned())) } else { Ok(all) }
}

/// Who the server must be.
#[derive(Debug)]
enum Chain {
    /// Whoever has a certificate of the CA with this digest, which the server sends along.
    Pinned(Digest),
    /// Whoever has a certificate of the trust root's CA, valid at the gateway's time or, if that is past its end, by the
    /// machine's own clock. An operator whose clock once was years ahead has signed that time into a pointer; without this no
    /// gateway that saw it could ever hear that the clock was put right, since every certificate would have expired. What is
    /// signed is checked by its own rules.
    Known { chain: Arc<WebPkiServerVerifier>, clock: Arc<Clock> },
}

#[derive(Debug)]
struct Server {
    chain: Chain,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Server {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let at = |chain: &WebPkiServerVerifier, now| {
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        match &self.chain {
            Chain::Pinned(digest) => {
                let ca = intermediates
                    .iter()
                    .find(|c| Digest::of(c) == *digest)
                    .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
                let mut roots = RootCertStore::empty();
                roots.add(ca.clone().into_owned())?;
                let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
                at(&*chain.build().map_err(|e| rustls::Error::General(e.to_string()))?, now)
            }
            Chain::Known { chain, clock } => match (at(chain, now), clock.behind()) {
                (
                    Err(rustls::Error::InvalidCertificate(
                        CertificateError::Expired | CertificateError::ExpiredContext { .. },
                    )),
                    Some(own),
                ) => at(chain, UnixTime::since_unix_epoch(std::time::Duration::from_millis(own.0))),
                (verified, _) => verified,
            },
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
