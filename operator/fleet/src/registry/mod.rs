//! The embedded OCI registry: what the operator publishes and gateways pull (OCI distribution-spec 1.1, pull side).
//!
//! On disk: `blobs/sha256/<hex>` holds content, `repositories/<repository>/…` says which repository has what. A digest
//! is served only through a repository that has it, and a repository only to gateways of its namespace, which is its
//! first path component.

mod garbage;
mod http;
mod repository;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ballast_bundle::{Blob, Digest};
use serde::{Deserialize, Serialize};

pub(crate) use http::pull;
pub use repository::{InvalidRepository, Repository};

use crate::documents::write_atomically;

/// Manifests are small; the distribution specification asks registries to take 4 MiB.
pub const MAX_MANIFEST: usize = 4 << 20;

/// What can go wrong in the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The volume.
    #[error("{path} in the registry cannot be {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why. In the sentence, so no `source()` besides: it goes into statuses and logs as it stands.
        r#source: io::Error,
    },
    /// A manifest is not JSON, or too big.
    #[error("this is not a manifest: {0}")]
    Manifest(String),
}

/// A descriptor in an answer of the referrers call, and of manifests.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// What is read of a manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestOutline {
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// The registry. Its calls block on the disk.
#[derive(Debug)]
pub struct Registry {
    root: PathBuf,
}

impl Registry {
    /// Below `root`, which is made when it is not there.
    pub fn open(root: &Path) -> Result<Self, RegistryError> {
        let registry = Self { root: root.into() };
        for directory in [registry.blobs(), root.join("repositories")] {
            fs::create_dir_all(&directory).map_err(|source| RegistryError::Io {
                doing: "made",
                path: directory,
                source,
            })?;
        }
        Ok(registry)
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Where a blob's content is, whether it is there or not.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    fn link(&self, repository: &Repository, kind: &str) -> PathBuf {
        // `_` starts no component of a repository's name, so links and nested repositories never meet.
        self.root.join("repositories").join(repository.as_str()).join(format!("_{kind}"))
    }

    fn write(path: PathBuf, bytes: &[u8]) -> Result<(), RegistryError> {
        write_atomically(&path, bytes).map_err(|source| RegistryError::Io { doing: "written", path, source })
    }

    /// Stores content and lets a repository have it.
    pub fn put_blob(&self, repository: &Repository, bytes: &[u8]) -> Result<Blob, RegistryError> {
        let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
        let path = self.blob_path(&blob.digest);
        if fs::metadata(&path).map(|m| m.len()).ok() != Some(blob.size) {
            Self::write(path, bytes)?;
        }
        self.link_blob(repository, &blob.digest)?;
        Ok(blob)
    }

    /// Lets a repository have content that is stored already.
    pub fn link_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), RegistryError> {
        let link = self.link(repository, "blobs").join(digest.hex());
        if link.exists() {
            return Ok(());
        }
        Self::write(link, b"")
    }

    /// Publishes a manifest, its tags, and its place among the referrers of its subject.
    pub fn put_manifest(
        &self,
        repository: &Repository,
        media_type: &str,
        bytes: &[u8],
        tags: &[&str],
    ) -> Result<Blob, RegistryError> {
        if bytes.len() > MAX_MANIFEST {
            return Err(RegistryError::Manifest(format!("longer than {MAX_MANIFEST} bytes")));
        }
        let outline: ManifestOutline =
            serde_json::from_slice(bytes).map_err(|e| RegistryError::Manifest(e.to_string()))?;
        let blob = self.put_blob(repository, bytes)?;
        Self::write(self.link(repository, "manifests").join(blob.digest.hex()), media_type.as_bytes())?;
        if let Some(subject) = outline.subject {
            let descriptor = Descriptor {
                media_type: media_type.to_owned(),
                digest: blob.digest,
                size: blob.size,
                artifact_type: outline.artifact_type.or(outline.config.map(|c| c.media_type)),
                annotations: outline.annotations,
            };
            let json = serde_json::to_vec(&descriptor).map_err(|e| RegistryError::Manifest(e.to_string()))?;
            let path = self.link(repository, "referrers").join(subject.digest.hex()).join(blob.digest.hex());
            Self::write(path, &json)?;
        }
        for tag in tags {
            if !repository::is_tag(tag) {
                return Err(RegistryError::Manifest(format!("{tag:?} is not a tag")));
            }
            Self::write(self.link(repository, "tags").join(tag), blob.digest.to_string().as_bytes())?;
        }
        Ok(blob)
    }

    /// Whether a repository has a blob, with all of its bytes.
    pub fn has(&self, repository: &Repository, blob: &Blob) -> bool {
        self.link(repository, "blobs").join(blob.digest.hex()).exists()
            && fs::metadata(self.blob_path(&blob.digest)).is_ok_and(|m| m.len() == blob.size)
    }

    /// A manifest's digest and media type, by tag or digest.
    pub(crate) fn manifest(&self, repository: &Repository, reference: &str) -> Option<(Digest, String)> {
        let digest: Digest = if let Ok(digest) = reference.parse() {
            digest
        } else if repository::is_tag(reference) {
            fs::read_to_string(self.link(repository, "tags").join(reference)).ok()?.parse().ok()?
        } else {
            return None;
        };
        let media_type = fs::read_to_string(self.link(repository, "manifests").join(digest.hex())).ok()?;
        Some((digest, media_type))
    }

    pub(crate) fn has_link(&self, repository: &Repository, digest: &Digest) -> bool {
        self.link(repository, "blobs").join(digest.hex()).exists()
    }

    pub(crate) fn tags(&self, repository: &Repository) -> Vec<String> {
        let mut tags: Vec<String> = fs::read_dir(self.link(repository, "tags"))
            .into_iter()
            .flatten()
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|t| repository::is_tag(t))
            .collect();
        tags.sort();
        tags
    }

    pub(crate) fn referrers(&self, repository: &Repository, subject: &Digest) -> Vec<Descriptor> {
        let mut found: Vec<Descriptor> = fs::read_dir(self.link(repository, "referrers").join(subject.hex()))
            .into_iter()
            .flatten()
            .filter_map(|e| serde_json::from_slice(&fs::read(e.ok()?.path()).ok()?).ok())
            .collect();
        found.sort_by_key(|d| d.digest);
        found
    }
}
