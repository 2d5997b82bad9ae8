//! From files to objects: read, compare, admit, keep.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ballast_bundle::{NamespaceUid, UnixMillis};
use ballast_crds::validate::{Admission, Refused};
use serde_json::Value;

use super::files::{self, MARKER, Stamp};
use super::overlay::OverlaidFields;
use super::store::{Identity, ObjectStore, Stored};
use crate::state::StateError;

/// A file that was written to more recently is looked at again first: somebody may still be writing.
const SETTLE_MILLIS: u64 = 300;

/// An object that no file holds any more is removed when it was missed for so long: a checkout of another branch, or a
/// synchronisation, takes files away before it puts them back.
const MISSED_MILLIS: u64 = 3_000;
/// And at so many looks in a row: a clock that jumps, or a machine that slept, makes no absence.
const MISSED_LOOKS: u32 = 4;

/// What a look at the directory changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Accepted for the first time, or with another content.
    Put(Identity),
    /// Its file is gone, or does not hold it any more.
    Removed(Identity),
}

/// Something in the directory that was not accepted. What was accepted before stays in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Below the directory; empty for the directory itself.
    pub file: PathBuf,
    /// What is wrong, where, and what to do.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.file.as_os_str().is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.file.display(), self.message)
        }
    }
}

/// A file's documents, or why there are none.
#[derive(Debug, Clone)]
struct Parsed {
    stamp: Stamp,
    documents: Result<Vec<Value>, String>,
}

/// A directory of YAML files as a source of objects.
#[derive(Debug)]
pub struct DirectorySource {
    directory: PathBuf,
    store: ObjectStore,
    admission: Admission,
    parsed: BTreeMap<PathBuf, Parsed>,
    /// Seen once, not yet old enough to be read.
    fresh: BTreeMap<PathBuf, Stamp>,
    /// Objects that no file holds: since when, and at how many looks.
    missed: BTreeMap<Identity, (UnixMillis, u32)>,
    problems: Vec<Problem>,
    whole: bool,
}

impl DirectorySource {
    /// Opens the store below `state`. The directory is looked at by [`Self::poll`].
    pub fn open(directory: &Path, state: &Path) -> Result<Self, StateError> {
        Ok(Self {
            directory: directory.to_owned(),
            store: ObjectStore::open(&state.join("objects"))?,
            admission: Admission::default(),
            parsed: BTreeMap::new(),
            fresh: BTreeMap::new(),
            missed: BTreeMap::new(),
            problems: Vec::new(),
            whole: false,
        })
    }

    /// Whether the last look saw all of the directory: only then does an absent object mean that it was removed.
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// What was not accepted at the last look, sorted.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The objects as last accepted.
    pub fn objects(&self) -> impl Iterator<Item = &Stored> {
        self.store.objects()
    }

    /// UID of a namespace by its name.
    pub fn namespace(&mut self, name: &str) -> Result<NamespaceUid, StateError> {
        self.store.namespace(name)
    }

    /// Writes a status; `false` when nothing changed. Never into the watched tree.
    pub fn put_status(&mut self, identity: &Identity, status: Value) -> Result<bool, StateError> {
        self.store.put_status(identity, status)
    }

    /// Changes an object's overlay: `change` gets what is there and the user's own object. In force at the next look.
    pub fn overlay(
        &mut self,
        identity: &Identity,
        change: impl FnOnce(OverlaidFields, &Value) -> OverlaidFields,
    ) -> Result<(), String> {
        let own = self.own(identity).ok_or_else(|| format!("{identity} is in no file that can be read"))?;
        let before =
            OverlaidFields::read(&self.directory, identity).map_err(|error| error.to_string())?.unwrap_or_default();
        let after = change(before, &own);
        let old = self.store.get(identity).map(|stored| &stored.object);
        self.admission.admit(&after.apply(&own), old).map_err(|refused| refused.to_string())?;
        after.write(&self.directory, identity).map_err(|error| error.to_string())
    }

    /// The user's own object, without overlays.
    fn own(&self, identity: &Identity) -> Option<Value> {
        let mut documents = self.parsed.values().filter_map(|parsed| parsed.documents.as_ref().ok()).flatten();
        documents.rfind(|document| self.identity(document).as_ref() == Some(identity)).cloned()
    }

