//! The object store: one JSON file per object below `STATE/objects`, whole or absent.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ballast_bundle::{NamespaceUid, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::events::{self, Event};
use crate::state::{StateError, random_hex, read_json, write_json};

/// Old specs that are kept of one object.
const MAX_HISTORY: usize = 10;

/// Where an object lives: the same identity is the same object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// `ModelDeployment`, ….
    pub kind: String,
    /// `default` where the file says none; empty for kinds that belong to no namespace.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

/// An old spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// It was this generation's.
    pub generation: i64,
    /// Until when.
    pub until: UnixMillis,
    /// As admitted, defaults filled in.
    pub spec: Value,
}

/// One object as last accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// 1.
    pub format: u32,
    /// Where it lives.
    pub identity: Identity,
    /// Never given twice: an object that is removed and made again is another one.
    pub uid: String,
    /// Grows with every change of the spec.
    pub generation: i64,
    /// Grows with every change of anything, across all objects.
    pub resource_version: u64,
    /// When it was first accepted.
    pub created: UnixMillis,
    /// `apiVersion`, `kind`, `metadata` and `spec` as admitted.
    pub object: Value,
    /// Written by the operator only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
    /// Below the watched directory.
    pub file: PathBuf,
    /// The newest first.
    #[serde(default)]
    pub history: Vec<Revision>,
}

impl Stored {
    /// The object as an API server would give it: with UID, generation, resource version, creation time and status.
    pub fn complete(&self) -> Value {
        let mut object = self.object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            if !self.identity.namespace.is_empty() {
                metadata.insert("namespace".into(), self.identity.namespace.clone().into());
            }
            metadata.insert("uid".into(), self.uid.clone().into());
            metadata.insert("generation".into(), self.generation.into());
            metadata.insert("resourceVersion".into(), self.resource_version.to_string().into());
            let created = ballast_crds::conditions::rfc3339(self.created);
            metadata.insert("creationTimestamp".into(), created.into());
        }
        if let (Some(status), Some(map)) = (&self.status, object.as_object_mut()) {
            map.insert("status".into(), status.clone());
        }
        object
    }
}

/// What is known of namespaces and numbers; rewritten before an object that uses it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    format: u32,
    resource_version: u64,
    namespaces: BTreeMap<String, NamespaceUid>,
    /// `metadata.name` of `fleet.yaml` when it was first read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fleet: Option<String>,
}

/// `events/UID.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Events {
    format: u32,
    events: Vec<Event>,
}

/// All objects of an installation. One process holds it: the state directory's lock sees to that.
#[derive(Debug)]
pub struct ObjectStore {
    root: PathBuf,
    index: Index,
    objects: BTreeMap<Identity, Stored>,
}

