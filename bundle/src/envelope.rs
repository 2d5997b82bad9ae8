//! DSSE envelopes (secure-systems-lab/dsse, protocol v1.0.0) and Sigstore bundles v0.3 around them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::{Envelope, EnvelopeSignature, RoleKeys, SigningKey, VerifyError, VerifyingKey};

/// Most signatures that are looked at in one envelope.
const MAX_SIGNATURES: usize = 16;

/// `DSSEv1 <len> <type> <len> <payload>`: what is signed.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// Signs `payload` with every key.
pub fn sign_envelope(payload_type: &str, payload: &[u8], keys: &[&SigningKey]) -> Envelope {
    let signed = pre_authentication_encoding(payload_type, payload);
    Envelope {
        payload: STANDARD.encode(payload),
        payload_type: payload_type.to_owned(),
        signatures: keys
            .iter()
            .map(|key| EnvelopeSignature { keyid: key.public().key_id(), sig: STANDARD.encode(key.sign(&signed)) })
            .collect(),
    }
}

impl Envelope {
    /// The payload, if its type is `payload_type` and at least the role's threshold of distinct keys signed it.
    ///
    /// Every signature is tried against every key: `keyid` is a hint that anybody may write.
    pub(crate) fn payload_signed_by(&self, payload_type: &str, role: &RoleKeys) -> Result<Vec<u8>, VerifyError> {
        if self.payload_type != payload_type {
            return Err(VerifyError::PayloadType {
                expected: payload_type.to_owned(),
                found: self.payload_type.chars().take(100).collect(),
            });
        }
        let payload = STANDARD
            .decode(&self.payload)
            .map_err(|_| VerifyError::Malformed("the envelope's payload is not base64"))?;
        let signed = pre_authentication_encoding(payload_type, &payload);
        let signatures: Vec<Vec<u8>> =
            self.signatures.iter().take(MAX_SIGNATURES).filter_map(|s| STANDARD.decode(&s.sig).ok()).collect();
        // Keys are counted by what they are, not by the name they are listed under.
        let mut keys: Vec<VerifyingKey> = Vec::new();
        for pem in role.keys.values() {
            let key = VerifyingKey::from_pem(pem)
                .map_err(|_| VerifyError::Malformed("the trust root lists a key that is not P-256"))?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let valid = keys.iter().filter(|key| signatures.iter().any(|s| key.verifies(&signed, s))).count();
        let needed = role.threshold.max(1) as usize;
        if valid < needed {
            return Err(VerifyError::Signature { valid, needed });
        }
        Ok(payload)
    }
}

/// Media type of a Sigstore bundle.
pub const SIGSTORE_BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Payload type of in-toto statements.
pub const IN_TOTO_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SigstoreBundle {
    media_type: String,
    verification_material: VerificationMaterial,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VerificationMaterial {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<PublicKeyHint>,
    // cosign writes the field always and reads a bundle without transparency log entries when told to.
    #[serde(default)]
    tlog_entries: Vec<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct PublicKeyHint {
    hint: String,
}

/// in-toto Statement v1 with one subject.
#[derive(Serialize, Deserialize)]
struct Statement<P> {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: P,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Serialize, Deserialize)]
struct SubjectDigest {
    sha256: String,
}

/// A Sigstore bundle's JSON: an in-toto statement about `subject`, signed by `key`.
pub(crate) fn sign_statement<P: Serialize>(
    name: &str,
    subject: &crate::Digest,
    predicate_type: &str,
    predicate: &P,
    key: &SigningKey,
) -> Vec<u8> {
    let statement = Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: vec![Subject { name: name.to_owned(), digest: SubjectDigest { sha256: subject.hex() } }],
        predicate_type: predicate_type.to_owned(),
        predicate,
    };
    let bundle = SigstoreBundle {
        media_type: SIGSTORE_BUNDLE_TYPE.to_owned(),
        verification_material: VerificationMaterial {
            public_key: Some(PublicKeyHint { hint: key.public().key_id() }),
            tlog_entries: Vec::new(),
        },
        dsse_envelope: sign_envelope(IN_TOTO_TYPE, &to_json(&statement), &[key]),
    };
    to_json(&bundle)
}

/// The predicate and the subject's digest of a Sigstore bundle that the role's keys signed.
pub(crate) fn verify_statement<P: serde::de::DeserializeOwned>(
    bytes: &[u8],
    predicate_type: &str,
    role: &RoleKeys,
) -> Result<(P, crate::Digest), VerifyError> {
    if bytes.len() > crate::MAX_DOCUMENT_BYTES {
        return Err(VerifyError::TooLarge { limit: crate::MAX_DOCUMENT_BYTES });
    }
    let bundle: SigstoreBundle =
        serde_json::from_slice(bytes).map_err(|_| VerifyError::Malformed("not a Sigstore bundle v0.3"))?;
    if bundle.media_type != SIGSTORE_BUNDLE_TYPE {
        return Err(VerifyError::Malformed("not a Sigstore bundle v0.3: other media type"));
    }
    let payload = bundle.dsse_envelope.payload_signed_by(IN_TOTO_TYPE, role)?;
    // Two steps, so that a statement of another kind is named as such.
    let statement: Statement<serde_json::Value> =
        serde_json::from_slice(&payload).map_err(|_| VerifyError::Malformed("not an in-toto statement"))?;
    if statement.kind != STATEMENT_TYPE || statement.predicate_type != predicate_type {
        return Err(VerifyError::PayloadType {
            expected: predicate_type.to_owned(),
            found: statement.predicate_type.chars().take(100).collect(),
        });
    }
    let [subject] = statement.subject.as_slice() else {
        return Err(VerifyError::Malformed("a statement needs exactly one subject"));
    };
    let digest = format!("sha256:{}", subject.digest.sha256)
        .parse()
        .map_err(|_| VerifyError::Malformed("the statement's subject has no SHA-256 digest"))?;
    let predicate = serde_json::from_value(statement.predicate)
        .map_err(|_| VerifyError::Malformed("the statement's predicate has missing, unknown or wrong fields"))?;
    Ok((predicate, digest))
}

/// JSON of a document of this crate: fields in the order of their declaration, maps sorted; the same bytes every time.
pub fn to_json<T: Serialize>(document: &T) -> Vec<u8> {
    // Documents hold strings, numbers, lists and string-keyed maps only: nothing that JSON cannot say.
    serde_json::to_vec(document).unwrap_or_default()
}
