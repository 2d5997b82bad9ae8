//! From files to objects: read, compare, admit, keep.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ballast_bundle::{NamespaceUid, UnixMillis};
use ballast_crds::validate::{Admission, Refused};
use serde_json::Value;

use super::files::{self, MARKER, Stamp, Unreadable};
use super::lines::Lines;
use super::overlay::OverlaidFields;
pub use super::problem::Problem;
use super::store::{Identity, ObjectStore, Stored};
use crate::events::Event;
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

/// A file's documents, or why there are none.
#[derive(Debug, Clone)]
struct Parsed {
    stamp: Stamp,
    documents: Result<Vec<Value>, Unreadable>,
    /// Where the fields of each document stand; read when the first of them is found to be wrong.
    lines: Option<Vec<Lines>>,
}

/// One document, and where it was found.
#[derive(Debug)]
struct Place {
    file: PathBuf,
    /// Which document of the file.
    index: usize,
    document: Value,
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

    /// Of those, what concerns an object.
    pub fn problems_of(&self, stored: &Stored) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.concerns(stored))
    }

    /// An object as last accepted.
    pub fn get(&self, identity: &Identity) -> Option<&Stored> {
        self.store.get(identity)
    }

    /// The objects as last accepted.
    pub fn objects(&self) -> impl Iterator<Item = &Stored> {
        self.store.objects()
    }

    /// UID of a namespace by its name.
    pub fn namespace(&mut self, name: &str) -> Result<NamespaceUid, StateError> {
        self.store.namespace(name)
    }

    /// The names of all namespaces that have a UID.
    pub fn namespaces(&self) -> BTreeMap<NamespaceUid, String> {
        self.store.namespaces()
    }

    /// Writes a status; `false` when nothing changed. Never into the watched tree.
    pub fn put_status(&mut self, identity: &Identity, status: Value) -> Result<bool, StateError> {
        self.store.put_status(identity, status)
    }

    /// Remembers an event of an object that is there.
    pub fn put_event(&mut self, identity: &Identity, event: Event) -> Result<(), StateError> {
        self.store.put_event(identity, event)
    }

    /// The events of an object, the newest last.
    pub fn events(&self, identity: &Identity) -> Result<Vec<Event>, StateError> {
        self.store.events(identity)
    }

    /// Changes an object's overlay: `change` gets what is there and the user's own object. In force at the next look.
    pub fn overlay(
        &mut self,
        identity: &Identity,
        change: impl FnOnce(OverlaidFields, &Value) -> OverlaidFields,
    ) -> Result<(), String> {
        // Asked now, and not of the last look: what is written below an empty mount point is hidden by what is mounted later.
        if let Err(message) = self.files().map_err(|error| error.to_string())? {
            return Err(format!("nothing was changed: {message}"));
        }
        let own = self.own(identity)?;
        let before =
            OverlaidFields::read(&self.directory, identity).map_err(|error| error.to_string())?.unwrap_or_default();
        let after = change(before, &own);
        let old = self.store.get(identity).map(|stored| &stored.object);
        self.admission.admit(&after.apply(&own), old).map_err(|refused| refused.to_string())?;
        after.write(&self.directory, identity).map_err(|error| error.to_string())
    }

    /// The user's own object, without overlays. One that is not in force is none to lie over: the wish would wait unseen.
    fn own(&self, identity: &Identity) -> Result<Value, String> {
        let readable = self.parsed.values().filter_map(|parsed| parsed.documents.as_ref().ok()).flatten();
        let mut found = readable.filter(|document| self.identity(document).as_ref() == Some(identity));
        let problems = || {
            let concerning = self.store.get(identity).into_iter().flat_map(|stored| self.problems_of(stored));
            concerning.map(|problem| format!("; {problem}")).collect::<String>()
        };
        match (found.next(), found.next()) {
            (Some(own), None) => Ok(own.clone()),
            (Some(_), Some(_)) => Err(format!("nothing was changed{}", problems())),
            (None, _) => Err(format!("nothing was changed: {identity} is in no file that can be read{}", problems())),
        }
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
        let files = match self.files()? {
            Ok(files) => files,
            Err(message) => {
                self.say(Path::new(""), None, None, format!("{message}; what was accepted before stays in force"));
                return Ok(Vec::new());
            }
        };
        let mut settled = self.read(&files, now);
        let mut changes = Vec::new();
        let (documents, mut kept) = self.documents();
        for (identity, places) in documents {
            let [place] = places.as_slice() else {
                let names: Vec<_> = places.iter().map(|place| place.file.display().to_string()).collect();
                for place in &places {
                    let message = format!("{identity} is written in {}: keep one of them", names.join(" and in "));
                    let line = self.line(&place.file, place.index, &["metadata.name".to_owned()]);
                    self.say(&place.file, line, Some(identity.clone()), message);
                }
                kept.insert(identity);
                continue;
            };
            match self.admit(&identity, &place.document) {
                Ok(object) => {
                    if self.store.put(&identity, object, &place.file, now)? {
                        changes.push(Change::Put(identity.clone()));
                    }
                }
                Err((paths, message)) => {
                    let line = self.line(&place.file, place.index, &paths);
                    self.say(&place.file, line, Some(identity.clone()), format!("{identity}: {message}"));
                }
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

    fn say(&mut self, file: &Path, line: Option<u64>, object: Option<Identity>, message: String) {
        self.problems.push(Problem { file: file.to_owned(), line, object, message });
    }

    /// Where the first field that is wrong stands.
    fn line(&mut self, file: &Path, index: usize, paths: &[String]) -> Option<u64> {
        let lines = &mut self.parsed.get_mut(file)?.lines;
        let lines = lines.get_or_insert_with(|| {
            files::text(&self.directory.join(file)).map(|text| Lines::of(&text)).unwrap_or_default()
        });
        lines.get(index)?.first(paths)
    }

    /// The directory's files, if it is the fleet's directory and all of it can be seen; why not otherwise.
    fn files(&mut self) -> Result<Result<Vec<(PathBuf, Stamp)>, String>, StateError> {
        let files = match files::list(&self.directory) {
            Ok(files) => files,
            Err(message) => return Ok(Err(format!("{message}: is it mounted?"))),
        };
        Ok(self.check_marker(&files)?.map(|()| files))
    }

    /// `fleet.yaml` must be there and name the fleet that it named at first.
    fn check_marker(&mut self, files: &[(PathBuf, Stamp)]) -> Result<Result<(), String>, StateError> {
        let directory = self.directory.display();
        if !files.iter().any(|(file, _)| file == Path::new(MARKER)) {
            return Ok(Err(format!(
                "{directory} has no {MARKER}: is it mounted? if it is a new fleet's, write apiVersion: {}, kind: Fleet, \
                 metadata: {{name: …}} into {MARKER}",
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
            Err(Unreadable { message, .. }) => return Ok(Err(format!("{directory}/{MARKER} {message}"))),
        };
        let Some(name) = name.filter(|name| name.len() <= 253) else {
            return Ok(Err(format!(
                "{directory}/{MARKER} names no fleet: write kind: Fleet and metadata: {{name: …}}"
            )));
        };
        match self.store.fleet() {
            Some(known) if known != name => Ok(Err(format!(
                "{directory}/{MARKER} names the fleet {name:?}, and this state directory is {known:?}'s: is the right disk \
                 mounted?"
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
            self.parsed.insert(file.clone(), Parsed { stamp: *stamp, documents, lines: None });
        }
        self.fresh.is_empty()
    }

    /// Every document by identity, and the identities that must not be missed although no document gave them.
    fn documents(&mut self) -> (BTreeMap<Identity, Vec<Place>>, BTreeSet<Identity>) {
        let mut documents: BTreeMap<Identity, Vec<Place>> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        let mut nameless = Vec::new();
        for (file, parsed) in &self.parsed {
            let list = match &parsed.documents {
                Ok(list) => list,
                Err(Unreadable { line, message }) => {
                    let message = format!("{message}; what it held before stays in force");
                    self.problems.push(Problem { file: file.clone(), line: *line, object: None, message });
                    continue;
                }
            };
            for (index, document) in list.iter().enumerate() {
                let fleet = document.get("kind").and_then(Value::as_str) == Some("Fleet");
                if fleet && file == Path::new(MARKER) {
                    continue;
                }
                if let Some(identity) = self.identity(document) {
                    let place = Place { file: file.clone(), index, document: document.clone() };
                    documents.entry(identity).or_default().push(place);
                    continue;
                }
                // Something without a name: any object of this file may be what is meant.
                kept.extend(
                    self.store.objects().filter(|stored| stored.file == *file).map(|stored| stored.identity.clone()),
                );
                let (paths, message) = match self.admission.admit(document, None) {
                    Err(refused) => said(&refused),
                    Ok(_) => (Vec::new(), "has no identity".to_owned()),
                };
                nameless.push((file.clone(), index, paths, message));
            }
        }
        for (file, index, paths, message) in nameless {
            let line = self.line(&file, index, &paths);
            self.say(&file, line, None, message);
        }
        (documents, kept)
    }

    /// The object with its overlay and defaults; else the paths of what is wrong, and what is wrong.
    fn admit(&self, identity: &Identity, document: &Value) -> Result<Value, (Vec<String>, String)> {
        let overlay = OverlaidFields::read(&self.directory, identity);
        let overlay = overlay.map_err(|error| (Vec::new(), error.to_string()))?;
        let document = overlay.map_or_else(|| document.clone(), |overlay| overlay.apply(document));
        let old = self.store.get(identity).map(|stored| &stored.object);
        self.admission.admit(&document, old).map_err(|refused| {
            let (paths, message) = said(&refused);
            let stays = if old.is_some() { "; what was accepted before stays in force" } else { "" };
            (paths, format!("{message}{stays}"))
        })
    }
}

/// Where the violations are, and what they are.
fn said(refused: &Refused) -> (Vec<String>, String) {
    (refused.0.iter().map(|violation| violation.path.clone()).collect(), refused.to_string())
}