    fn identity(&self, document: &Value) -> Option<Identity> {
        let word = |pointer| document.pointer(pointer).and_then(Value::as_str);
        let kind = word("/kind")?;
        let namespace =
            if self.admission.is_namespaced(kind)? { word("/metadata/namespace").unwrap_or("default") } else { "" };
        Some(Identity {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: word("/metadata/name")?.to_owned(),
        })
    }

    /// Looks at the directory. An error means that the state directory failed; what the directory itself does wrong is in
    /// [`Self::problems`].
    pub fn poll(&mut self, now: UnixMillis) -> Result<Vec<Change>, StateError> {
        self.problems.clear();
        self.whole = false;
        // A look that cannot be finished misses nothing.
        let before = std::mem::take(&mut self.missed);
        let files = match files::list(&self.directory) {
            Ok(files) => files,
            Err(message) => {
                self.say(Path::new(""), format!("{message}; is it mounted? what was accepted before stays in force"));
                return Ok(Vec::new());
            }
        };
        if let Err(message) = self.check_marker(&files)? {
            self.say(Path::new(""), message);
            return Ok(Vec::new());
        }
        let mut settled = self.read(&files, now);
        let mut changes = Vec::new();
        let (documents, mut kept) = self.documents();
        for (identity, places) in documents {
            let [(file, document)] = places.as_slice() else {
                let names: Vec<_> = places.iter().map(|(file, _)| file.display().to_string()).collect();
                for (file, _) in &places {
                    let message = format!("{identity} is written in {}: keep one of them", names.join(" and in "));
                    self.say(file, message);
                }
                kept.insert(identity);
                continue;
            };
            match self.admit(&identity, document) {
                Ok(object) => {
                    if self.store.put(&identity, object, file, now)? {
                        changes.push(Change::Put(identity.clone()));
                    }
                }
                Err(message) => self.say(file, format!("{identity}: {message}")),
            }
            kept.insert(identity);
        }
        let unreadable: BTreeSet<PathBuf> =
            self.parsed.iter().filter(|(_, parsed)| parsed.documents.is_err()).map(|(file, _)| file.clone()).collect();
        settled &= self.fresh.is_empty();
        let absent = |stored: &&Stored| !kept.contains(&stored.identity) && !unreadable.contains(&stored.file);
        let missed: BTreeMap<Identity, (UnixMillis, u32)> = self
            .store
            .objects()
            .filter(absent)
            .map(|stored| {
                let (since, looks) = before.get(&stored.identity).copied().unwrap_or((now, 0));
                (stored.identity.clone(), (since, looks.saturating_add(1)))
            })
            .collect();
        let gone = |since: UnixMillis, looks| {
            settled && looks >= MISSED_LOOKS && now.0.saturating_sub(since.0) >= MISSED_MILLIS
        };
        let (gone, missed): (BTreeMap<_, _>, _) =
            missed.into_iter().partition(|(_, (since, looks))| gone(*since, *looks));
        self.missed = missed;
        for identity in gone.into_keys() {
            self.store.remove(&identity)?;
            changes.push(Change::Removed(identity));
        }
        self.problems.sort();
        self.problems.dedup();
        self.whole = true;
        Ok(changes)
    }

    fn say(&mut self, file: &Path, message: String) {
        self.problems.push(Problem { file: file.to_owned(), message });
    }

