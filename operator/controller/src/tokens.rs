//! Enrolment tokens: from EnrollmentToken objects and the administrator's socket to the store and to files.
//!
//! A token's text is in `tokens/NAME` (`tokens/@NAMESPACE/NAME` outside `default`), 0600. The store keeps its hash only.

use std::path::PathBuf;
use std::sync::Arc;

use ballast_bundle::{Digest, NamespaceUid, UnixMillis};
use ballast_fleet::labels::Labels;
use ballast_fleet::store::{GatewayStore, StoreError};
use ballast_fleet::token::{Token, TokenRecord, hash};

use crate::state::{self, StateDir, StateError};

/// A token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A name that cannot be a file's.
    #[error("{0:?} is not a name for a token; write lower-case letters, digits, '-' and '.'")]
    Name(String),
    /// Files.
    #[error(transparent)]
    State(#[from] StateError),
    /// Store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody has the name.
    #[error("{0}")]
    Taken(String),
    /// Randomness.
    #[error("no randomness for a token: {0}")]
    Random(String),
}

/// What a token is to be.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Where gateways enrol with it.
    pub namespace: NamespaceUid,
    /// The namespace's name.
    pub namespace_name: String,
    /// Its own.
    pub name: String,
    /// Given to every gateway.
    pub labels: Labels,
    /// How many may enrol.
    pub uses: u32,
    /// Until when.
    pub expires: UnixMillis,
    /// Gateways that enrolled before may do so again.
    pub allow_replace: bool,
}

/// Makes tokens.
pub struct Tokens {
    state: Arc<StateDir>,
    store: Arc<dyn GatewayStore>,
    endpoint: String,
    ca: Digest,
}

impl Tokens {
    /// Tokens point to `endpoint` and pin the certificate authority with digest `ca`.
    pub fn new(state: Arc<StateDir>, store: Arc<dyn GatewayStore>, endpoint: String, ca: Digest) -> Self {
        Self { state, store, endpoint, ca }
    }

    /// Makes or updates a token and returns its text. The secret stays the same as long as its file is there, and is this
    /// token's: a file that another namespace of that name left behind is nobody's.
    pub async fn create(&self, asked: &Asked) -> Result<String, TokenError> {
        let path = self.path(&asked.namespace_name, &asked.name)?;
        let known = std::fs::read_to_string(&path).ok().and_then(|text| Token::from_text(&text).ok());
        let records = self.store.tokens().await?;
        let own = |token: &Token| {
            let hash = hash(&token.secret);
            records.iter().any(|r| r.hash == hash && r.namespace == asked.namespace && r.name == asked.name)
        };
        let token = match known.filter(own) {
            Some(token) => Token { endpoint: self.endpoint.clone(), ca_sha256: self.ca, ..token },
            None => Token::new(self.endpoint.clone(), self.ca).map_err(|e| TokenError::Random(e.to_string()))?,
        };
        let record = TokenRecord {
            hash: hash(&token.secret),
            name: asked.name.clone(),
            namespace: asked.namespace.clone(),
            labels: asked.labels.clone(),
            uses: asked.uses,
            used: 0,
            expires: asked.expires,
            allow_replace: asked.allow_replace,
        };
        // The store first: whoever finds the file can use it.
        self.store.put_token(record).await?;
        let text = token.to_text();
        if std::fs::read_to_string(&path).is_ok_and(|known| known.trim() == text) {
            return Ok(text);
        }
        state::write(&path, format!("{text}\n").as_bytes(), 0o600)?;
        Ok(text)
    }

    /// Withdraws a token.
    pub async fn remove(&self, namespace: &NamespaceUid, namespace_name: &str, name: &str) -> Result<(), TokenError> {
        let path = self.path(namespace_name, name)?;
        self.store.remove_token(namespace.clone(), name.to_owned()).await?;
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StateError::File { doing: "removed", path, source }.into())
            }
            _ => Ok(()),
        }
    }

    fn path(&self, namespace_name: &str, name: &str) -> Result<PathBuf, TokenError> {
        let ok = |s: &str| {
            let bytes = s.as_bytes();
            let outer = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
            bytes.len() <= 253
                && outer(bytes.first())
                && outer(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        };
        if !ok(name) || !ok(namespace_name) {
            return Err(TokenError::Name(name.chars().take(80).collect()));
        }
        Ok(match namespace_name {
            "default" => self.state.path("tokens").join(name),
            other => self.state.path("tokens").join(format!("@{other}")).join(name),
        })
    }
}
