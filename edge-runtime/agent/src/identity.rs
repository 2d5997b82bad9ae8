//! Who this gateway is: key (0600), certificate, and the trust roots walked so far.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_bundle::protocol::Identity;
use ballast_bundle::{Audience, Envelope, GatewayId, NamespaceUid, TrustRoot, Unverified, Verified, VerifyError};
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};

use crate::state::{FORMAT, StateDir, StateError};
use crate::time::Clock;
use crate::tls::{self, TlsError};

const KEY: &str = "identity/key.pem";
const RECORD: &str = "identity/identity.json";

/// Why there is no identity to act under.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("{0} is not enrolled; run `ballast-edge enroll --token FILE --state DIR` first")]
    NotEnrolled(String),
    #[error("the key cannot be made or read: {0}")]
    Key(String),
    #[error("the trust root was not accepted")]
    Root(#[from] VerifyError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
}

/// `identity/identity.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    format: u32,
    gateway: GatewayId,
    namespace: NamespaceUid,
    certificate: String,
    /// Where it enrolled; the trust root's endpoints come first once there are any.
    endpoint: String,
    /// Version of the root that it enrolled under: the first of the walk.
    first_root: u64,
}

/// The trust roots walked so far. The newest one judges what is new; what was installed under an earlier one is proved by
/// that one at every start, whoever's key was exchanged since.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    newest: Arc<Verified<TrustRoot>>,
    by_version: BTreeMap<u64, Arc<Verified<TrustRoot>>>,
}

impl Roots {
    fn new(first: Verified<TrustRoot>) -> Self {
        let newest = Arc::new(first);
        Self { by_version: BTreeMap::from([(newest.version, Arc::clone(&newest))]), newest }
    }

    fn walk(&mut self, next: Verified<TrustRoot>) {
        self.newest = Arc::new(next);
        self.by_version.insert(self.newest.version, Arc::clone(&self.newest));
    }

    pub(crate) fn newest(&self) -> &Arc<Verified<TrustRoot>> {
        &self.newest
    }

    /// The root of that version, or the newest where it is not here any more.
    pub(crate) fn of_version(&self, version: u64) -> &Arc<Verified<TrustRoot>> {
        self.by_version.get(&version).unwrap_or(&self.newest)
    }
}

/// An enrolled gateway.
#[derive(Debug, Clone)]
pub(crate) struct Enrolled {
    record: Record,
    key: String,
    roots: Roots,
}

