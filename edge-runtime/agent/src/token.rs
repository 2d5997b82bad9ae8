//! Enrolment tokens: where the fleet is, which CA its server must show, and the secret that lets this gateway in.

use std::path::Path;

use ballast_bundle::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

const PREFIX: &str = "ballast-token-v1.";
/// A token's text is some 300 bytes.
const MAX_TEXT: usize = 4 << 10;

/// Why a text is not a token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token file {path} cannot be read")]
    File { path: String, source: std::io::Error },
    #[error("this is not an enrolment token: {0}; copy the whole line that starts with {PREFIX}")]
    Invalid(&'static str),
}

/// What travels in a token.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Token {
    /// `https://host:port`.
    pub(crate) endpoint: String,
    /// Of the CA certificate's DER.
    pub(crate) ca_sha256: Digest,
    /// Sent to the server once its certificate was found to be of that CA.
    pub(crate) secret: String,
}

impl Token {
    /// From `--token`: the text itself, or the name of a file that holds it.
    pub(crate) fn from_argument(argument: &str) -> Result<Self, TokenError> {
        if argument.trim().starts_with(PREFIX) {
            return Self::from_text(argument);
        }
        let text = std::fs::read_to_string(Path::new(argument))
            .map_err(|source| TokenError::File { path: argument.to_owned(), source })?;
        Self::from_text(&text)
    }

    fn from_text(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(TokenError::Invalid("too long"));
        }
        let body = text.strip_prefix(PREFIX).ok_or(TokenError::Invalid("it starts with something else"))?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Invalid("it is cut or changed"))?;
        serde_json::from_slice(&json).map_err(|_| TokenError::Invalid("it is cut or changed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_and_damage_is_named() {
        let json = format!(r#"{{"endpoint":"https://a:1","caSha256":"{}","secret":"s"}}"#, Digest::of(b"ca"));
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json));
        assert_eq!(Token::from_argument(&format!(" {text}\n")).unwrap().secret, "s");
        for bad in [&text[..text.len() - 4], PREFIX, &format!("{PREFIX}{}", "a".repeat(5000))] {
            assert!(matches!(Token::from_argument(bad), Err(TokenError::Invalid(_))), "{bad}");
        }
        assert!(matches!(Token::from_argument("/no/such/file"), Err(TokenError::File { .. })));
    }
}
