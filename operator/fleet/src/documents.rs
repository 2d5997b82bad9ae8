//! Assignments, by digest, as files of their namespace: `<root>/<namespace>/<hex>`.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ballast_bundle::{Blob, Digest, NamespaceUid};

/// A document could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be {doing}: {source}")]
pub struct DocumentsError {
    doing: &'static str,
    path: PathBuf,
    /// In the sentence, so no `source()` besides.
    r#source: std::io::Error,
}

/// The store of assignments.
pub struct Documents {
    root: PathBuf,
    /// What is known to be on disk, so that a sync does not look each time.
    known: Mutex<HashSet<(NamespaceUid, Digest)>>,
}

impl Documents {
    /// Below `root`, which is made when it is not there.
    pub fn open(root: &Path) -> Result<Self, DocumentsError> {
        std::fs::create_dir_all(root).map_err(|source| DocumentsError { doing: "made", path: root.into(), source })?;
        Ok(Self { root: root.into(), known: Mutex::default() })
    }

    fn path(&self, namespace: &NamespaceUid, digest: &Digest) -> PathBuf {
        self.root.join(namespace.as_str()).join(digest.hex())
    }

    /// Stores bytes durably (file and directory synced) and names them. Blocking; cheap when it is known already.
    pub fn put(&self, namespace: &NamespaceUid, bytes: &[u8]) -> Result<Blob, DocumentsError> {
        let digest = Digest::of(bytes);
        let blob = Blob { digest, size: bytes.len() as u64 };
        let key = (namespace.clone(), digest);
        if self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(&key) {
            return Ok(blob);
        }
        let path = self.path(namespace, &digest);
        write_atomically(&path, bytes).map_err(|source| DocumentsError { doing: "written", path, source })?;
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key);
        Ok(blob)
    }

    /// Reads a document of this namespace; `None` when it has no such one.
    pub fn get(&self, namespace: &NamespaceUid, digest: &Digest) -> Result<Option<Vec<u8>>, DocumentsError> {
        let path = self.path(namespace, digest);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DocumentsError { doing: "read", path, source }),
        }
    }
}

/// Writes a file so that after a power cut it is whole or absent. Parents are made.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let parent = path.parent().ok_or_else(|| std::io::Error::other("no parent directory"))?;
    std::fs::create_dir_all(parent)?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|e| std::io::Error::other(e.to_string()))?;
    let temporary = parent.join(format!(".new-{:016x}", u64::from_le_bytes(random)));
    let written = (|| {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(parent)?.sync_all()
    })();
    if written.is_err() {
        drop(std::fs::remove_file(&temporary)); // the first error is the one that counts
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_belong_to_their_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let documents = Documents::open(dir.path()).unwrap();
        let (a, b): (NamespaceUid, NamespaceUid) = ("a".parse().unwrap(), "b".parse().unwrap());
        let blob = documents.put(&a, b"x").unwrap();
        assert_eq!(documents.put(&a, b"x").unwrap(), blob);
        assert_eq!(documents.get(&a, &blob.digest).unwrap().as_deref(), Some(&b"x"[..]));
        assert_eq!(documents.get(&b, &blob.digest).unwrap(), None);
    }
}
