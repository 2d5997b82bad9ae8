//! The fleet's certificate authority: it signs the server's certificate and one certificate per gateway.
//!
//! A gateway's certificate carries its identity and its labels as given at enrolment, in a URI
//! (`ballast://FLEET/NAMESPACE/GATEWAY?label=value&…`): when the gateway store is lost, the certificate that a gateway
//! presents is the signed record from which its row is made again.

use std::time::Duration;

use ballast_bundle::{Digest, FleetId, GatewayId, NamespaceUid, UnixMillis};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::labels::{self, Labels};

/// Ten years: the CA is pinned in every token and root; it changes only with a new root version.
const CA_LIFE: Duration = Duration::from_hours(24 * 3652);
/// How long the server's own certificate lives; it is made anew at every start and at two thirds of this.
pub const SERVER_LIFE: Duration = Duration::from_hours(24 * 90);
/// How long a gateway's certificate lives unless the installation says otherwise.
pub const GATEWAY_LIFE: Duration = Duration::from_hours(24 * 90);
/// Clocks of gateways may be behind by this much.
const SKEW: Duration = Duration::from_hours(24);
/// A PKCS#10 request for a P-256 key is about 500 bytes; names in it may add some.
const MAX_CSR: usize = 8 << 10;

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The CA's own files.
    #[error("the CA's {what} cannot be used: {source}; restore it from the backup")]
    Broken {
        /// `key` or `certificate`.
        what: &'static str,
        /// Why. In the sentence, so no `source()` besides.
        r#source: rcgen::Error,
    },
    /// The request of a gateway.
    #[error(
        "the certificate request is not usable: {0}; send PKCS#10 in PEM for an ECDSA P-256 key, signed by that key"
    )]
    Csr(String),
    /// Signing failed.
    #[error("a certificate could not be made: {0}")]
    Sign(rcgen::Error),
    /// A peer's certificate is not one of ours.
    #[error("the client certificate does not name a gateway of this fleet: {0}")]
    Peer(String),
}

/// Who a gateway is, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The fleet it was enrolled in.
    pub fleet: FleetId,
    /// The namespace of its token.
    pub namespace: NamespaceUid,
    /// Its id.
    pub gateway: GatewayId,
    /// Labels given at enrolment.
    pub labels: Labels,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub key: Digest,
    /// End of the certificate's life.
    pub expires: UnixMillis,
}

/// A checked certificate request: the key is proven, the names are dropped.
pub struct Request {
    key: rcgen::PublicKey,
    digest: Digest,
}

impl Request {
    /// Reads PEM and verifies the request's signature by its own key.
    pub fn from_pem(pem: &str) -> Result<Self, CaError> {
        if pem.len() > MAX_CSR {
            return Err(CaError::Csr(format!("longer than {MAX_CSR} bytes")));
        }
        let parsed = CertificateSigningRequestParams::from_pem(pem).map_err(|e| CaError::Csr(e.to_string()))?;
        if parsed.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::Csr("the key is not ECDSA P-256".into()));
        }
        let digest = Digest::of(&parsed.public_key.subject_public_key_info());
        Ok(Self { key: parsed.public_key, digest })
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what makes enrolment idempotent.
    pub const fn key(&self) -> Digest {
        self.digest
    }
}

/// The CA.
pub struct Authority {
    fleet: FleetId,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
}

impl Authority {
    /// Makes a new key and its certificate; returns both as PEM. Only ever called at an installation's first start.
    pub fn generate(fleet: &FleetId, now: UnixMillis) -> Result<(String, String), CaError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(CaError::Sign)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("Ballast fleet {fleet}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, now, CA_LIFE);
        let certificate = params.self_signed(&key).map_err(CaError::Sign)?;
        Ok((key.serialize_pem(), certificate.pem()))
    }

    /// Loads what [`Authority::generate`] made.
    pub fn from_pem(fleet: FleetId, key_pem: &str, certificate_pem: &str) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(key_pem).map_err(|source| CaError::Broken { what: "key", source })?;
        let broken = |source| CaError::Broken { what: "certificate", source };
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| broken(rcgen::Error::CouldNotParseCertificate))?;
        // A certificate for another key would make every certificate that it signs useless.
        let spki = spki_digest(&certificate).map_err(|_| broken(rcgen::Error::CouldNotParseCertificate))?;
        if spki != Digest::of(&key.subject_public_key_info()) {
            return Err(broken(rcgen::Error::RemoteKeyError));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(broken)?;
        Ok(Self { fleet, issuer, certificate, certificate_pem: certificate_pem.to_owned() })
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA's certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of the CA's certificate (DER): what a token pins.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.certificate)
    }

    /// The fleet.
    pub const fn fleet(&self) -> &FleetId {
        &self.fleet
    }

    /// A fresh key and certificate for the server, for the given DNS names and addresses.
    pub fn server(
        &self,
        hosts: &[String],
        now: UnixMillis,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), CaError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(CaError::Sign)?;
        let mut params = CertificateParams::new(hosts.to_vec()).map_err(CaError::Sign)?;
        params.distinguished_name = name("Ballast fleet server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial());
        validity(&mut params, now, SERVER_LIFE);
        let certificate = params.signed_by(&key, &self.issuer).map_err(CaError::Sign)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|_| CaError::Sign(rcgen::Error::CouldNotParseKeyPair))?;
        Ok((certificate.der().clone(), key))
    }

    /// A gateway's certificate (PEM, the CA's behind it) and its end.
    pub fn gateway(
        &self,
        request: &Request,
        gateway: &GatewayId,
        namespace: &NamespaceUid,
        labels: &Labels,
        now: UnixMillis,
        life: Duration,
    ) -> Result<(String, UnixMillis), CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(gateway.as_str());
        params.distinguished_name.push(DnType::OrganizationName, namespace.as_str());
        let uri = identity_uri(&self.fleet, namespace, gateway, labels);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(CaError::Sign)?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial());
        validity(&mut params, now, life);
        let certificate = params.signed_by(&request.key, &self.issuer).map_err(CaError::Sign)?;
        let expires = UnixMillis(now.0.saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX)));
        Ok((format!("{}{}", certificate.pem(), self.certificate_pem), expires))
    }
}

