//! Bringing blobs and statements here: resumed by Range, verified as they stream.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ballast_bundle::protocol::FailureReason;
use ballast_bundle::{
    Blob, DeploymentRef, Digest, Floors, ReleaseRef, ReleaseStatement, RunnerRef, RunnerStatement, TargetName,
    TrustRoot, Unverified, Verified,
};
use hyper::StatusCode;

use crate::blobs::{BlobError, Store};
use crate::client::{self, Client, ClientError};

/// A Sigstore bundle with one statement is a few KiB.
const MAX_STATEMENT: u64 = 1 << 20;

/// What fetching needs to know.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) client: Arc<Client>,
    pub(crate) store: Arc<Store>,
    /// Pause before another attempt.
    pub(crate) retry: Duration,
}

/// Why something was not fetched. Networks that fail are tried again for ever and never reported here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0}")]
    Rejected(String),
    #[error("{0}")]
    NoRoom(String),
}

impl FetchError {
    pub(crate) const fn reason(&self) -> FailureReason {
        match self {
            Self::Rejected(_) => FailureReason::VerificationFailed,
            Self::NoRoom(_) => FailureReason::InsufficientDisk,
        }
    }
}

impl Source {
    /// The verified statement of a release.
    pub(crate) async fn statement(
        &self,
        want: &ReleaseRef,
        deployment: &DeploymentRef,
        target: &TargetName,
        root: &Verified<TrustRoot>,
        floors: &Floors,
    ) -> Result<Verified<ReleaseStatement>, FetchError> {
        let bytes = self.document(&want.repository, &want.statement).await?;
        Unverified::new(&bytes[..])
            .release(want, deployment, target, root, floors)
            .map_err(|e| FetchError::Rejected(format!("release statement: {e}")))
    }

    /// The verified statement of a runner.
    pub(crate) async fn runner(
        &self,
        want: &RunnerRef,
        target: &TargetName,
        root: &Verified<TrustRoot>,
        floors: &Floors,
    ) -> Result<Verified<RunnerStatement>, FetchError> {
        let bytes = self.document(&want.repository, &want.statement).await?;
        Unverified::new(&bytes[..])
            .runner(want, target, root, floors)
            .map_err(|e| FetchError::Rejected(format!("runner statement: {e}")))
    }

    async fn document(&self, repository: &str, blob: &Blob) -> Result<Vec<u8>, FetchError> {
        if blob.size > MAX_STATEMENT {
            return Err(FetchError::Rejected(format!("a statement of {} bytes is no statement", blob.size)));
        }
        self.blob(repository, blob).await?;
        self.store.read(blob, MAX_STATEMENT).map_err(|e| FetchError::Rejected(e.to_string()))
    }

    /// All of `blobs` that are not here yet, once they fit.
    pub(crate) async fn blobs(
        &self,
        repository: &str,
        blobs: &[&Blob],
        keep: &BTreeSet<Digest>,
    ) -> Result<(), FetchError> {
        self.store.make_room(blobs, keep).map_err(|e| FetchError::NoRoom(e.to_string()))?;
        for blob in blobs {
            self.blob(repository, blob).await?;
        }
        Ok(())
    }

    /// One blob. Goes on after every cut; gives up only when the bytes are wrong.
    async fn blob(&self, repository: &str, blob: &Blob) -> Result<(), FetchError> {
        let mut again = true;
        while !self.store.has(blob) {
            match self.attempt(repository, blob).await {
                Ok(()) => {}
                // A power cut can leave bytes in a partial file that never were sent: that says nothing of the release.
                Err(Attempt::WrongResumed(message)) if std::mem::take(&mut again) => {
                    tracing::warn!(digest = %blob.digest, message, "a resumed download was damaged; it starts from zero");
                }
                Err(Attempt::Wrong(message) | Attempt::WrongResumed(message)) => {
                    return Err(FetchError::Rejected(message));
                }
                Err(Attempt::Full(message)) => return Err(FetchError::NoRoom(message)),
                Err(Attempt::Later(message, after)) => {
                    tracing::info!(digest = %blob.digest, message, "download interrupted; it goes on later");
                    tokio::time::sleep(after.unwrap_or(self.retry).max(Duration::from_millis(100))).await;
                }
            }
        }
        Ok(())
    }

    async fn attempt(&self, repository: &str, blob: &Blob) -> Result<(), Attempt> {
        // Hashing what is here and waiting for the disk are no work for the thread that serves.
        let (store, wanted) = (Arc::clone(&self.store), blob.clone());
        let mut partial = aside(move || store.resume(&wanted)).await?;
        let resumed = partial.have() > 0;
        if partial.have() < blob.size || blob.size == 0 {
            if !is_repository(repository) {
                return Err(Attempt::Wrong("the assignment names a repository that is no path".to_owned()));
            }
            let path = format!("/v2/{repository}/blobs/{}", blob.digest);
            let mut response = self.client.open(&path, partial.have()).await?;
            if partial.have() > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                partial = partial.rewind()?;
            }
            let wrong = |e: BlobError| if resumed { Attempt::from(e).of_resumed() } else { e.into() };
            while let Some(bytes) = client::piece(&mut response).await? {
                partial.append(&bytes).map_err(wrong)?;
            }
            if partial.have() < blob.size {
                return Err(Attempt::Later("the connection ended early".to_owned(), None));
            }
        }
        let finished = aside(move || Ok(partial.finish())).await?;
        finished.map_err(|e| if resumed { Attempt::from(e).of_resumed() } else { e.into() })
    }
}

/// Does `work` on a thread that may block.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, BlobError> + Send + 'static) -> Result<T, Attempt> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Attempt::from),
        Err(error) => Err(Attempt::Later(error.to_string(), None)),
    }
}

/// Path components of lower-case letters, digits, `.`, `_` and `-`, as OCI wants them.
fn is_repository(name: &str) -> bool {
    let component = |c: &str| {
        !c.is_empty()
            && !c.starts_with('.')
            && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    name.len() <= 255 && name.split('/').all(component)
}

enum Attempt {
    Wrong(String),
    /// Wrong, and some of it was here before.
    WrongResumed(String),
    Full(String),
    Later(String, Option<Duration>),
}

impl Attempt {
    fn of_resumed(self) -> Self {
        match self {
            Self::Wrong(message) => Self::WrongResumed(message),
            Self::WrongResumed(_) | Self::Full(_) | Self::Later(..) => self,
        }
    }
}

impl From<BlobError> for Attempt {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Verify { .. } => Self::Wrong(error.to_string()),
            BlobError::Full { .. } => Self::Full(error.to_string()),
            BlobError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Self::Full(error.to_string())
            }
            BlobError::Io { .. } => Self::Later(error.to_string(), None),
        }
    }
}

impl From<ClientError> for Attempt {
    fn from(error: ClientError) -> Self {
        let after = match &error {
            ClientError::Refused { retry_after, .. } => *retry_after,
            ClientError::Endpoint(_) | ClientError::Unreachable { .. } | ClientError::Unreadable(_) => None,
        };
        Self::Later(error.to_string(), after)
    }
}

#[cfg(test)]
mod tests {
    use super::is_repository;

    #[test]
    fn repositories_are_paths_and_nothing_else() {
        assert!(is_repository("ns-1/digits") && is_repository("a/b/runner_1.0"));
        for bad in ["", "/a", "a/", "a//b", "../x", "a b", "A", "a?b", "a\r\nHost: x"] {
            assert!(!is_repository(bad), "{bad:?}");
        }
    }
}
