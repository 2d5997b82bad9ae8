//! Bringing blobs and statements here: resumed by Range, verified as they stream.

use std::sync::Arc;
use std::time::Duration;

use ballast_bundle::protocol::FailureReason;
use ballast_bundle::{
    Blob, DeploymentRef, Floors, MAX_STATEMENT_BYTES, ReleaseLayers, ReleaseRef, RunnerRef, TargetName, Unverified,
};
use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::mpsc;

use crate::client::{self, Client, ClientError};
use crate::error::in_full;
use crate::identity::Roots;
use crate::installed::{Accepted, InstalledRelease, InstalledRunner, RunnerRecord};
use crate::store::{BlobError, Partial, Reservation, Store};

/// Pieces of a body that wait for the disk; the network waits for the rest.
const PIECES: usize = 4;

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
    /// It is here, and the disk does not give it back now.
    #[error("{0}")]
    Disk(String),
}

impl FetchError {
    pub(crate) const fn reason(&self) -> FailureReason {
        match self {
            Self::Rejected(_) => FailureReason::VerificationFailed,
            Self::NoRoom(_) | Self::Disk(_) => FailureReason::InsufficientDisk,
        }
    }
}

/// What was fetched, and the room it holds until somebody names it.
pub(crate) struct Fetched<T> {
    pub(crate) installed: T,
    pub(crate) room: Vec<Reservation>,
}

impl Source {
    /// A release for a new install: its statement, verified, and with `layers` every byte that it names.
    pub(crate) async fn release(
        &self,
        want: &ReleaseRef,
        deployment: &DeploymentRef,
        target: TargetName,
        roots: &Roots,
        floors: &Floors,
        layers: bool,
    ) -> Result<Fetched<InstalledRelease>, FetchError> {
        let (bytes, held) = self.document(&want.repository, &want.statement).await?;
        let root = roots.newest();
        let statement = Unverified::new(&bytes[..])
            .release(want, deployment, &target, root, floors)
            .map_err(|e| FetchError::Rejected(format!("release statement: {e}")))?;
        let accepted = Accepted { target, root: root.version };
        let installed = InstalledRelease { statement, accepted };
        let mut room = vec![held];
        if layers {
            room.push(self.blobs(&want.repository, blobs_of(&installed.statement.layers)).await?);
        }
        Ok(Fetched { installed, room })
    }

    /// What was installed before, again: its statement or its layers were damaged on the disk.
    pub(crate) async fn again(
        &self,
        release: &ReleaseRef,
        deployment: &DeploymentRef,
        accepted: Accepted,
        roots: &Roots,
    ) -> Result<Fetched<InstalledRelease>, FetchError> {
        let (bytes, held) = self.document(&release.repository, &release.statement).await?;
        let installed = InstalledRelease::verify(&bytes, roots, release, deployment, accepted);
        let installed = installed.map_err(FetchError::Rejected)?;
        let layers = self.blobs(&release.repository, blobs_of(&installed.statement.layers)).await?;
        Ok(Fetched { installed, room: vec![held, layers] })
    }

    /// A new runner.
    pub(crate) async fn runner(
        &self,
        want: RunnerRef,
        target: TargetName,
        roots: &Roots,
        floors: &Floors,
    ) -> Result<Fetched<InstalledRunner>, FetchError> {
        let (bytes, held) = self.document(&want.repository, &want.statement).await?;
        let root = roots.newest();
        let statement = Unverified::new(&bytes[..])
            .runner(&want, &target, root, floors)
            .map_err(|e| FetchError::Rejected(format!("runner statement: {e}")))?;
        let module = self.blobs(&want.repository, [&want.module]).await?;
        let record = RunnerRecord { reference: want, accepted: Accepted { target, root: root.version } };
        Ok(Fetched { installed: InstalledRunner { record, statement }, room: vec![held, module] })
    }

    /// The runner that was in force before the start, again.
    pub(crate) async fn runner_again(
        &self,
        record: RunnerRecord,
        roots: &Roots,
    ) -> Result<Fetched<InstalledRunner>, FetchError> {
        let want = record.reference.clone();
        let (bytes, held) = self.document(&want.repository, &want.statement).await?;
        let installed = InstalledRunner::verify(&bytes, roots, record).map_err(FetchError::Rejected)?;
        let module = self.blobs(&want.repository, [&want.module]).await?;
        Ok(Fetched { installed, room: vec![held, module] })
    }

