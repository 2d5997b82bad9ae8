//! ECDSA P-256 keys. Signatures are deterministic (RFC 6979), so the same input gives the same bytes on any host.

use std::fmt;

use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{DerSignature, SigningKey as Secret, VerifyingKey as Public};
use p256::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding,
};

use crate::Digest;

/// Why a key could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Neither PKCS#8 nor SEC1 of a P-256 key.
    #[error("not an ECDSA P-256 private key in PEM (PKCS#8 \"BEGIN PRIVATE KEY\" or SEC1 \"BEGIN EC PRIVATE KEY\")")]
    PrivatePem,
    /// Not a SubjectPublicKeyInfo of a P-256 key.
    #[error("not an ECDSA P-256 public key in PEM (\"BEGIN PUBLIC KEY\")")]
    PublicPem,
    /// Not a key of cosign's, or one of a newer form.
    #[cfg(feature = "cosign-keys")]
    #[error("not a private key as `cosign generate-key-pair` writes it")]
    CosignPem,
    /// Its scrypt parameters are no powers of two, or would take more than 256 MiB.
    #[cfg(feature = "cosign-keys")]
    #[error("the encrypted key asks for more scrypt work than any cosign does")]
    CosignWork,
    /// The secretbox does not open.
    #[cfg(feature = "cosign-keys")]
    #[error("wrong password for the encrypted key (cosign reads it from COSIGN_PASSWORD), or the file is damaged")]
    Password,
    /// The 32 random bytes are no scalar of the curve; draw again.
    #[error("these 32 bytes are not a P-256 private key: draw again")]
    Scalar,
}

/// A private key of one role.
pub struct SigningKey(Secret);

impl SigningKey {
    /// A new key out of 32 random bytes (all but a 2⁻³² share of them will do).
    pub fn generate(random: [u8; 32]) -> Result<Self, KeyError> {
        Secret::from_slice(&random).map(Self).map_err(|_| KeyError::Scalar)
    }

    /// PKCS#8 or SEC1, unencrypted.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Secret::from_pkcs8_pem(pem)
            .ok()
            .or_else(|| p256::SecretKey::from_sec1_pem(pem).ok().map(Secret::from))
            .map(Self)
            .ok_or(KeyError::PrivatePem)
    }

    /// PKCS#8, DER.
    #[cfg(feature = "cosign-keys")]
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        Secret::from_pkcs8_der(der).map(Self).map_err(|_| KeyError::PrivatePem)
    }

    /// PKCS#8.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0.to_pkcs8_pem(LineEnding::LF).map(|pem| pem.as_str().to_owned()).map_err(|_| KeyError::PrivatePem)
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> VerifyingKey {
        VerifyingKey(*self.0.verifying_key())
    }

    /// DER signature over SHA-256 of `message`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.0.sign(message);
        signature.as_bytes().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().key_id())
    }
}

/// A public key of one role.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey(Public);

impl VerifyingKey {
    /// SubjectPublicKeyInfo.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Public::from_public_key_pem(pem).map(Self).map_err(|_| KeyError::PublicPem)
    }

    /// SubjectPublicKeyInfo.
    pub fn to_pem(&self) -> String {
        // Encoding a key that was decoded or derived has no way to fail; an empty text verifies nothing.
        self.0.to_public_key_pem(LineEnding::LF).unwrap_or_default()
    }

    /// Hex SHA-256 of the DER SubjectPublicKeyInfo, as TUF and cosign name keys.
    pub fn key_id(&self) -> String {
        self.0.to_public_key_der().map(|der| Digest::of(der.as_bytes()).hex()).unwrap_or_default()
    }

    /// Whether `signature` (DER) over SHA-256 of `message` is by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        DerSignature::from_bytes(signature).is_ok_and(|s| self.0.verify(message, &s).is_ok())
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.key_id())
    }
}