impl ObjectStore {
    /// Opens or makes the store at `root`.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let index: Index = read_json(&root.join("index.json"))?.unwrap_or_default();
        let mut store = Self { root: root.to_owned(), index, objects: BTreeMap::new() };
        let fail = |source| StateError::File { doing: "listed", path: root.to_owned(), source };
        let directory = store.root.join("by-uid");
        fs::create_dir_all(&directory).map_err(fail)?;
        for entry in fs::read_dir(&directory).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            // What starts with a dot is a write that a crash cut short.
            let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden {
                continue;
            }
            if let Some(stored) = read_json::<Stored>(&path)? {
                if stored.format != 1 {
                    return Err(StateError::Damaged { path, message: format!("format {}", stored.format) });
                }
                store.index.resource_version = store.index.resource_version.max(stored.resource_version);
                store.objects.insert(stored.identity.clone(), stored);
            }
        }
        Ok(store)
    }

    /// All of them, by identity.
    pub fn objects(&self) -> impl Iterator<Item = &Stored> {
        self.objects.values()
    }

    /// One.
    pub fn get(&self, identity: &Identity) -> Option<&Stored> {
        self.objects.get(identity)
    }

    /// UID of a namespace by its name; made at the first question.
    pub fn namespace(&mut self, name: &str) -> Result<NamespaceUid, StateError> {
        if let Some(uid) = self.index.namespaces.get(name) {
            return Ok(uid.clone());
        }
        let path = self.root.join("index.json");
        let uid: NamespaceUid = random_hex::<16>(&path)?
            .parse()
            .map_err(|_| StateError::Damaged { path: path.clone(), message: "namespace UID".into() })?;
        let mut index = self.index.clone();
        index.format = 1;
        index.namespaces.insert(name.to_owned(), uid.clone());
        write_json(&path, &index)?;
        self.index = index;
        Ok(uid)
    }

    /// The names of all namespaces that have a UID.
    pub fn namespaces(&self) -> BTreeMap<NamespaceUid, String> {
        self.index.namespaces.iter().map(|(name, uid)| (uid.clone(), name.clone())).collect()
    }

    /// The fleet's name that the directory had when it was first read.
    pub fn fleet(&self) -> Option<&str> {
        self.index.fleet.as_deref()
    }

    /// Remembers the fleet's name.
    pub fn set_fleet(&mut self, name: &str) -> Result<(), StateError> {
        let mut index = self.index.clone();
        index.format = 1;
        index.fleet = Some(name.to_owned());
        write_json(&self.root.join("index.json"), &index)?;
        self.index = index;
        Ok(())
    }

    /// Takes an admitted object in. `true` when anything changed; the same object again is not a change.
    pub fn put(
        &mut self,
        identity: &Identity,
        object: Value,
        file: &Path,
        now: UnixMillis,
    ) -> Result<bool, StateError> {
        let stored = match self.objects.get(identity) {
            Some(old) if old.object == object && old.file == file => return Ok(false),
            Some(old) => {
                let mut new = old.clone();
                if old.object.get("spec") != object.get("spec") {
                    let spec = old.object.get("spec").cloned().unwrap_or_default();
                    new.history.insert(0, Revision { generation: old.generation, until: now, spec });
                    new.history.truncate(MAX_HISTORY);
                    new.generation += 1;
                }
                (new.object, new.file) = (object, file.to_owned());
                new
            }
            None => Stored {
                format: 1,
                identity: identity.clone(),
                uid: random_hex::<16>(&self.root)?,
                generation: 1,
                resource_version: 0,
                created: now,
                object,
                status: None,
                file: file.to_owned(),
                history: Vec::new(),
            },
        };
        self.write(stored)?;
        Ok(true)
    }

    /// Writes a status. `false` when it is the one that is there, or the object is gone.
    pub fn put_status(&mut self, identity: &Identity, status: Value) -> Result<bool, StateError> {
        let Some(old) = self.objects.get(identity).filter(|old| old.status.as_ref() != Some(&status)) else {
            return Ok(false);
        };
        let stored = Stored { status: Some(status), ..old.clone() };
        self.write(stored)?;
        Ok(true)
    }

    /// Remembers an event beside the object: it is no part of it, and makes no new version. Nothing is kept of an object that
    /// is gone.
    pub fn put_event(&mut self, identity: &Identity, event: Event) -> Result<(), StateError> {
        let Some(stored) = self.objects.get(identity) else { return Ok(()) };
        let path = self.events_path(&stored.uid);
        let mut kept = read_json::<Events>(&path)?.unwrap_or_default();
        kept.format = 1;
        events::record(&mut kept.events, event);
        write_json(&path, &kept)
    }

    /// The events of an object, the newest last.
    pub fn events(&self, identity: &Identity) -> Result<Vec<Event>, StateError> {
        let Some(stored) = self.objects.get(identity) else { return Ok(Vec::new()) };
        Ok(read_json::<Events>(&self.events_path(&stored.uid))?.unwrap_or_default().events)
    }

    /// Removes an object; what it was is returned.
    pub fn remove(&mut self, identity: &Identity) -> Result<Option<Stored>, StateError> {
        let Some(stored) = self.objects.get(identity) else { return Ok(None) };
        let path = self.path(&stored.uid);
        let fail = |source| StateError::File { doing: "removed", path: path.clone(), source };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        // What is left of events is never read again: no other object has the UID.
        drop(fs::remove_file(self.events_path(&stored.uid)));
        fs::File::open(self.root.join("by-uid")).and_then(|directory| directory.sync_all()).map_err(fail)?;
        Ok(self.objects.remove(identity))
    }

    fn write(&mut self, mut stored: Stored) -> Result<(), StateError> {
        stored.resource_version = self.index.resource_version + 1;
        write_json(&self.path(&stored.uid), &stored)?;
        // Only now: a write that failed changes nothing.
        self.index.resource_version = stored.resource_version;
        self.objects.insert(stored.identity.clone(), stored);
        Ok(())
    }

    fn events_path(&self, uid: &str) -> PathBuf {
        self.root.join("events").join(format!("{uid}.json"))
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.root.join("by-uid").join(format!("{uid}.json"))
    }
}
