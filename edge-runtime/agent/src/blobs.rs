//! The content-addressed store: `blobs/sha256/<hex>`, whole and verified, or `<hex>.partial`.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ballast_bundle::{Blob, Digest, StreamVerifier, VerifyError};

/// Why a blob is not in the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("{what} cannot be {action}: {source}")]
    Io { what: String, action: &'static str, source: io::Error },
    #[error("{what}: {source}")]
    Verify { what: String, source: VerifyError },
    #[error("needs {needed} bytes, and the store of {budget} bytes has {free} left; raise limits.disk")]
    Full { needed: u64, budget: u64, free: u64 },
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    budget: u64,
}

const READ: usize = 64 << 10;

impl Store {
    pub(crate) fn new(dir: PathBuf, budget: u64) -> Self {
        Self { dir, budget }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Whether the blob is here whole. It was verified when it came; [`Store::open`] verifies again.
    pub(crate) fn has(&self, blob: &Blob) -> bool {
        fs::metadata(self.path(&blob.digest)).is_ok_and(|m| m.len() == blob.size)
    }

    /// Opens a blob and verifies it through the very file that is returned, read from its start.
    pub(crate) fn open(&self, blob: &Blob) -> Result<File, BlobError> {
        let path = self.path(&blob.digest);
        let io = |action| {
            let what = format!("blob {}", blob.digest);
            move |source| BlobError::Io { what, action, source }
        };
        let mut file = File::open(&path).map_err(io("opened"))?;
        let mut check = StreamVerifier::new(&blob.digest, blob.size);
        let mut buffer = vec![0; READ];
        let verify = |source| BlobError::Verify { what: format!("blob {}", blob.digest), source };
        loop {
            let n = file.read(&mut buffer).map_err(io("read"))?;
            if n == 0 {
                break;
            }
            check.update(buffer.get(..n).unwrap_or_default()).map_err(verify)?;
        }
        check.finish().map_err(|source| {
            // Whatever damaged it, it is of no use: the next fetch brings it again.
            let _ = fs::remove_file(&path);
            verify(source)
        })?;
        file.seek(SeekFrom::Start(0)).map_err(io("read"))?;
        Ok(file)
    }

    /// A whole blob of at most `limit` bytes.
    pub(crate) fn read(&self, blob: &Blob, limit: u64) -> Result<Vec<u8>, BlobError> {
        if blob.size > limit {
            let source = VerifyError::TooLarge { limit: usize::try_from(limit).unwrap_or(usize::MAX) };
            return Err(BlobError::Verify { what: format!("blob {}", blob.digest), source });
        }
        let mut file = self.open(blob)?;
        let mut bytes = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
        file.read_to_end(&mut bytes).map_err(|source| BlobError::Io {
            what: format!("blob {}", blob.digest),
            action: "read",
            source,
        })?;
        // The file could have changed between the two readings.
        let mut check = StreamVerifier::new(&blob.digest, blob.size);
        let verified = check.update(&bytes).and_then(|()| check.finish());
        verified.map_err(|source| BlobError::Verify { what: format!("blob {}", blob.digest), source })?;
        Ok(bytes)
    }

    /// Whether `blobs` would fit beside what `keep` names; what nothing names is deleted first where that helps.
    pub(crate) fn make_room(&self, blobs: &[&Blob], keep: &BTreeSet<Digest>) -> Result<(), BlobError> {
        let missing: BTreeSet<_> = blobs.iter().filter(|b| !self.has(b)).map(|b| (b.digest, b.size)).collect();
        let needed = missing.iter().fold(0u64, |n, (_, size)| n.saturating_add(*size));
        // Bytes that a partial download already takes are part of what is needed.
        let partial = |name: &str| missing.iter().any(|(d, _)| name == format!("{}.partial", d.hex()));
        let used = || self.list().iter().filter(|(name, _)| !partial(name)).map(|(_, size)| size).sum::<u64>();
        if used().saturating_add(needed) > self.budget {
            let mut keep = keep.clone();
            keep.extend(blobs.iter().map(|b| b.digest));
            self.collect(&keep);
        }
        let used = used();
        if used.saturating_add(needed) > self.budget {
            return Err(BlobError::Full { needed, budget: self.budget, free: self.budget.saturating_sub(used) });
        }
        Ok(())
    }

    /// Deletes what nothing names.
    pub(crate) fn collect(&self, keep: &BTreeSet<Digest>) {
        let keep: BTreeSet<String> = keep.iter().map(Digest::hex).collect();
        for (name, _) in self.list() {
            if !keep.contains(name.trim_end_matches(".partial")) {
                let _ = fs::remove_file(self.dir.join(&name));
            }
        }
    }

    fn list(&self) -> Vec<(String, u64)> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let file = |e: fs::DirEntry| Some((e.file_name().into_string().ok()?, e.metadata().ok()?.len()));
        entries.filter_map(|e| e.ok().and_then(file)).collect()
    }

