//! The state directory: one process holds it, and every file in it is whole or absent.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ballast_bundle::{FleetId, UnixMillis};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not ours to write.
    #[error(
        "the state directory {path} is not writable: {source}; choose another --state, or give this user the directory"
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// Why. In the sentence, so no `source()` besides: most who say this error say only its sentence.
        r#source: io::Error,
    },
    /// Another process has it.
    #[error("the state directory {0} is held by a running ballast-operator; stop it, or choose another --state")]
    Held(PathBuf),
    /// A file in it.
    #[error("{path} cannot be {doing}: {source}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why. In the sentence, as above.
        r#source: io::Error,
    },
    /// A file of a newer version, or damaged.
    #[error(
        "{path} cannot be understood ({message}); was it written by a newer ballast-operator? restore it from the backup"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        message: String,
    },
}

/// `installation.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Installation {
    /// 1.
    pub format: u32,
    /// Named at the first start.
    pub fleet: FleetId,
    /// The first start.
    pub created: UnixMillis,
}

/// The directory and the lock on it, which ends with the process.
pub struct StateDir {
    root: PathBuf,
    installation: Installation,
    _lock: File,
}

impl StateDir {
    /// Opens or makes it.
    pub fn open(root: &Path, now: UnixMillis) -> Result<Self, StateError> {
        let not_writable = |source| StateError::NotWritable { path: root.into(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(not_writable)?;
        let root = root.canonicalize().map_err(not_writable)?;
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(root.join("lock"))
            .map_err(|source| StateError::NotWritable { path: root.clone(), source })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StateError::Held(root)),
            Err(fs::TryLockError::Error(source)) => return Err(StateError::NotWritable { path: root, source }),
        }
        let path = root.join("installation.json");
        let installation = match read_json::<Installation>(&path)? {
            Some(known) if known.format == 1 => known,
            Some(known) => return Err(StateError::Damaged { path, message: format!("format {}", known.format) }),
            None => {
                let made = Installation { format: 1, fleet: new_fleet(&path)?, created: now };
                write_json(&path, &made).map_err(|e| match e {
                    StateError::File { source, .. } => StateError::NotWritable { path: root.clone(), source },
                    other => other,
                })?;
                made
            }
        };
        Ok(Self { root, installation, _lock: lock })
    }

    /// A path below it.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// What was decided at the first start.
    pub const fn installation(&self) -> &Installation {
        &self.installation
    }
}

fn new_fleet(path: &Path) -> Result<FleetId, StateError> {
    let random = random_hex::<8>(path)?;
    format!("fleet-{random}").parse().map_err(|_| StateError::Damaged { path: path.into(), message: "fleet id".into() })
}

/// Hex of `N` random bytes.
pub fn random_hex<const N: usize>(path: &Path) -> Result<String, StateError> {
    let mut random = [0; N];
    getrandom::fill(&mut random).map_err(|e| StateError::File {
        doing: "named",
        path: path.into(),
        source: io::Error::other(e.to_string()),
    })?;
    Ok(random.iter().map(|b| format!("{b:02x}")).collect())
}

/// Reads JSON; `None` when there is no such file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::File { doing: "read", path: path.into(), source }),
    };
    let damaged = |e: serde_json::Error| StateError::Damaged { path: path.into(), message: e.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// Writes JSON so that after a crash or power cut the old or the new file is there, whole.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let damaged = |e: serde_json::Error| StateError::Damaged { path: path.into(), message: e.to_string() };
    write(path, &serde_json::to_vec_pretty(value).map_err(damaged)?, 0o600)
}

/// Like [`write_json`], for any bytes and mode.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StateError> {
    let fail = |source| StateError::File { doing: "written", path: path.into(), source };
    let parent = path.parent().ok_or_else(|| fail(io::Error::other("it has no parent")))?;
    fs::create_dir_all(parent).map_err(fail)?;
    let temporary = parent.join(format!(".new-{}", random_hex::<8>(path)?));
    let written = (|| {
        let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(parent)?.sync_all()
    })();
    if written.is_err() {
        drop(fs::remove_file(&temporary)); // the first error is the one that counts
    }
    written.map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_a_state_directory_and_the_fleet_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let state = StateDir::open(&path, UnixMillis(1)).unwrap();
        let fleet = state.installation().fleet.clone();
        assert!(matches!(StateDir::open(&path, UnixMillis(2)), Err(StateError::Held(_))));
        drop(state);
        assert_eq!(StateDir::open(&path, UnixMillis(3)).unwrap().installation().fleet, fleet);
    }

    #[test]
    fn a_state_directory_that_cannot_be_made_says_what_to_do() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let Err(error) = StateDir::open(&file.path().join("state"), UnixMillis(1)) else { panic!("opened") };
        assert!(error.to_string().contains("choose another --state"), "{error}");
        // By itself, and with all its causes as `main` prints it: why is said, and said once.
        for text in [error.to_string(), format!("{:#}", anyhow::Error::from(error))] {
            assert_eq!(text.matches("Not a directory").count(), 1, "{text}");
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"{"format":2,"fleet":"f","created":1}"#;
        fs::write(directory.path().join("installation.json"), text).unwrap();
        assert!(matches!(StateDir::open(directory.path(), UnixMillis(1)), Err(StateError::Damaged { .. })));
    }
}
