//! OCI manifests: a bundle as a ModelPack image (modelpack/model-spec v0.0.7), a runner as a Wasm-like artifact, and the
//! referrers that carry signatures. The same input gives the same bytes; no timestamps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::envelope::{SIGSTORE_BUNDLE_TYPE, to_json};
use crate::{Blob, Contract, Digest, ReleaseLayers, TargetName, VerifyError};

/// Media type of an OCI image manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const MODEL_ARTIFACT: &str = "application/vnd.cncf.model.manifest.v1+json";
const MODEL_CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
const WEIGHT: &str = "application/vnd.cncf.model.weight.v1.raw";
const WEIGHT_CONFIG: &str = "application/vnd.cncf.model.weight.config.v1.raw";
const DATASET: &str = "application/vnd.cncf.model.dataset.v1.raw";
const FILEPATH: &str = "org.cncf.model.filepath";
const TARGET: &str = "dev.ballast.target";
const VARIANT: &str = "dev.ballast.variant";
const RUNNER_ARTIFACT: &str = "application/vnd.ballast.runner.v1";
const RUNNER_MODULE: &str = "application/vnd.ballast.runner.module.v1";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The content of an empty config, as OCI defines it.
pub const EMPTY_CONFIG: &[u8] = b"{}";
/// Largest manifest that is read.
pub const MAX_MANIFEST_BYTES: usize = 64 << 10;

/// File names of a bundle's layers.
pub const LAYER_FILES: [&str; 4] = ["weights.bin", "plan.bin", "contract.json", "golden.safetensors"];

/// A manifest and its config, both ready to be stored by digest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The config's bytes.
    pub config: Vec<u8>,
}

impl Manifest {
    /// Digest and size of the manifest.
    pub fn blob(&self) -> Blob {
        blob_of(&self.manifest)
    }
}

/// Digest and size of some bytes.
pub fn blob_of(bytes: &[u8]) -> Blob {
    Blob { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

// Structs, not `serde_json::json!`: another crate's `preserve_order` feature would change the order of its keys, and with
// it every digest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Image<'a> {
    schema_version: u32,
    media_type: &'a str,
    artifact_type: &'a str,
    config: Descriptor<'a>,
    layers: Vec<Descriptor<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

fn descriptor<'a>(media_type: &'a str, blob: &Blob) -> Descriptor<'a> {
    Descriptor { media_type, digest: blob.digest, size: blob.size, annotations: BTreeMap::new() }
}

fn image<'a>(artifact_type: &'a str, config: (&'a str, &[u8]), layers: Vec<Descriptor<'a>>) -> Image<'a> {
    Image {
        schema_version: 2,
        media_type: MANIFEST_TYPE,
        artifact_type,
        config: descriptor(config.0, &blob_of(config.1)),
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    }
}

/// ModelPack's config; its schema allows no other fields, so what is ours goes into annotations.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelConfig<'a> {
    descriptor: ModelDescriptor<'a>,
    config: ModelFormat<'a>,
    modelfs: ModelFs,
}

#[derive(Serialize)]
struct ModelDescriptor<'a> {
    name: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct ModelFormat<'a> {
    architecture: &'a str,
    format: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<Digest>,
}

/// The ModelPack manifest of one bundle.
pub fn bundle_manifest(layers: &ReleaseLayers, contract: &Contract) -> Manifest {
    let files = [
        (&layers.weights, WEIGHT, LAYER_FILES[0]),
        (&layers.plan, WEIGHT_CONFIG, LAYER_FILES[1]),
        (&layers.contract, WEIGHT_CONFIG, LAYER_FILES[2]),
        (&layers.golden, DATASET, LAYER_FILES[3]),
    ];
    let config = to_json(&ModelConfig {
        descriptor: ModelDescriptor { name: &contract.model, version: &contract.version },
        config: ModelFormat { architecture: "ballast-plan", format: format!("ballast-plan-v{}", contract.plan_major) },
        modelfs: ModelFs { kind: "layers", diff_ids: files.iter().map(|(blob, ..)| blob.digest).collect() },
    });
    let layers = files
        .into_iter()
        .map(|(blob, kind, file)| Descriptor { annotations: [(FILEPATH, file)].into(), ..descriptor(kind, blob) })
        .collect();
    let mut manifest = image(MODEL_ARTIFACT, (MODEL_CONFIG, &config), layers);
    manifest.annotations = [(TARGET, contract.target.as_str()), (VARIANT, &contract.variant)].into();
    Manifest { manifest: to_json(&manifest), config }
}

/// The artifact of one runner: a precompiled module for one target.
pub fn runner_manifest(module: &Blob, target: &TargetName) -> Manifest {
    let mut manifest = image(RUNNER_ARTIFACT, (EMPTY_TYPE, EMPTY_CONFIG), vec![descriptor(RUNNER_MODULE, module)]);
    manifest.annotations = [(TARGET, target.as_str())].into();
    Manifest { manifest: to_json(&manifest), config: EMPTY_CONFIG.to_vec() }
}

/// The referrer that carries a Sigstore bundle for `subject`, in cosign's present form: `cosign verify` and `cosign
/// verify-attestation` (3.x) both find the statement through it.
pub fn statement_manifest(statement: &Blob, subject: &Blob, predicate_type: &str) -> Manifest {
    let mut manifest =
        image(SIGSTORE_BUNDLE_TYPE, (EMPTY_TYPE, EMPTY_CONFIG), vec![descriptor(SIGSTORE_BUNDLE_TYPE, statement)]);
    manifest.subject = Some(descriptor(MANIFEST_TYPE, subject));
    manifest.annotations = [
        ("dev.sigstore.bundle.content", "dsse-envelope"),
        ("dev.sigstore.bundle.predicateType", predicate_type),
        // cosign writes the time of signing; a digested byte here never depends on one.
        ("org.opencontainers.image.created", "1970-01-01T00:00:00Z"),
    ]
    .into();
    Manifest { manifest: to_json(&manifest), config: EMPTY_CONFIG.to_vec() }
}

/// The layers of a bundle's manifest, by their media types and file names.
pub fn parse_bundle_manifest(bytes: &[u8]) -> Result<ReleaseLayers, VerifyError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Image {
        artifact_type: String,
        layers: Vec<Layer>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layer {
        media_type: String,
        digest: Digest,
        size: u64,
        annotations: BTreeMap<String, String>,
    }
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(VerifyError::TooLarge { limit: MAX_MANIFEST_BYTES });
    }
    let image: Image =
        serde_json::from_slice(bytes).map_err(|_| VerifyError::Malformed("not the manifest of a bundle"))?;
    if image.artifact_type != MODEL_ARTIFACT {
        return Err(VerifyError::Malformed("the manifest's artifactType is not a ModelPack's"));
    }
    if image.layers.len() != LAYER_FILES.len() {
        return Err(VerifyError::Malformed("a bundle has exactly four layers; there is no room for code"));
    }
    let find = |file: &str, kind: &str| {
        image
            .layers
            .iter()
            .find(|l| l.annotations.get(FILEPATH).is_some_and(|f| f == file) && l.media_type == kind)
            .map(|l| Blob { digest: l.digest, size: l.size })
            .ok_or(VerifyError::Malformed("the manifest lacks a layer of a bundle, or has it under another media type"))
    };
    Ok(ReleaseLayers {
        weights: find(LAYER_FILES[0], WEIGHT)?,
        plan: find(LAYER_FILES[1], WEIGHT_CONFIG)?,
        contract: find(LAYER_FILES[2], WEIGHT_CONFIG)?,
        golden: find(LAYER_FILES[3], DATASET)?,
    })
}
