//! What goes: repositories that were withdrawn, manifests that nobody names any more, content that no repository has.
//!
//! All of it is worked out from what is on the disk, and goes in an order in which nothing is found whose parts are gone.
//! Whoever died in between does the rest by doing it again.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ballast_bundle::Digest;

use super::{ManifestOutline, Registry, RegistryError, Repository};

/// Kinds of links, in the order in which they go: names before what they name.
const KINDS: [&str; 4] = ["tags", "referrers", "manifests", "blobs"];

impl Registry {
    /// All repositories.
    pub fn repositories(&self) -> Result<Vec<Repository>, RegistryError> {
        let (root, mut found) = (self.root.join("repositories"), Vec::new());
        walk(&root, &mut |directory| {
            let name = directory.strip_prefix(&root).ok().and_then(Path::to_str);
            found.extend(name.and_then(|name| name.parse().ok()));
            Ok(())
        })?;
        Ok(found)
    }

    /// Withdraws a repository, those below it not; content that no other one has goes with the next
    /// [`Registry::collect_garbage`].
    pub fn remove(&self, repository: &Repository) -> Result<(), RegistryError> {
        for kind in KINDS {
            remove_all(&self.link(repository, kind))?;
        }
        // Stays while there are others below it.
        drop(fs::remove_dir(self.root.join("repositories").join(repository.as_str())));
        Ok(())
    }

    /// Leaves of a repository what `named` names, and what that needs: manifests by their digest, referrers of those by
    /// the digest of what they carry. Returns whether anything went. Only while nothing is being published there.
    pub fn retain(&self, repository: &Repository, named: &HashSet<Digest>) -> Result<bool, RegistryError> {
        let surplus = self.surplus(repository, named)?;
        for path in &surplus {
            remove_all(path)?;
        }
        Ok(!surplus.is_empty())
    }

    /// What [`Registry::retain`] removes, in order.
    fn surplus(&self, repository: &Repository, named: &HashSet<Digest>) -> Result<Vec<PathBuf>, RegistryError> {
        let links = |kind| entries(&self.link(repository, kind));
        let stays = |path: &Path, kept: &HashSet<Digest>| digest(path).is_some_and(|digest| kept.contains(&digest));
        let (manifests, mut kept) = (links("manifests")?, HashSet::new());
        for digest in manifests.iter().filter_map(|path| digest(path)).filter(|digest| named.contains(digest)) {
            kept.insert(digest);
            kept.extend(self.outline(&digest)?.parts());
        }
        let mut surplus = Vec::new();
        for subject in links("referrers")? {
            if !stays(&subject, &kept) {
                surplus.push(subject);
                continue;
            }
            for path in entries(&subject)? {
                let Some(referrer) = digest(&path) else { continue };
                let outline = self.outline(&referrer)?;
                if outline.layers.iter().any(|layer| named.contains(&layer.digest)) {
                    kept.insert(referrer);
                    kept.extend(outline.parts());
                } else {
                    surplus.push(path);
                }
            }
        }
        let mut gone = Vec::new();
        for tag in links("tags")? {
            let target = fs::read_to_string(&tag).ok().and_then(|text| text.trim().parse().ok());
            if !target.is_some_and(|digest| kept.contains(&digest)) {
                gone.push(tag);
            }
        }
        gone.append(&mut surplus);
        gone.extend(manifests.into_iter().filter(|path| !stays(path, &kept)));
        gone.extend(links("blobs")?.into_iter().filter(|path| !stays(path, &kept)));
        Ok(gone)
    }

    fn outline(&self, digest: &Digest) -> Result<ManifestOutline, RegistryError> {
        let path = self.blob_path(digest);
        let bytes = fs::read(&path).map_err(|source| RegistryError::Io { doing: "read", path, source })?;
        serde_json::from_slice(&bytes).map_err(|e| RegistryError::Manifest(e.to_string()))
    }

