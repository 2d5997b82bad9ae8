//! The content-addressed store: `blobs/sha256/<hex>`, whole and verified, or `<hex>.partial`.

mod download;
mod room;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ballast_bundle::{Blob, Digest, StreamVerifier, VerifyError};

pub(crate) use download::Partial;
pub(crate) use room::Reservation;

/// Why a blob is not in the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("blob {digest} cannot be {action}")]
    Io {
        digest: Digest,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("blob {digest} is not what it should be")]
    Verify {
        digest: Digest,
        #[source]
        source: VerifyError,
    },
    #[error("needs {needed} bytes, and the store of {budget} bytes has {free} left; raise limits.disk")]
    Full { needed: u64, budget: u64, free: u64 },
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    budget: u64,
    room: Mutex<room::Room>,
    downloads: download::Downloads,
}

const READ: usize = 64 << 10;

impl Store {
    /// Until [`Store::keep`] says what must stay, nothing is deleted.
    pub(crate) fn new(dir: PathBuf, budget: u64) -> Self {
        Self { dir, budget, room: Mutex::default(), downloads: download::Downloads::default() }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        path(&self.dir, digest)
    }

    /// Whether the blob is here whole. It was verified when it came; [`Store::open`] verifies again.
    pub(crate) fn has(&self, blob: &Blob) -> bool {
        fs::metadata(self.path(&blob.digest)).is_ok_and(|m| m.len() == blob.size)
    }

    /// Opens a blob and verifies it through the very file that is returned, read from its start.
    pub(crate) fn open(&self, blob: &Blob) -> Result<File, BlobError> {
        let path = self.path(&blob.digest);
        let mut file = File::open(&path).map_err(failed(blob, "opened"))?;
        let mut check = StreamVerifier::new(&blob.digest, blob.size);
        let mut buffer = vec![0; READ];
        let verified = loop {
            let n = file.read(&mut buffer).map_err(|error| {
                // A sector that is gone: the next fetch writes it elsewhere.
                let _ = fs::remove_file(&path);
                failed(blob, "read")(error)
            })?;
            if n == 0 {
                break check.finish();
            }
            if let Err(source) = check.update(buffer.get(..n).unwrap_or_default()) {
                break Err(source);
            }
        };
        verified.map_err(|source| {
            // Whatever damaged it, it is of no use: the next fetch brings it again.
            let _ = fs::remove_file(&path);
            BlobError::Verify { digest: blob.digest, source }
        })?;
        file.seek(SeekFrom::Start(0)).map_err(failed(blob, "read"))?;
        Ok(file)
    }

    /// A whole blob of at most `limit` bytes.
    pub(crate) fn read(&self, blob: &Blob, limit: usize) -> Result<Vec<u8>, BlobError> {
        let wrong = |source| BlobError::Verify { digest: blob.digest, source };
        if blob.size > limit as u64 {
            return Err(wrong(VerifyError::TooLarge { limit }));
        }
        let mut file = self.open(blob)?;
        let mut bytes = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
        file.read_to_end(&mut bytes).map_err(failed(blob, "read"))?;
        // The file could have changed between the two readings.
        let mut check = StreamVerifier::new(&blob.digest, blob.size);
        check.update(&bytes).and_then(|()| check.finish()).map_err(wrong)?;
        Ok(bytes)
    }
}

/// Where a store in `dir` has a blob.
pub(crate) fn path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(digest.hex())
}

/// Names what could not be done with a blob.
fn failed(blob: &Blob, action: &'static str) -> impl FnOnce(io::Error) -> BlobError + use<> {
    let digest = blob.digest;
    move |source| BlobError::Io { digest, action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn blob(bytes: &[u8]) -> Blob {
        Blob { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }

    #[test]
    fn damage_on_disk_is_found_when_a_blob_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned(), 1000);
        for damaged in [&b"weightz"[..], b"weights and more", b"wei"] {
            store.put(b"weights");
            let want = blob(b"weights");
            assert_eq!(store.read(&want, 100).unwrap(), b"weights");
            fs::write(dir.path().join(want.digest.hex()), damaged).unwrap();
            assert!(matches!(store.open(&want), Err(BlobError::Verify { .. })));
            assert!(!store.has(&want) && fs::read_dir(dir.path()).unwrap().next().is_none());
        }
    }
}