    /// `fleet.yaml` must be there and name the fleet that it named at first.
    fn check_marker(&mut self, files: &[(PathBuf, Stamp)]) -> Result<Result<(), String>, StateError> {
        let directory = self.directory.display();
        if !files.iter().any(|(file, _)| file == Path::new(MARKER)) {
            return Ok(Err(format!(
                "{directory} has no {MARKER}: is it mounted? if it is a new fleet's, write apiVersion: {}, kind: Fleet, \
                 metadata: {{name: …}} into {MARKER}; what was accepted before stays in force",
                ballast_crds::API_VERSION
            )));
        }
        let name = match files::read(&self.directory.join(MARKER)) {
            Ok(documents) => documents
                .iter()
                .find(|document| document.get("kind").and_then(Value::as_str) == Some("Fleet"))
                .and_then(|document| document.pointer("/metadata/name"))
                .and_then(Value::as_str)
                .map(str::to_owned),
            Err(message) => {
                return Ok(Err(format!("{directory}/{MARKER} {message}; what was accepted before stays in force")));
            }
        };
        let Some(name) = name.filter(|name| name.len() <= 253) else {
            return Ok(Err(format!(
                "{directory}/{MARKER} names no fleet: write kind: Fleet and metadata: {{name: …}}"
            )));
        };
        match self.store.fleet() {
            Some(known) if known != name => Ok(Err(format!(
                "{directory}/{MARKER} names the fleet {name:?}, and this state directory is {known:?}'s: is the right disk \
                 mounted? what was accepted before stays in force"
            ))),
            Some(_) => Ok(Ok(())),
            None => self.store.set_fleet(&name).map(Ok),
        }
    }

    /// Reads files that changed and have settled. `false` when one has not: what it held cannot be missed yet.
    fn read(&mut self, files: &[(PathBuf, Stamp)], now: UnixMillis) -> bool {
        let there: BTreeSet<&PathBuf> = files.iter().map(|(file, _)| file).collect();
        self.parsed.retain(|file, _| there.contains(file));
        let before = std::mem::take(&mut self.fresh);
        for (file, stamp) in files {
            if self.parsed.get(file).is_some_and(|parsed| parsed.stamp == *stamp) {
                continue;
            }
            let old_enough = now.0.saturating_sub(stamp.written_millis()) >= SETTLE_MILLIS;
            if !old_enough && before.get(file) != Some(stamp) {
                self.fresh.insert(file.clone(), *stamp);
                continue;
            }
            let documents = files::read(&self.directory.join(file));
            self.parsed.insert(file.clone(), Parsed { stamp: *stamp, documents });
        }
        self.fresh.is_empty()
    }

    /// Every document by identity, and the identities that must not be missed although no document gave them.
    #[allow(clippy::type_complexity)] // said in the line above
    fn documents(&mut self) -> (BTreeMap<Identity, Vec<(PathBuf, Value)>>, BTreeSet<Identity>) {
        let mut documents: BTreeMap<Identity, Vec<(PathBuf, Value)>> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        let mut problems = Vec::new();
        for (file, parsed) in &self.parsed {
            let list = match &parsed.documents {
                Ok(list) => list,
                Err(message) => {
                    problems.push((file.clone(), format!("{message}; what it held before stays in force")));
                    continue;
                }
            };
            for document in list {
                let fleet = document.get("kind").and_then(Value::as_str) == Some("Fleet");
                if fleet && file == Path::new(MARKER) {
                    continue;
                }
                if let Some(identity) = self.identity(document) {
                    documents.entry(identity).or_default().push((file.clone(), document.clone()));
                    continue;
                }
                // Something without a name: any object of this file may be what is meant.
                kept.extend(
                    self.store.objects().filter(|stored| stored.file == *file).map(|stored| stored.identity.clone()),
                );
                let message = match self.admission.admit(document, None) {
                    Err(refused) => refused.to_string(),
                    Ok(_) => "has no identity".to_owned(),
                };
                problems.push((file.clone(), message));
            }
        }
        for (file, message) in problems {
            self.say(&file, message);
        }
        (documents, kept)
    }

    fn admit(&self, identity: &Identity, document: &Value) -> Result<Value, String> {
        let overlay = OverlaidFields::read(&self.directory, identity).map_err(|error| error.to_string())?;
        let document = overlay.map_or_else(|| document.clone(), |overlay| overlay.apply(document));
        let old = self.store.get(identity).map(|stored| &stored.object);
        self.admission.admit(&document, old).map_err(|Refused(violations)| {
            let list: Vec<_> = violations.iter().map(ToString::to_string).collect();
            let stays = if old.is_some() { "; what was accepted before stays in force" } else { "" };
            format!("{}{stays}", list.join("; "))
        })
    }
}