    /// Removes content that no repository has; returns the bytes freed. Only while nothing is being published.
    pub fn collect_garbage(&self) -> Result<u64, RegistryError> {
        let mut linked = HashSet::<OsString>::new();
        walk(&self.root.join("repositories"), &mut |repository| {
            let blobs = entries(&repository.join("_blobs"))?;
            linked.extend(blobs.iter().filter_map(|path| path.file_name().map(OsString::from)));
            Ok(())
        })?;
        let mut freed = 0;
        for path in entries(&self.blobs())? {
            if !path.file_name().is_some_and(|name| linked.contains(name)) {
                freed += fs::metadata(&path).map_or(0, |m| m.len());
                remove_all(&path)?;
            }
        }
        Ok(freed)
    }
}

impl ManifestOutline {
    /// What a manifest is nothing without.
    fn parts(&self) -> impl Iterator<Item = Digest> {
        self.config.iter().chain(&self.layers).map(|part| part.digest)
    }
}

/// A link's digest; `None` for what is none, such as a file whose writer died.
fn digest(path: &Path) -> Option<Digest> {
    format!("sha256:{}", path.file_name()?.to_str()?).parse().ok()
}

/// Calls `found` with every directory below `directory` that holds links.
fn walk(directory: &Path, found: &mut dyn FnMut(&Path) -> Result<(), RegistryError>) -> Result<(), RegistryError> {
    let mut holds = false;
    for path in entries(directory)?.into_iter().filter(|path| path.is_dir()) {
        // `_` starts no component of a repository's name.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('_')) {
            holds = true;
        } else {
            walk(&path, found)?;
        }
    }
    if holds { found(directory) } else { Ok(()) }
}

/// Sorted; none when there is no such directory.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let fail = |source| RegistryError::Io { doing: "listed", path: directory.into(), source };
    let list = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        list => list.map_err(fail)?,
    };
    let mut paths = list.map(|entry| entry.map(|e| e.path()).map_err(fail)).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

