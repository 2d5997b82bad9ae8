//! Downloads: whatever is here of a blob goes on where it ended, and only the right bytes get the blob's name.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ballast_bundle::{Blob, Digest, StreamVerifier};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use super::{BlobError, READ, Store, failed};

/// Who downloads what: one file has one writer.
#[derive(Debug, Default)]
pub(super) struct Downloads(Mutex<BTreeMap<Digest, Weak<Turn<()>>>>);

/// The right to download a blob.
#[derive(Debug)]
pub(crate) struct Alone {
    _turn: OwnedMutexGuard<()>,
}

impl Store {
    /// Waits until nobody else downloads the blob: two deployments may want the same.
    pub(crate) async fn alone(&self, digest: &Digest) -> Alone {
        let turn = {
            let mut all = self.downloads.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, turn| turn.strong_count() > 0);
            let known = all.get(digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::default();
                all.insert(*digest, Arc::downgrade(&turn));
                turn
            })
        };
        Alone { _turn: turn.lock_owned().await }
    }

    /// Goes on with a download, or begins one.
    pub(crate) fn resume(&self, blob: &Blob, alone: Alone) -> Result<Partial, BlobError> {
        let target = self.path(&blob.digest);
        let path = target.with_extension("partial");
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed(blob, "written"))?;
        let mut check = StreamVerifier::new(&blob.digest, blob.size);
        let mut buffer = vec![0; READ];
        let too_long = loop {
            let n = file.read(&mut buffer).map_err(failed(blob, "read"))?;
            if n == 0 {
                break false;
            }
            if check.update(buffer.get(..n).unwrap_or_default()).is_err() {
                break true;
            }
        };
        let resumed = check.seen() > 0 && !too_long;
        let partial = Partial { blob: blob.clone(), file, path, target, check, resumed, _alone: alone };
        if too_long { partial.rewind() } else { Ok(partial) }
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
    resumed: bool,
    _alone: Alone,
}

impl Partial {
    /// From the first byte again: the server does not do ranges, or what is here cannot be its beginning.
    pub(crate) fn rewind(mut self) -> Result<Self, BlobError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(failed(&self.blob, "written"))?;
        self.check = StreamVerifier::new(&self.blob.digest, self.blob.size);
        self.resumed = false;
        Ok(self)
    }

    /// Bytes that are here.
    pub(crate) const fn have(&self) -> u64 {
        self.check.seen()
    }

    /// Whether some of it came before this process asked for the rest.
    pub(crate) const fn resumed(&self) -> bool {
        self.resumed
    }

    /// The next bytes. One byte too many is refused before it is written.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        if let Err(source) = self.check.update(bytes) {
            let _ = fs::remove_file(&self.path);
            return Err(BlobError::Verify { digest: self.blob.digest, source });
        }
        self.file.write_all(bytes).map_err(failed(&self.blob, "written"))
    }

    /// Verifies the whole and gives it its name, durably.
    pub(crate) fn finish(self) -> Result<(), BlobError> {
        if let Err(source) = self.check.finish() {
            let _ = fs::remove_file(&self.path);
            return Err(BlobError::Verify { digest: self.blob.digest, source });
        }
        let done = self.file.sync_all().and_then(|()| name(&self.path, &self.target));
        done.map_err(failed(&self.blob, "kept"))
    }
}

fn name(path: &Path, target: &Path) -> io::Result<()> {
    fs::rename(path, target)?;
    File::open(target.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::super::tests::blob;
    use super::*;

    impl Store {
        /// Its turn, where nobody else has it.
        fn at_once(&self, digest: &Digest) -> Option<Alone> {
            match pin!(self.alone(digest)).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(alone) => Some(alone),
                Poll::Pending => None,
            }
        }

        fn begin(&self, bytes: &[u8]) -> Partial {
            let blob = blob(bytes);
            self.resume(&blob, self.at_once(&blob.digest).unwrap()).unwrap()
        }

        pub(in crate::store) fn put(&self, bytes: &[u8]) {
            let mut partial = self.begin(bytes).rewind().unwrap();
            partial.append(bytes).unwrap();
            partial.finish().unwrap();
        }
    }

    #[test]
    fn downloads_resume_and_only_the_right_bytes_get_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned(), 1000);
        let want = blob(b"hello world");
        let mut partial = store.begin(b"hello world");
        partial.append(b"hello ").unwrap();
        drop(partial);
        assert!(!store.has(&want));
        let mut partial = store.begin(b"hello world");
        assert!(partial.have() == 6 && partial.resumed());
        partial.append(b"world").unwrap();
        partial.finish().unwrap();
        assert_eq!(store.read(&want, 100).unwrap(), b"hello world");

        let mut wrong = store.begin(b"other");
        wrong.append(b"0ther").unwrap();
        assert!(matches!(wrong.finish(), Err(BlobError::Verify { .. })));
        assert_eq!(store.begin(b"other").have(), 0);

        let mut long = store.begin(b"abc");
        assert!(matches!(long.append(b"abcd"), Err(BlobError::Verify { .. })));
        drop(long);
        fs::write(dir.path().join(format!("{}.partial", Digest::of(b"abc").hex())), b"far too much").unwrap();
        let abc = store.begin(b"abc");
        assert!(abc.have() == 0 && !abc.resumed());
    }

    #[test]
    fn a_blob_has_one_writer_until_its_partial_file_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned(), 1000);
        let partial = store.begin(b"same");
        assert!(store.at_once(&Digest::of(b"same")).is_none());
        drop(store.begin(b"other"));
        drop(partial);
        store.put(b"same");
        assert!(store.has(&blob(b"same")));
    }
}
