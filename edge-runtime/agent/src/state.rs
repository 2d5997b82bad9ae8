//! The state directory: one process at a time, and files that are whole or absent after a power cut.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest file of ours that is read back; pointers and slots are a few KiB.
const MAX_FILE: u64 = 8 << 20;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error(
        "the state directory {path} cannot be written; give it to the user that runs ballast-edge, or choose another with --state"
    )]
    NotWritable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the state directory {path} is in use by a running ballast-edge{process}; stop it first, or choose another with --state"
    )]
    Held { path: PathBuf, process: String },
    #[error("the state directory {path} cannot be read; name the one that ballast-edge runs with: --state DIR")]
    Absent {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} cannot be {action}")]
    Io {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{path} cannot be read: {message}; restore it, or move it away and start again")]
    Damaged { path: PathBuf, message: String },
    #[error("{path} has format {found}, this version reads {FORMAT}; install a newer ballast-edge")]
    Format { path: PathBuf, found: u64 },
}

/// Where the store's blobs are.
pub(crate) const BLOBS: &str = "blobs/sha256";

/// Version of every file's format.
pub(crate) const FORMAT: u32 = 1;

/// An open state directory.
#[derive(Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
    /// Held as long as this lives; absent where only reading.
    _lock: Option<File>,
}

impl StateDir {
    /// Makes the directory where there is none, and takes its lock.
    pub(crate) fn lock(root: &Path) -> Result<Self, StateError> {
        let not_writable = |source| StateError::NotWritable { path: root.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(not_writable)?;
        let path = root.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(not_writable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut pid);
                let pid: String = pid.chars().filter(char::is_ascii_digit).collect();
                let process = if pid.is_empty() { String::new() } else { format!(" (process {pid})") };
                return Err(StateError::Held { path: root.to_owned(), process });
            }
            Err(TryLockError::Error(source)) => return Err(StateError::Io { path, action: "locked", source }),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(not_writable)?;
        let dir = Self { root: root.to_owned(), _lock: Some(file) };
        for below in ["identity", "roots", "slots", "escalation", BLOBS] {
            let path = dir.path(below);
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(not_writable)?;
        }
        Ok(dir)
    }

    /// For reading only, beside a running process.
    pub(crate) fn read_only(root: &Path) -> Result<Self, StateError> {
        match fs::read_dir(root) {
            Ok(_) => Ok(Self { root: root.to_owned(), _lock: None }),
            Err(source) => Err(StateError::Absent { path: root.to_owned(), source }),
        }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A JSON document with a `format`, or `None` where there is no file.
    pub(crate) fn read<T: DeserializeOwned>(&self, below: &str) -> Result<Option<T>, StateError> {
        let path = self.path(below);
        let Some(bytes) = self.read_bytes(below)? else { return Ok(None) };
        let damaged = |e: serde_json::Error| StateError::Damaged { path: path.clone(), message: e.to_string() };
        #[derive(serde::Deserialize)]
        struct Head {
            format: u64,
        }
        let head: Head = serde_json::from_slice(&bytes).map_err(damaged)?;
        if head.format != u64::from(FORMAT) {
            return Err(StateError::Format { path, found: head.format });
        }
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// The bytes of a file of ours, or `None` where there is none.
    pub(crate) fn read_bytes(&self, below: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path(below);
        let io = |source| StateError::Io { path: path.clone(), action: "read", source };
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(StateError::Damaged { path, message: "it is far too large".to_owned() });
        }
        Ok(Some(bytes))
    }

    /// Replaces a file durably: after this returned, a power cut finds the new content; before, the old.
    pub(crate) fn write<T: Serialize>(&self, below: &str, value: &T) -> Result<(), StateError> {
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|e| StateError::Damaged { path: self.path(below), message: e.to_string() })?;
        self.write_bytes(below, &bytes)
    }

    /// As [`StateDir::write`], for bytes.
    pub(crate) fn write_bytes(&self, below: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path(below);
        replace(&path, bytes).map_err(|source| StateError::Io { path, action: "written", source })
    }
}

/// Write, flush, rename, flush the directory.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = parent.join(format!(".{name}.new"));
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_read_back_and_other_formats_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::lock(dir.path()).unwrap();
        assert!(state.read::<serde_json::Value>("pointer.json").unwrap().is_none());
        state.write("pointer.json", &serde_json::json!({"format": 1, "a": 2})).unwrap();
        assert_eq!(state.read::<serde_json::Value>("pointer.json").unwrap().unwrap()["a"], 2);
        state.write("pointer.json", &serde_json::json!({"format": 9})).unwrap();
        let error = state.read::<serde_json::Value>("pointer.json").unwrap_err().to_string();
        assert!(error.contains("format 9"), "{error}");
        state.write_bytes("pointer.json", b"{\"form").unwrap();
        assert!(matches!(state.read::<serde_json::Value>("pointer.json"), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn a_second_holder_learns_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::lock(dir.path()).unwrap();
        let error = StateDir::lock(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        StateDir::lock(dir.path()).unwrap();
    }
}