/// A file or a directory, which may be gone already.
fn remove_all(path: &Path) -> Result<(), RegistryError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RegistryError::Io { doing: "removed", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

    fn put(registry: &Registry, at: &Repository, layers: &[&str], subject: Option<&Digest>, tags: &[&str]) -> Digest {
        let descriptor = |bytes: &[u8]| {
            let blob = registry.put_blob(at, bytes).unwrap();
            json!({"mediaType": "text/plain", "digest": blob.digest, "size": blob.size})
        };
        let mut manifest = json!({
            "schemaVersion": 2,
            "config": descriptor(b"{}"),
            "layers": layers.iter().map(|l| descriptor(l.as_bytes())).collect::<Vec<_>>(),
        });
        if let Some(subject) = subject {
            manifest["subject"] = json!({"mediaType": TYPE, "digest": subject, "size": 1});
        }
        registry.put_manifest(at, TYPE, manifest.to_string().as_bytes(), tags).unwrap().digest
    }

    /// Every file below, with its content.
    fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for path in entries(root).unwrap() {
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
        found
    }

    /// Three releases in one repository, one elsewhere; returns what names the newest.
    fn filled(root: &Path) -> (Registry, Repository, HashSet<Digest>) {
        let registry = Registry::open(root).unwrap();
        let (digits, other) = ("ns/digits".parse().unwrap(), "ns/other".parse().unwrap());
        let one = put(&registry, &digits, &["w1", "golden"], None, &["1.0.0"]);
        put(&registry, &digits, &["statement of 1"], Some(&one), &[]);
        let two = put(&registry, &digits, &["w2", "golden"], None, &["2.0.0"]);
        put(&registry, &digits, &["statement of 2"], Some(&two), &[]);
        // The same bundle was released again: another statement of it.
        put(&registry, &digits, &["statement of 3"], Some(&two), &[]);
        put(&registry, &other, &["w1"], None, &["latest"]);
        (registry, digits, [two, Digest::of(b"statement of 3")].into())
    }

    #[test]
    fn what_is_not_named_goes_with_all_that_only_it_needs() {
        let directory = tempfile::tempdir().unwrap();
        let (registry, digits, named) = filled(directory.path());
        assert!(registry.retain(&digits, &named).unwrap());
        assert!(!registry.retain(&digits, &named).unwrap(), "once");
        let has = |at: &Repository, text: &str| registry.has_link(at, &Digest::of(text.as_bytes()));
        for (text, stays) in [
            ("w2", true),
            ("golden", true),
            ("{}", true),
            ("statement of 3", true),
            ("w1", false),
            ("statement of 1", false),
            ("statement of 2", false),
        ] {
            assert_eq!(has(&digits, text), stays, "{text}");
        }
        assert_eq!(registry.tags(&digits), ["2.0.0"]);
        assert!(registry.manifest(&digits, "2.0.0").is_some());
        let two = registry.manifest(&digits, "2.0.0").unwrap().0;
        assert_eq!(registry.referrers(&digits, &two).len(), 1);
        assert!(registry.collect_garbage().unwrap() > 0);
        assert!(has(&"ns/other".parse().unwrap(), "w1") && registry.blob_path(&Digest::of(b"w1")).exists());
        assert!(!registry.blob_path(&Digest::of(b"statement of 2")).exists());
    }

    #[test]
    fn who_died_in_between_does_the_rest_by_doing_it_again() {
        let whole = tempfile::tempdir().unwrap();
        let (registry, digits, named) = filled(whole.path());
        registry.retain(&digits, &named).unwrap();
        registry.collect_garbage().unwrap();
        let relative = |root: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
            files(root).into_iter().map(|(path, bytes)| (path.strip_prefix(root).unwrap().into(), bytes)).collect()
        };
        let wanted = relative(whole.path());
        for steps in 0.. {
            let directory = tempfile::tempdir().unwrap();
            let (registry, digits, named) = filled(directory.path());
            let surplus = registry.surplus(&digits, &named).unwrap();
            for path in surplus.iter().take(steps) {
                remove_all(path).unwrap();
                // Whatever is still found by its name is there with all its parts.
                for tag in registry.tags(&digits) {
                    let (manifest, _) = registry.manifest(&digits, &tag).expect("a tag names a manifest");
                    for part in registry.outline(&manifest).unwrap().parts() {
                        assert!(registry.has_link(&digits, &part), "{tag} after {steps} steps");
                    }
                }
            }
            registry.retain(&digits, &named).unwrap();
            registry.collect_garbage().unwrap();
            assert_eq!(relative(directory.path()), wanted, "after {steps} steps");
            if steps > surplus.len() {
                assert!(steps > 6, "there was something to do");
                break;
            }
        }
    }

    #[test]
    fn a_named_manifest_that_cannot_be_read_keeps_everything() {
        let directory = tempfile::tempdir().unwrap();
        let (registry, digits, named) = filled(directory.path());
        let two = registry.manifest(&digits, "2.0.0").unwrap().0;
        fs::write(registry.blob_path(&two), "damaged").unwrap();
        let before = files(directory.path());
        registry.retain(&digits, &named).unwrap_err();
        assert_eq!(files(directory.path()), before);
    }

    #[test]
    fn a_repository_goes_without_those_below_it() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::open(directory.path()).unwrap();
        let (runner, below): (Repository, Repository) =
            ("ns/runner".parse().unwrap(), "ns/runner/x86-64".parse().unwrap());
        registry.put_blob(&runner, b"of a deployment with this name").unwrap();
        let blob = registry.put_blob(&below, b"native").unwrap();
        assert_eq!(registry.repositories().unwrap(), [below.clone(), runner.clone()]);
        registry.remove(&runner).unwrap();
        registry.collect_garbage().unwrap();
        assert_eq!(registry.repositories().unwrap(), std::slice::from_ref(&below));
        assert!(registry.has(&below, &blob));
    }
}