/// The key, made at first use: whoever enrols again with it gets the same gateway.
pub(crate) fn key(dir: &StateDir) -> Result<KeyPair, IdentityError> {
    let failed = |e: rcgen::Error| IdentityError::Key(e.to_string());
    if let Some(bytes) = dir.read_bytes(KEY)? {
        let text = String::from_utf8(bytes).map_err(|_| IdentityError::Key("it is not PEM".to_owned()))?;
        return KeyPair::from_pem(&text).map_err(failed);
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    dir.write_bytes(KEY, key.serialize_pem().as_bytes())?;
    Ok(key)
}

/// A signing request; the operator chooses every name.
pub(crate) fn request(key: &KeyPair) -> Result<String, IdentityError> {
    let failed = |e: rcgen::Error| IdentityError::Key(e.to_string());
    CertificateParams::default().serialize_request(key).and_then(|r| r.pem()).map_err(failed)
}

impl Enrolled {
    /// Keeps what the server answered to an enrolment.
    pub(crate) fn accept(dir: &StateDir, endpoint: &str, identity: &Identity) -> Result<Self, IdentityError> {
        let root = Unverified::new(identity.root.clone()).first_root()?;
        tls::certificates(&identity.certificate)?;
        // Who enrols again goes on with the roots walked before, if they lead to this very one: what was installed under an
        // earlier one is proved by that.
        let before = Self::load(dir).ok().filter(|known| known.root() == &root);
        dir.write(&root_file(root.version), &RootFile { format: FORMAT, envelope: identity.root.clone() })?;
        let record = Record {
            format: FORMAT,
            gateway: identity.gateway.clone(),
            namespace: identity.namespace.clone(),
            certificate: identity.certificate.clone(),
            endpoint: endpoint.to_owned(),
            first_root: before.as_ref().map_or(root.version, |known| known.record.first_root),
        };
        dir.write(RECORD, &record)?;
        let key = key(dir)?.serialize_pem();
        let roots = before.map_or_else(|| Roots::new(root), |known| known.roots);
        Ok(Self { record, key, roots })
    }

    /// What is in the state directory; walks the roots again, one by one.
    pub(crate) fn load(dir: &StateDir) -> Result<Self, IdentityError> {
        let record: Record =
            dir.read(RECORD)?.ok_or_else(|| IdentityError::NotEnrolled(dir.root().display().to_string()))?;
        let key = key(dir)?.serialize_pem();
        let missing = || IdentityError::NotEnrolled(dir.root().display().to_string());
        let first: RootFile = dir.read(&root_file(record.first_root))?.ok_or_else(missing)?;
        let mut roots = Roots::new(Unverified::new(first.envelope).first_root()?);
        while let Some(next) = dir.read::<RootFile>(&root_file(roots.newest.version.saturating_add(1)))? {
            roots.walk(Unverified::new(next.envelope).next_root(&roots.newest)?);
        }
        Ok(Self { record, key, roots })
    }

    /// One root further.
    pub(crate) fn walk(&mut self, dir: &StateDir, envelope: Envelope) -> Result<(), IdentityError> {
        let next = Unverified::new(envelope.clone()).next_root(self.root())?;
        dir.write(&root_file(next.version), &RootFile { format: FORMAT, envelope })?;
        self.roots.walk(next);
        Ok(())
    }

    /// Keeps a renewed certificate.
    pub(crate) fn renew(&mut self, dir: &StateDir, certificate: String) -> Result<(), IdentityError> {
        tls::certificates(&certificate)?;
        let record = Record { certificate, ..self.record.clone() };
        dir.write(RECORD, &record)?;
        self.record = record;
        Ok(())
    }

    pub(crate) fn audience(&self) -> Audience {
        Audience {
            fleet: self.root().fleet.clone(),
            namespace: self.record.namespace.clone(),
            gateway: self.record.gateway.clone(),
        }
    }

    pub(crate) fn gateway(&self) -> &GatewayId {
        &self.record.gateway
    }

    /// The newest root.
    pub(crate) fn root(&self) -> &Verified<TrustRoot> {
        &self.roots.newest
    }

    pub(crate) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The trust root's endpoints, then the one it enrolled at.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let mut all = self.root().endpoints.clone();
        if !all.contains(&self.record.endpoint) {
            all.push(self.record.endpoint.clone());
        }
        all
    }

    /// What this gateway shows to others than the fleet's server, and whom it believes.
    pub(crate) fn credentials(&self) -> Credentials {
        let (certificate, key) = (self.record.certificate.clone(), self.key.clone());
        Credentials { ca: self.root().ca.clone(), certificate, key }
    }

    pub(crate) fn tls(&self, clock: Arc<Clock>) -> Result<Arc<ClientConfig>, IdentityError> {
        Ok(tls::mutual(&self.root().ca, &self.record.certificate, &self.key, clock)?)
    }

    /// When two thirds of the certificate's life are over, in Unix milliseconds.
    pub(crate) fn renew_at(&self) -> Result<u64, IdentityError> {
        let unreadable = |e: &dyn std::fmt::Display| IdentityError::Certificate(e.to_string());
        let all = tls::certificates(&self.record.certificate)?;
        let first = all.first().ok_or_else(|| unreadable(&"there is none"))?;
        let (_, certificate) = x509_parser::parse_x509_certificate(first).map_err(|e| unreadable(&e))?;
        let seconds = |t: i64| u64::try_from(t).unwrap_or(0).saturating_mul(1000);
        let from = seconds(certificate.validity().not_before.timestamp());
        let to = seconds(certificate.validity().not_after.timestamp());
        Ok(from.saturating_add(to.saturating_sub(from) / 3 * 2))
    }
}

/// For TLS: PEM texts.
pub(crate) struct Credentials {
    pub(crate) ca: Vec<String>,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// `roots/N.json`.
#[derive(Debug, Serialize, Deserialize)]
struct RootFile {
    format: u32,
    envelope: Envelope,
}

fn root_file(version: u64) -> String {
    format!("roots/{version}.json")
}
