//! A bundle on disk: a directory with its files, or an OCI image layout.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use ballast_bundle::manifest::{
    LAYER_FILES, MANIFEST_TYPE, MAX_MANIFEST_BYTES, Manifest, blob_of, bundle_manifest, parse_bundle_manifest,
};
use ballast_bundle::{Blob, Contract, Digest, ReleaseLayers, StreamVerifier, VerifyError};
use serde::Deserialize;
use serde_json::json;

use crate::models::read;

/// Largest layer that is read.
const MAX_LAYER_BYTES: u64 = 4 << 30;
const MAX_INDEX_BYTES: u64 = 1 << 20;
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// All of a bundle.
#[derive(Debug)]
pub struct Bundle {
    pub manifest: Vec<u8>,
    pub layers: ReleaseLayers,
    pub weights: Vec<u8>,
    pub plan: Vec<u8>,
    pub contract: Vec<u8>,
    pub golden: Vec<u8>,
}

impl Bundle {
    /// Out of what the compiler made.
    pub fn of(artifacts: &ballast_compiler::Artifacts) -> anyhow::Result<(Self, Manifest)> {
        let contract: Contract = serde_json::from_slice(&artifacts.contract).context("the compiler's contract")?;
        let layers = ReleaseLayers {
            weights: blob_of(&artifacts.weights),
            plan: blob_of(&artifacts.plan),
            contract: blob_of(&artifacts.contract),
            golden: blob_of(&artifacts.golden),
        };
        let manifest = bundle_manifest(&layers, &contract);
        let bundle = Self {
            manifest: manifest.manifest.clone(),
            layers,
            weights: artifacts.weights.clone(),
            plan: artifacts.plan.clone(),
            contract: artifacts.contract.clone(),
            golden: artifacts.golden.clone(),
        };
        Ok((bundle, manifest))
    }

    fn files(&self) -> [(&'static str, &[u8], &Blob); 4] {
        let [weights, plan, contract, golden] = LAYER_FILES;
        [
            (weights, &self.weights, &self.layers.weights),
            (plan, &self.plan, &self.layers.plan),
            (contract, &self.contract, &self.layers.contract),
            (golden, &self.golden, &self.layers.golden),
        ]
    }

    /// Its contract.
    pub fn contract(&self) -> anyhow::Result<Contract> {
        serde_json::from_slice(&self.contract).context("contract.json is not a contract of a format this version reads")
    }

    /// Reads a directory or a layout; in a layout the one bundle of its index. Every layer must be what the manifest says.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let layout = dir.join("oci-layout").exists();
        let manifest = if layout {
            let index = index(dir)?;
            let mut bundles =
                index.iter().filter(|d| d.artifact_type.as_deref() != Some(ballast_bundle::SIGSTORE_BUNDLE_TYPE));
            let first = bundles.next().with_context(|| format!("{} has no bundle in its index", dir.display()))?;
            if bundles.next().is_some() {
                bail!("{} has several bundles in its index; take one of them apart first", dir.display());
            }
            read_blob(dir, &first.digest, MAX_MANIFEST_BYTES as u64)?
        } else {
            read(&dir.join("manifest.json"), MAX_MANIFEST_BYTES as u64)
                .with_context(|| format!("{} is neither a bundle's directory nor an OCI image layout", dir.display()))?
        };
        let layers = parse_bundle_manifest(&manifest).with_context(|| format!("{}", dir.display()))?;
        let layer = |file: &str, blob: &Blob| -> anyhow::Result<Vec<u8>> {
            let bytes = if layout {
                read_blob(dir, &blob.digest, MAX_LAYER_BYTES)?
            } else {
                read(&dir.join(file), MAX_LAYER_BYTES)?
            };
            let mut stream = StreamVerifier::of(blob);
            stream
                .update(&bytes)
                .and_then(|()| stream.finish())
                .with_context(|| format!("{file} of {}", dir.display()))?;
            Ok(bytes)
        };
        let [weights, plan, contract, golden] = LAYER_FILES;
        Ok(Self {
            weights: layer(weights, &layers.weights)?,
            plan: layer(plan, &layers.plan)?,
            contract: layer(contract, &layers.contract)?,
            golden: layer(golden, &layers.golden)?,
            manifest,
            layers,
        })
    }

    /// Writes plain files: the layers under their names, `manifest.json` and `config.json`.
    pub fn write_directory(&self, config: &[u8], dir: &Path) -> anyhow::Result<()> {
        for (file, bytes, _) in self.files() {
            write(&dir.join(file), bytes)?;
        }
        write(&dir.join("manifest.json"), &self.manifest)?;
        write(&dir.join("config.json"), config)
    }

    /// Writes an OCI image layout with this one bundle under `tag`.
    pub fn write_layout(&self, config: &[u8], tag: &str, dir: &Path) -> anyhow::Result<()> {
        let blob = |bytes: &[u8]| write(&dir.join("blobs/sha256").join(Digest::of(bytes).hex()), bytes);
        for (_, bytes, _) in self.files() {
            blob(bytes)?;
        }
        blob(config)?;
        blob(&self.manifest)?;
        let manifest = blob_of(&self.manifest);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": MANIFEST_TYPE,
                "digest": manifest.digest,
                "size": manifest.size,
                "annotations": {"org.opencontainers.image.ref.name": tag},
            }],
        });
        write(&dir.join("oci-layout"), LAYOUT)?;
        write(&dir.join("index.json"), index.to_string().as_bytes())
    }
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// One manifest of an OCI index.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: Digest,
    #[serde(default)]
    artifact_type: Option<String>,
}

fn index(dir: &Path) -> anyhow::Result<Vec<Descriptor>> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Descriptor>,
    }
    let bytes = read(&dir.join("index.json"), MAX_INDEX_BYTES)?;
    let index: Index = serde_json::from_slice(&bytes).with_context(|| format!("{}/index.json", dir.display()))?;
    Ok(index.manifests)
}

/// A blob of a layout. The digest comes parsed, so that it is no path.
fn read_blob(dir: &Path, digest: &Digest, limit: u64) -> anyhow::Result<Vec<u8>> {
    let bytes = read(&dir.join("blobs/sha256").join(digest.hex()), limit)?;
    let found = Digest::of(&bytes);
    if found != *digest {
        let damaged = VerifyError::Digest { expected: *digest, found };
        return Err(damaged).with_context(|| format!("a blob of {} is damaged", dir.display()));
    }
    Ok(bytes)
}
