//! What was compiled, by all that it depends on: `cache/<key>/outcome.json` beside the artifacts.
//!
//! Releases that are kept have their bundles in the registry; the cache only saves compiling again, after a restart, when a
//! target joins or somebody goes back. So it is bounded by bytes, and what was used longest ago goes first: nothing needs
//! to know what uses it, and whatever is missing is compiled again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use ballast_bundle::Digest;
use ballast_compiler::{Artifacts, COMPILER_VERSION, CompileOutcome, Verdict};
use serde::{Deserialize, Serialize};

use crate::compilation::Compilation;
use crate::state::{self, StateError};

/// The artifacts of a model of the largest size that is read, or of tens of thousands of small ones.
pub const CACHE_BYTES: u64 = 4 << 30;

/// `outcome.json`: written last, removed first.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
    format: u32,
    compiler: u32,
    verdict: Verdict,
    /// Digests of weights, plan, contract and golden, when they were built.
    built: Option<[Digest; 4]>,
}

const OUTCOME: &str = "outcome.json";
const FILES: [&str; 4] = ["weights.bin", "plan.bin", "contract.json", "golden.safetensors"];

/// The cache. Its calls block on the disk.
pub struct Cache {
    root: PathBuf,
    most: u64,
    /// One at a time makes room.
    trimming: Mutex<()>,
}

impl Cache {
    /// Below `root`, at most about `most` bytes.
    pub const fn new(root: PathBuf, most: u64) -> Self {
        Self { root, most, trimming: Mutex::new(()) }
    }

    /// What a compilation depends on, and nothing else.
    pub fn key(of: &Compilation) -> serde_json::Result<Digest> {
        let (model, golden) = (Digest::of(&of.model), of.golden.as_ref().map(|golden| Digest::of(golden)));
        Ok(Digest::of(&serde_json::to_vec(&(COMPILER_VERSION, model, golden, &of.request))?))
    }