/// Reads the identity from a certificate that the TLS layer has verified against the CA.
pub fn peer(certificate: &CertificateDer<'_>) -> Result<Peer, CaError> {
    let bad = |what: &str| CaError::Peer(what.to_owned());
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| bad("it cannot be read"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| bad("its names cannot be read"))?
        .ok_or_else(|| bad("it has no names"))?;
    let uri = names
        .value
        .general_names
        .iter()
        .find_map(|n| match n {
            x509_parser::extensions::GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .ok_or_else(|| bad("it has no ballast:// name"))?;
    let (fleet, namespace, gateway, labels) =
        read_identity_uri(uri).ok_or_else(|| bad("its ballast:// name is malformed"))?;
    let expires = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0).saturating_mul(1000);
    Ok(Peer {
        fleet,
        namespace,
        gateway,
        labels,
        key: Digest::of(parsed.public_key().raw),
        expires: UnixMillis(expires),
    })
}

fn spki_digest(certificate: &CertificateDer<'_>) -> Result<Digest, CaError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|e| CaError::Peer(e.to_string()))?;
    Ok(Digest::of(parsed.public_key().raw))
}

fn identity_uri(fleet: &FleetId, namespace: &NamespaceUid, gateway: &GatewayId, labels: &Labels) -> String {
    // Label syntax has no character that a query would need to escape.
    let query: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!("ballast://{fleet}/{namespace}/{gateway}?{}", query.join("&"))
}

fn read_identity_uri(uri: &str) -> Option<(FleetId, NamespaceUid, GatewayId, Labels)> {
    let (path, query) = uri.strip_prefix("ballast://")?.split_once('?')?;
    let mut parts = path.split('/');
    let fleet = parts.next()?.parse().ok()?;
    let namespace = parts.next()?.parse().ok()?;
    let gateway = parts.next()?.parse().ok()?;
    if parts.next().is_some() {
        return None;
    }
    let mut read = Labels::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=')?;
        read.insert(key.to_owned(), value.to_owned());
    }
    labels::check(&read).ok()?;
    Some((fleet, namespace, gateway, read))
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// rcgen derives serial numbers from the key; renewals with the same key need their own.
fn serial() -> SerialNumber {
    let mut bytes = [0u8; 16];
    // Uniqueness is all that is asked of it here; without randomness the time still gives that.
    if getrandom::fill(&mut bytes).is_err() {
        bytes[..8].copy_from_slice(&crate::now().0.to_be_bytes());
    }
    bytes[0] = bytes[0] & 0x7f | 0x40; // positive, and of one length
    SerialNumber::from_slice(&bytes)
}

fn validity(params: &mut CertificateParams, now: UnixMillis, life: Duration) {
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(now.0);
    params.not_before = now - SKEW;
    params.not_after = now + life;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        let fleet: FleetId = "plant".parse().unwrap();
        let (key, certificate) = Authority::generate(&fleet, crate::now()).unwrap();
        Authority::from_pem(fleet, &key, &certificate).unwrap()
    }

    #[test]
    fn a_gateway_certificate_carries_identity_and_labels_and_no_name_of_the_request() {
        let ca = authority();
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let params = CertificateParams::new(vec!["victim.example".to_owned()]).unwrap();
        let request = Request::from_pem(&params.serialize_request(&key).unwrap().pem().unwrap()).unwrap();
        let labels = Labels::from([("line".into(), "bottling".into()), ("a.b/c".into(), String::new())]);
        let (pem, expires) = ca
            .gateway(&request, &"gw-1".parse().unwrap(), &"ns-1".parse().unwrap(), &labels, crate::now(), GATEWAY_LIFE)
            .unwrap();
        assert!(!pem.contains("victim"));
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let peer = peer(&der).unwrap();
        assert_eq!((peer.gateway.as_str(), peer.namespace.as_str(), peer.fleet.as_str()), ("gw-1", "ns-1", "plant"));
        assert_eq!(peer.labels, labels);
        assert_eq!(peer.key, request.key());
        assert_eq!(peer.expires.0 / 1000, expires.0 / 1000);
    }

    #[test]
    fn requests_are_bounded_and_must_prove_their_key() {
        assert!(Request::from_pem(&"x".repeat(MAX_CSR + 1)).is_err());
        assert!(Request::from_pem("rubbish").is_err());
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let pem = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        assert!(Request::from_pem(&pem).is_err(), "only P-256");
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut der = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        let pem = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der)
        );
        assert!(Request::from_pem(&pem).is_err(), "broken signature");
    }

    #[test]
    fn a_key_of_another_ca_is_refused() {
        let fleet: FleetId = "plant".parse().unwrap();
        let (_, certificate) = Authority::generate(&fleet, crate::now()).unwrap();
        let (key, _) = Authority::generate(&fleet, crate::now()).unwrap();
        assert!(Authority::from_pem(fleet, &key, &certificate).is_err());
    }
}
