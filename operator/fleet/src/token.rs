//! Enrolment tokens: the text that a person copies, and what the store keeps of it (a hash, never the secret).

use ballast_bundle::{Digest, NamespaceUid, UnixMillis};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::labels::Labels;

const PREFIX: &str = "ballast-token-v1.";
/// A token's text is some 300 bytes.
const MAX_TEXT: usize = 4 << 10;

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not an enrolment token: {0}; copy the whole line that starts with ballast-token-v1.")]
pub struct InvalidToken(&'static str);

/// What travels in a token's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// `https://host:port` of the fleet's server.
    pub endpoint: String,
    /// SHA-256 of the CA's certificate (DER), as `sha256:…`.
    pub ca_sha256: Digest,
    /// What `POST /v1/enroll` wants: 256 random bits, base64url.
    pub secret: String,
}

impl Token {
    /// A token with a fresh secret.
    pub fn new(endpoint: String, ca_sha256: Digest) -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self { endpoint, ca_sha256, secret: URL_SAFE_NO_PAD.encode(secret) })
    }

    /// `ballast-token-v1.<base64url of JSON>`.
    pub fn to_text(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default(); // three strings: cannot fail
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads [`Token::to_text`]; surrounding white space is ignored.
    pub fn from_text(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(InvalidToken("too long"));
        }
        let body = text.strip_prefix(PREFIX).ok_or(InvalidToken("it does not start with ballast-token-v1."))?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| InvalidToken("it is cut or changed"))?;
        serde_json::from_slice(&json).map_err(|_| InvalidToken("it is cut or changed"))
    }
}

/// What the store keeps of a secret, and looks it up by: with 256 random bits a plain hash is enough.
pub fn hash(secret: &str) -> Digest {
    Digest::of(secret.as_bytes())
}

/// A token in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRecord {
    /// [`hash`] of the secret.
    pub hash: Digest,
    /// For people; unique within the namespace.
    pub name: String,
    /// Gateways that enrol with it belong to this namespace.
    pub namespace: NamespaceUid,
    /// Labels that they get.
    pub labels: Labels,
    /// How many gateways may enrol with it.
    pub uses: u32,
    /// How many have; counted by the store alone.
    #[serde(default)]
    pub used: u32,
    /// Not accepted from this time on.
    pub expires: UnixMillis,
    /// A machine with the display name of an enrolled gateway takes that gateway's place (a new disk, say).
    pub allow_replace: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_back_and_damage_is_named() {
        let token = Token::new("https://[::1]:8443".into(), Digest::of(b"ca")).unwrap();
        assert_eq!(Token::from_text(&format!("  {}\n", token.to_text())), Ok(token.clone()));
        let text = token.to_text();
        for bad in ["", "hello", &text[..text.len() - 3], &"x".repeat(5000)] {
            assert!(Token::from_text(bad).is_err(), "{bad}");
        }
    }
}