    /// What was stored under a key, whole.
    pub fn load(&self, key: &Digest) -> Result<Option<CompileOutcome>, StateError> {
        let directory = self.root.join(key.hex());
        let cached = match state::read_json::<Cached>(&directory.join(OUTCOME)) {
            Ok(Some(cached)) => cached,
            Ok(None) | Err(StateError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if cached.format != 1 || cached.compiler != COMPILER_VERSION {
            return Ok(None);
        }
        let outcome = match cached.built {
            None => CompileOutcome::Refused(cached.verdict),
            Some(digests) => match read(&directory, digests) {
                Some([weights, plan, contract, golden]) => CompileOutcome::Built(Box::new(Artifacts {
                    weights,
                    plan,
                    contract,
                    golden,
                    verdict: cached.verdict,
                })),
                // What was lost or damaged is compiled again.
                None => return Ok(None),
            },
        };
        used(&directory, SystemTime::now());
        Ok(Some(outcome))
    }

    /// Stores an outcome and makes room for it.
    pub fn store(&self, key: &Digest, outcome: &CompileOutcome) -> Result<(), StateError> {
        let directory = self.root.join(key.hex());
        let (verdict, built) = match outcome {
            CompileOutcome::Refused(verdict) => (verdict.clone(), None),
            CompileOutcome::Built(a) => {
                let files = [&a.weights, &a.plan, &a.contract, &a.golden];
                for (name, bytes) in FILES.iter().zip(files) {
                    state::write(&directory.join(name), bytes, 0o600)?;
                }
                (a.verdict.clone(), Some(files.map(|f| Digest::of(f))))
            }
        };
        let cached = Cached { format: 1, compiler: COMPILER_VERSION, verdict, built };
        state::write_json(&directory.join(OUTCOME), &cached)?;
        used(&directory, SystemTime::now());
        self.trim(&directory)
    }

    /// Removes what was used longest ago until the rest fits. What was stored just now stays, whatever its size.
    fn trim(&self, newest: &Path) -> Result<(), StateError> {
        let _one = self.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        let fail = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::File { doing, path, source }
        };
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(fail("listed", &self.root))? {
            let path = entry.map_err(fail("listed", &self.root))?.path();
            all.push((last_used(&path), size(&path), path));
        }
        all.sort();
        let mut total: u64 = all.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in all.into_iter().filter(|(.., path)| path != newest) {
            if total <= self.most {
                break;
            }
            // Half an entry is none: whoever dies here leaves what the next one removes.
            let gone = fs::remove_file(path.join(OUTCOME)).or_else(unless_missing);
            gone.and_then(|()| fs::remove_dir_all(&path).or_else(unless_missing)).map_err(fail("removed", &path))?;
            total -= size;
        }
        Ok(())
    }
}

fn read(directory: &Path, digests: [Digest; 4]) -> Option<[Vec<u8>; 4]> {
    let mut files = Vec::new();
    for (name, digest) in FILES.iter().zip(digests) {
        files.push(fs::read(directory.join(name)).ok().filter(|bytes| Digest::of(bytes) == digest)?);
    }
    files.try_into().ok()
}

/// The time is that of `outcome.json`. That it cannot be set only makes the entry go earlier.
fn used(directory: &Path, at: SystemTime) {
    drop(File::options().write(true).open(directory.join(OUTCOME)).and_then(|file| file.set_modified(at)));
}

/// An entry that is not whole was never used, unless somebody is writing it now: then it is as new as its directory.
fn last_used(directory: &Path) -> SystemTime {
    let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
    modified(&directory.join(OUTCOME)).or_else(|_| modified(directory)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn size(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

fn unless_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ballast_compiler::VerdictReason;

    use super::*;

    fn outcome(weights: usize) -> CompileOutcome {
        CompileOutcome::Built(Box::new(Artifacts {
            weights: vec![7; weights],
            plan: vec![1],
            contract: vec![2],
            golden: vec![3],
            verdict: Verdict {
                peak_memory_bytes: 1,
                size_bytes: 1,
                ..Verdict::new(VerdictReason::Fits, String::new())
            },
        }))
    }

    /// Stores entries 0 to `count`, each used a minute after the one before, long ago.
    fn filled(root: &Path, count: u64) -> (Cache, Vec<Digest>) {
        let cache = Cache::new(root.join("cache"), 6_000);
        let keys: Vec<Digest> = (0..count).map(|n| Digest::of(&n.to_le_bytes())).collect();
        for (key, minute) in keys.iter().zip(0..) {
            cache.store(key, &outcome(1_000)).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(60 * (minute + 1));
            used(&cache.root.join(key.hex()), at);
        }
        (cache, keys)
    }

    fn has(cache: &Cache, keys: &[Digest]) -> Vec<bool> {
        keys.iter().map(|key| cache.root.join(key.hex()).exists()).collect()
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, keys) = filled(directory.path(), 3);
        assert_eq!(has(&cache, &keys), [true; 3]);
        assert!(cache.load(&keys[0]).unwrap().is_some(), "and so it was used just now");
        let new = Digest::of(b"new");
        cache.store(&new, &outcome(1_500)).unwrap();
        assert_eq!(has(&cache, &keys), [true, false, true]);
        cache.store(&new, &outcome(20_000)).unwrap();
        assert_eq!(has(&cache, &keys), [false; 3], "one that is larger than all stays alone");
        assert!(matches!(cache.load(&new).unwrap(), Some(CompileOutcome::Built(a)) if a.weights.len() == 20_000));
    }

    #[test]
    fn half_an_entry_is_none_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, keys) = filled(directory.path(), 2);
        // The process died while it stored one, and while it removed another.
        fs::remove_file(cache.root.join(keys[0].hex()).join(OUTCOME)).unwrap();
        fs::remove_file(cache.root.join(keys[1].hex()).join(FILES[1])).unwrap();
        for key in &keys {
            assert!(cache.load(key).unwrap().is_none());
        }
        cache.store(&Digest::of(b"new"), &outcome(20_000)).unwrap();
        assert_eq!(has(&cache, &keys), [false; 2]);
    }

    #[test]
    fn damaged_bytes_are_compiled_again() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, keys) = filled(directory.path(), 1);
        fs::write(cache.root.join(keys[0].hex()).join(FILES[0]), [7; 999]).unwrap();
        assert!(cache.load(&keys[0]).unwrap().is_none());
        cache.store(&keys[0], &outcome(1_000)).unwrap();
        assert!(cache.load(&keys[0]).unwrap().is_some());
        fs::write(cache.root.join(keys[0].hex()).join(OUTCOME), "{").unwrap();
        assert!(cache.load(&keys[0]).unwrap().is_none());
    }
}