    /// Goes on with a download, or begins one.
    pub(crate) fn resume(&self, blob: &Blob) -> Result<Partial, BlobError> {
        let path = self.dir.join(format!("{}.partial", blob.digest.hex()));
        let what = format!("blob {}", blob.digest);
        let io = |action| {
            let what = what.clone();
            move |source| BlobError::Io { what, action, source }
        };
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io("written"))?;
        let mut check = StreamVerifier::new(&blob.digest, blob.size);
        let mut buffer = vec![0; READ];
        loop {
            let n = file.read(&mut buffer).map_err(io("read"))?;
            if n == 0 {
                break;
            }
            if check.update(buffer.get(..n).unwrap_or_default()).is_err() {
                return Partial::restart(blob, file, path, self.path(&blob.digest));
            }
        }
        Ok(Partial { blob: blob.clone(), file, path, target: self.path(&blob.digest), check })
    }
}

/// A download under way.
#[derive(Debug)]
pub(crate) struct Partial {
    blob: Blob,
    file: File,
    path: PathBuf,
    target: PathBuf,
    check: StreamVerifier,
}

impl Partial {
    fn restart(blob: &Blob, mut file: File, path: PathBuf, target: PathBuf) -> Result<Self, BlobError> {
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(|source| BlobError::Io {
            what: format!("blob {}", blob.digest),
            action: "written",
            source,
        })?;
        let check = StreamVerifier::new(&blob.digest, blob.size);
        Ok(Self { blob: blob.clone(), file, path, target, check })
    }

    /// From the first byte again: the server does not do ranges.
    pub(crate) fn rewind(self) -> Result<Self, BlobError> {
        Self::restart(&self.blob, self.file, self.path, self.target)
    }

    /// Bytes that are here.
    pub(crate) const fn have(&self) -> u64 {
        self.check.seen()
    }

    /// The next bytes. One byte too many is refused before it is written.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let what = || format!("blob {}", self.blob.digest);
        if let Err(source) = self.check.update(bytes) {
            let _ = fs::remove_file(&self.path);
            return Err(BlobError::Verify { what: what(), source });
        }
        self.file.write_all(bytes).map_err(|source| BlobError::Io { what: what(), action: "written", source })
    }

    /// Verifies the whole and gives it its name, durably.
    pub(crate) fn finish(self) -> Result<(), BlobError> {
        let what = format!("blob {}", self.blob.digest);
        if let Err(source) = self.check.finish() {
            let _ = fs::remove_file(&self.path);
            return Err(BlobError::Verify { what, source });
        }
        let parent = self.target.parent().unwrap_or(Path::new("."));
        let done = self
            .file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, &self.target))
            .and_then(|()| File::open(parent)?.sync_all());
        done.map_err(|source| BlobError::Io { what, action: "kept", source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(bytes: &[u8]) -> Blob {
        Blob { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }

    #[test]
    fn downloads_resume_and_only_the_right_bytes_get_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned(), 1000);
        let want = blob(b"hello world");
        let mut partial = store.resume(&want).unwrap();
        partial.append(b"hello ").unwrap();
        drop(partial);
        assert!(!store.has(&want));
        let mut partial = store.resume(&want).unwrap();
        assert_eq!(partial.have(), 6);
        partial.append(b"world").unwrap();
        partial.finish().unwrap();
        assert_eq!(store.read(&want, 100).unwrap(), b"hello world");

        let mut wrong = store.resume(&blob(b"other")).unwrap();
        wrong.append(b"0ther").unwrap();
        assert!(matches!(wrong.finish(), Err(BlobError::Verify { .. })));
        assert_eq!(store.resume(&blob(b"other")).unwrap().have(), 0);

        let mut long = store.resume(&blob(b"abc")).unwrap();
        assert!(matches!(long.append(b"abcd"), Err(BlobError::Verify { .. })));
    }

    #[test]
    fn damage_on_disk_is_found_when_a_blob_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned(), 1000);
        let want = blob(b"weights");
        let mut partial = store.resume(&want).unwrap();
        partial.append(b"weights").unwrap();
        partial.finish().unwrap();
        fs::write(dir.path().join(want.digest.hex()), b"weightz").unwrap();
        assert!(matches!(store.open(&want), Err(BlobError::Verify { .. })));
        assert!(!store.has(&want));
    }

    #[test]
    fn the_budget_is_kept_and_garbage_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned(), 10);
        let put = |bytes: &[u8]| {
            let mut partial = store.resume(&blob(bytes)).unwrap();
            partial.append(bytes).unwrap();
            partial.finish().unwrap();
        };
        put(b"active");
        put(b"old");
        let next = blob(b"next");
        let keep = BTreeSet::from([Digest::of(b"active")]);
        store.make_room(&[&next], &keep).unwrap();
        assert!(!store.has(&blob(b"old")) && store.has(&blob(b"active")));
        let large = blob(b"large");
        assert!(matches!(store.make_room(&[&large], &keep), Err(BlobError::Full { free: 4, .. })));
    }
}
