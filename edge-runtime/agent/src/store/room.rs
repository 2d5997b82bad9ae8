//! Room: what must stay, what is on its way, and what may be deleted for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, MutexGuard, PoisonError};

use ballast_bundle::{Blob, Digest};

use super::{BlobError, Store};

/// Who needs what.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// What slots, assignment and runner name. `None` until it is known.
    keep: Option<BTreeSet<Digest>>,
    /// Blobs on their way or just come, by reservation.
    reserved: BTreeMap<u64, Vec<Blob>>,
    next: u64,
}

/// Room for blobs until this is dropped: nothing deletes them, nobody else is promised the same bytes.
#[derive(Debug)]
pub(crate) struct Reservation {
    store: Arc<Store>,
    id: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.store.room().reserved.remove(&self.id);
    }
}

impl Store {
    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What must stay from now on, beside what is reserved.
    pub(crate) fn keep(&self, keep: BTreeSet<Digest>) {
        self.room().keep = Some(keep);
    }

    /// Room for `blobs`, beside everything that stays and everything that others are promised. What nothing names is
    /// deleted first where that helps.
    pub(crate) fn reserve<'a>(
        self: &Arc<Self>,
        blobs: impl IntoIterator<Item = &'a Blob>,
    ) -> Result<Reservation, BlobError> {
        let mut room = self.room();
        let id = room.next;
        room.next = id.wrapping_add(1);
        room.reserved.insert(id, blobs.into_iter().cloned().collect());
        let mut used = self.used(&room);
        if used > self.budget {
            self.delete_unnamed(&room);
            used = self.used(&room);
        }
        if used > self.budget {
            let own = room.reserved.remove(&id).unwrap_or_default();
            let without = self.used(&room);
            let missing: BTreeMap<Digest, u64> =
                own.iter().filter(|b| !self.has(b)).map(|b| (b.digest, b.size)).collect();
            let needed = missing.values().fold(0u64, |sum, size| sum.saturating_add(*size));
            return Err(BlobError::Full { needed, budget: self.budget, free: self.budget.saturating_sub(without) });
        }
        Ok(Reservation { store: Arc::clone(self), id })
    }

    /// Deletes what is neither kept nor reserved.
    pub(crate) fn collect(&self) {
        self.delete_unnamed(&self.room());
    }

    /// Bytes on disk, with every reserved blob counted whole, however much of it is here.
    fn used(&self, room: &Room) -> u64 {
        let mut files: BTreeMap<String, u64> = self.files().collect();
        for blob in room.reserved.values().flatten() {
            let name = blob.digest.hex();
            files.remove(&format!("{name}.partial"));
            files.insert(name, blob.size);
        }
        files.values().fold(0, |sum, size| sum.saturating_add(*size))
    }

    fn delete_unnamed(&self, room: &Room) {
        let Some(keep) = &room.keep else { return };
        let reserved = room.reserved.values().flatten().map(|blob| &blob.digest);
        let named: BTreeSet<String> = keep.iter().chain(reserved).map(Digest::hex).collect();
        for (name, _) in self.files() {
            if !named.contains(name.trim_end_matches(".partial")) {
                let _ = fs::remove_file(self.dir.join(&name));
            }
        }
    }

    fn files(&self) -> impl Iterator<Item = (String, u64)> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten();
        entries.filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.len()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::blob;
    use super::*;

    fn store(budget: u64) -> (tempfile::TempDir, Arc<Store>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::new(dir.path().to_owned(), budget));
        (dir, store)
    }

    fn digests<const N: usize>(all: [&[u8]; N]) -> BTreeSet<Digest> {
        all.into_iter().map(Digest::of).collect()
    }

    #[test]
    fn the_budget_is_kept_and_garbage_makes_room() {
        let (_dir, store) = store(10);
        store.put(b"active");
        store.put(b"old");
        store.keep(digests([b"active"]));
        let next = store.reserve([&blob(b"next")]).unwrap();
        assert!(!store.has(&blob(b"old")) && store.has(&blob(b"active")));
        drop(next);
        let refused = store.reserve([&blob(b"large")]);
        assert!(matches!(refused, Err(BlobError::Full { needed: 5, budget: 10, free: 4 })), "{refused:?}");
        store.reserve([&blob(b"next")]).unwrap();
    }

    #[test]
    fn two_downloads_are_not_promised_the_same_bytes() {
        let (dir, store) = store(10);
        store.keep(BTreeSet::new());
        let first = store.reserve([&blob(b"first!")]).unwrap();
        // Half of it is here: it counts whole, once.
        fs::write(dir.path().join(format!("{}.partial", Digest::of(b"first!").hex())), b"fir").unwrap();
        let refused = store.reserve([&blob(b"second")]);
        assert!(matches!(refused, Err(BlobError::Full { needed: 6, free: 4, .. })), "{refused:?}");
        // The same bytes for another deployment take no more room.
        let shared = store.reserve([&blob(b"first!"), &blob(b"more")]).unwrap();
        drop(first);
        assert!(store.reserve([&blob(b"second")]).is_err());
        drop(shared);
        store.reserve([&blob(b"second")]).unwrap();
    }

    #[test]
    fn what_is_reserved_is_not_collected_and_what_nobody_spoke_of_yet_neither() {
        let (_dir, store) = store(100);
        for bytes in [&b"kept"[..], b"coming", b"garbage"] {
            store.put(bytes);
        }
        store.collect();
        assert!(store.has(&blob(b"garbage")), "nothing was said of what must stay");
        let coming = store.reserve([&blob(b"coming")]).unwrap();
        store.keep(digests([b"kept"]));
        store.collect();
        assert!(store.has(&blob(b"kept")) && store.has(&blob(b"coming")) && !store.has(&blob(b"garbage")));
        drop(coming);
        store.collect();
        assert!(store.has(&blob(b"kept")) && !store.has(&blob(b"coming")));
    }
}
