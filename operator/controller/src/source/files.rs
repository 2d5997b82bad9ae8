//! The watched tree: which files there are, and which documents are in them. Nothing here writes.

use std::fs::{self, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The marker: without it the directory is not what it should be (a disk that is not mounted).
pub const MARKER: &str = "fleet.yaml";
/// Larger files hold something else.
const MAX_FILE: u64 = 1 << 20;
/// More files than this are not a fleet's.
const MAX_FILES: usize = 2_000;
const MAX_DEPTH: usize = 4;
const MAX_DOCUMENTS: usize = 200;

/// Tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Milliseconds since 1970 of the last write to content or inode.
    pub fn written_millis(&self) -> u64 {
        let millis = |(seconds, nanos): (i64, i64)| seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000);
        u64::try_from(millis(self.modified).max(millis(self.changed))).unwrap_or(0)
    }
}

/// The YAML and JSON files below `root`, sorted, by their paths relative to it. Hidden files, hidden directories and
/// symbolic links to directories are left out.
pub fn list(root: &Path) -> Result<Vec<(PathBuf, Stamp)>, String> {
    let mut found = Vec::new();
    walk(root, Path::new(""), 0, &mut found)?;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn walk(root: &Path, below: &Path, depth: usize, found: &mut Vec<(PathBuf, Stamp)>) -> Result<(), String> {
    let directory = root.join(below);
    let fail = |error: std::io::Error| format!("{} cannot be read: {error}", directory.display());
    for entry in fs::read_dir(&directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = below.join(&name);
        let kind = entry.file_type().map_err(fail)?;
        if kind.is_dir() {
            if depth < MAX_DEPTH {
                walk(root, &path, depth + 1, found)?;
            }
            continue;
        }
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        // A file that vanishes meanwhile is simply not there. A link to a file is what Kubernetes' own mounts are made of.
        let Some(metadata) = yaml.then(|| fs::metadata(root.join(&path)).ok()).flatten() else { continue };
        if metadata.is_file() {
            if found.len() >= MAX_FILES {
                return Err(format!("{} holds more than {MAX_FILES} YAML files", root.display()));
            }
            found.push((path, Stamp::of(&metadata)));
        }
    }
    Ok(())
}

/// Why a file gives no documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// From 1, where one line is to blame.
    pub line: Option<u64>,
    /// A sentence without its subject, the file.
    pub message: String,
}

impl From<String> for Unreadable {
    fn from(message: String) -> Self {
        Self { line: None, message }
    }
}

/// The documents of a file. An empty file is an error: an editor or a full disk left it so.
pub fn read(path: &Path) -> Result<Vec<Value>, Unreadable> {
    parse(&text(path)?)
}

/// A file's text.
pub fn text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes: it is no file of objects"));
    }
    String::from_utf8(bytes).map_err(|error| format!("is not UTF-8: {}", error.utf8_error()))
}

/// The documents of a text.
pub fn parse(text: &str) -> Result<Vec<Value>, Unreadable> {
    // The parser's own defaults bound depth, nodes, aliases and what they expand to.
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        let line = error.location().map(|at| at.line()).filter(|line| *line > 0);
        let plain = error.without_snippet().to_string();
        Unreadable { line, message: format!("is not YAML: {}", plain.lines().next().unwrap_or_default()) }
    })?;
    let documents: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
    if documents.is_empty() {
        return Err("holds no object: it is empty, or was cut short".to_owned().into());
    }
    if documents.len() > MAX_DOCUMENTS {
        return Err(format!("holds more than {MAX_DOCUMENTS} objects: write several files").into());
    }
    Ok(documents)
}