    async fn document(&self, repository: &str, blob: &Blob) -> Result<(Vec<u8>, Reservation), FetchError> {
        if blob.size > MAX_STATEMENT_BYTES as u64 {
            return Err(FetchError::Rejected(format!("a statement of {} bytes is no statement", blob.size)));
        }
        let held = self.blobs(repository, [blob]).await?;
        let bytes = self.store.read(blob, MAX_STATEMENT_BYTES).map_err(|e| FetchError::Disk(in_full(&e)))?;
        Ok((bytes, held))
    }

    /// All of `blobs` that are not here yet, once they fit.
    async fn blobs<'a>(
        &self,
        repository: &str,
        blobs: impl IntoIterator<Item = &'a Blob> + Clone,
    ) -> Result<Reservation, FetchError> {
        let held = self.store.reserve(blobs.clone()).map_err(|e| FetchError::NoRoom(e.to_string()))?;
        for blob in blobs {
            self.blob(repository, blob).await?;
        }
        Ok(held)
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

    /// Hashing and waiting for the disk are no work for the thread that serves.
    async fn attempt(&self, repository: &str, blob: &Blob) -> Result<(), Attempt> {
        let alone = self.store.alone(&blob.digest).await;
        if self.store.has(blob) {
            return Ok(());
        }
        let (store, wanted) = (Arc::clone(&self.store), blob.clone());
        let mut partial = aside(move || Ok(store.resume(&wanted, alone)?)).await?;
        if partial.have() < blob.size {
            if !is_repository(repository) {
                return Err(Attempt::Wrong("the assignment names a repository that is no path".to_owned()));
            }
            let path = format!("/v2/{repository}/blobs/{}", blob.digest);
            let mut response = self.client.open(&path, partial.have()).await?;
            if partial.have() > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                partial = partial.rewind()?;
            }
            let (send, receive) = mpsc::channel(PIECES);
            let writing = tokio::task::spawn_blocking(move || write(partial, receive));
            let ended = async {
                // A full channel waits for the disk; a closed one means that the writer knows why.
                while let Some(piece) = client::piece(&mut response).await? {
                    if send.send(piece).await.is_err() {
                        break;
                    }
                }
                Ok(())
            }
            .await;
            drop(send);
            // What came before the cut is kept, and the next attempt goes on from there.
            partial = writing.await.map_err(|e| Attempt::Later(e.to_string(), None))??;
            ended.map_err(|e: ClientError| Attempt::from(e))?;
            if partial.have() < blob.size {
                return Err(Attempt::Later("the connection ended early".to_owned(), None));
            }
        }
        let resumed = partial.resumed();
        aside(move || partial.finish().map_err(|e| wrong(e, resumed))).await
    }
}

/// Takes a body's pieces to the disk, on a thread of its own.
fn write(mut partial: Partial, mut pieces: mpsc::Receiver<Bytes>) -> Result<Partial, Attempt> {
    while let Some(piece) = pieces.blocking_recv() {
        let resumed = partial.resumed();
        partial.append(&piece).map_err(|e| wrong(e, resumed))?;
    }
    Ok(partial)
}

fn wrong(error: BlobError, resumed: bool) -> Attempt {
    let attempt = Attempt::from(error);
    if resumed { attempt.of_resumed() } else { attempt }
}

/// The blobs of a release, the largest last.
pub(crate) fn blobs_of(layers: &ReleaseLayers) -> [&Blob; 4] {
    [&layers.contract, &layers.plan, &layers.golden, &layers.weights]
}

/// Does `work` on a thread that may block.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Attempt> + Send + 'static) -> Result<T, Attempt> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
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
        let message = in_full(&error);
        match error {
            BlobError::Verify { .. } => Self::Wrong(message),
            BlobError::Full { .. } => Self::Full(message),
            BlobError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => Self::Full(message),
            BlobError::Io { .. } => Self::Later(message, None),
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
