//! DSSE envelopes (secure-systems-lab/dsse, protocol v1.0.0) and Sigstore bundles v0.3 around them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::{
    Digest, Envelope, EnvelopeSignature, MAX_DOCUMENT_BYTES, MAX_STATEMENT_BYTES, RoleKeys, SigningKey, VerifyError,
    VerifyingKey,
};

/// Most signatures that are looked at in one envelope, and most keys of one role: together they bound the work that an
/// envelope from anybody can cause.
const MAX_SIGNATURES: usize = 16;
pub(crate) const MAX_KEYS: usize = 16;
pub(crate) const NOT_P256: &str = "the trust root lists a key that is not P-256";
/// A DER P-256 signature has at most 72 bytes; longer texts are not even decoded.
const MAX_SIGNATURE_TEXT: usize = 128;

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
        let payload = self.decode_payload()?;
        let signed = pre_authentication_encoding(payload_type, &payload);
        let signatures: Vec<Vec<u8>> = self
            .signatures
            .iter()
            .take(MAX_SIGNATURES)
            .filter(|s| s.sig.len() <= MAX_SIGNATURE_TEXT)
            .filter_map(|s| STANDARD.decode(&s.sig).ok())
            .collect();
        // Keys are counted by what they are, not by the name they are listed under.
        let mut keys: Vec<VerifyingKey> = Vec::new();
        for pem in role.keys.values().take(MAX_KEYS) {
            let key = VerifyingKey::from_pem(pem).map_err(|_| VerifyError::Malformed(NOT_P256))?;
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

    /// The payload, signed by nobody that is known: to learn what it claims, never to act on.
    pub(crate) fn decode_payload(&self) -> Result<Vec<u8>, VerifyError> {
        // Base64 is a third longer than what it says.
        if self.payload.len() / 4 * 3 > MAX_DOCUMENT_BYTES {
            return Err(VerifyError::TooLarge { limit: MAX_DOCUMENT_BYTES });
        }
        STANDARD.decode(&self.payload).map_err(|_| VerifyError::Malformed("the envelope's payload is not base64"))
    }
}

/// Media type of a Sigstore bundle.
pub const SIGSTORE_BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Payload type of in-toto statements.
pub const IN_TOTO_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SigstoreBundle<'a> {
    media_type: &'a str,
    verification_material: VerificationMaterial,
    dsse_envelope: Envelope,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerificationMaterial {
    public_key: PublicKeyHint,
    // cosign always writes the field; this installation's keys need no public transparency log.
    tlog_entries: [(); 0],
}

#[derive(Serialize)]
struct PublicKeyHint {
    hint: String,
}

/// What is read of a Sigstore bundle. `verificationMaterial` says which key or certificate its maker meant; the trust
/// root says which keys count, so it is not even looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadBundle {
    media_type: String,
    dsse_envelope: Envelope,
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
    subject: &Digest,
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
    let mut envelope = sign_envelope(IN_TOTO_TYPE, &to_json(&statement), &[key]);
    // cosign passes over a signature whose keyid is not its own name for the key it was given
    // (go-securesystemslib `dsse/verify.go`), so the key is named in the hint alone, which no verifier compares.
    envelope.signatures.iter_mut().for_each(|signature| signature.keyid.clear());
    let bundle = SigstoreBundle {
        media_type: SIGSTORE_BUNDLE_TYPE,
        verification_material: VerificationMaterial {
            public_key: PublicKeyHint { hint: key.public().key_id() },
            tlog_entries: [],
        },
        dsse_envelope: envelope,
    };
    to_json(&bundle)
}

fn parse_bundle(bytes: &[u8]) -> Result<ReadBundle, VerifyError> {
    if bytes.len() > MAX_STATEMENT_BYTES {
        return Err(VerifyError::TooLarge { limit: MAX_STATEMENT_BYTES });
    }
    let bundle: ReadBundle = serde_json::from_slice(bytes)
        .map_err(|_| VerifyError::Malformed("not a Sigstore bundle v0.3 with a DSSE envelope"))?;
    if bundle.media_type != SIGSTORE_BUNDLE_TYPE {
        return Err(VerifyError::Malformed("not a Sigstore bundle v0.3: its mediaType is another"));
    }
    Ok(bundle)
}

fn parse_statement<P: DeserializeOwned>(payload: &[u8], predicate_type: &str) -> Result<(P, Digest), VerifyError> {
    // Two passes, so that a statement of another kind is named as such, and so that the second one goes straight into
    // the predicate's own type, which refuses unknown and doubled fields.
    let kind: Statement<IgnoredAny> =
        serde_json::from_slice(payload).map_err(|_| VerifyError::Malformed("not an in-toto statement"))?;
    if kind.kind != STATEMENT_TYPE {
        return Err(VerifyError::Malformed("an in-toto statement of another version than v1"));
    }
    if kind.predicate_type != predicate_type {
        return Err(VerifyError::PayloadType {
            expected: predicate_type.to_owned(),
            found: kind.predicate_type.chars().take(100).collect(),
        });
    }
    let [subject] = kind.subject.as_slice() else {
        return Err(VerifyError::Malformed("a statement needs exactly one subject"));
    };
    let digest = format!("sha256:{}", subject.digest.sha256)
        .parse()
        .map_err(|_| VerifyError::Malformed("the statement's subject has no SHA-256 digest"))?;
    let statement: Statement<P> = serde_json::from_slice(payload)
        .map_err(|_| VerifyError::Malformed("the statement's predicate has missing, unknown or wrong fields"))?;
    Ok((statement.predicate, digest))
}

/// The predicate and the subject's digest of a Sigstore bundle that the role's keys signed.
pub(crate) fn verify_statement<P: DeserializeOwned>(
    bytes: &[u8],
    predicate_type: &str,
    role: &RoleKeys,
) -> Result<(P, Digest), VerifyError> {
    let payload = parse_bundle(bytes)?.dsse_envelope.payload_signed_by(IN_TOTO_TYPE, role)?;
    parse_statement(&payload, predicate_type)
}

/// What a Sigstore bundle claims, for people who look into one: `(predicate type, statement's JSON)`. Nobody vouches for it.
pub fn claims(bytes: &[u8]) -> Result<(String, Vec<u8>), VerifyError> {
    let envelope = parse_bundle(bytes)?.dsse_envelope;
    if envelope.payload_type != IN_TOTO_TYPE {
        return Err(VerifyError::PayloadType {
            expected: IN_TOTO_TYPE.to_owned(),
            found: envelope.payload_type.chars().take(100).collect(),
        });
    }
    let payload = envelope.decode_payload()?;
    let statement: Statement<IgnoredAny> =
        serde_json::from_slice(&payload).map_err(|_| VerifyError::Malformed("not an in-toto statement"))?;
    Ok((statement.predicate_type, payload))
}

/// JSON of a document of this crate: fields in the order of their declaration, maps sorted; the same bytes every time.
pub fn to_json<T: Serialize>(document: &T) -> Vec<u8> {
    // Documents hold strings, numbers, lists and string-keyed maps only: nothing that JSON cannot say.
    serde_json::to_vec(document).unwrap_or_default()
}
