//! OCI manifests: a bundle as a ModelPack image (modelpack/model-spec v0.0.7), a runner as a Wasm-like artifact, and the
//! referrers that carry signatures. The same input gives the same bytes; no timestamps.

use serde::Deserialize;
use serde_json::json;

use crate::envelope::SIGSTORE_BUNDLE_TYPE;
use crate::{Blob, Contract, Digest, ReleaseLayers, VerifyError};

/// Media type of an OCI image manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const MODEL_ARTIFACT: &str = "application/vnd.cncf.model.manifest.v1+json";
const MODEL_CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
const WEIGHT: &str = "application/vnd.cncf.model.weight.v1.raw";
const WEIGHT_CONFIG: &str = "application/vnd.cncf.model.weight.config.v1.raw";
const DATASET: &str = "application/vnd.cncf.model.dataset.v1.raw";
const FILEPATH: &str = "org.cncf.model.filepath";
const RUNNER_ARTIFACT: &str = "application/vnd.ballast.runner.v1";
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

/// The ModelPack manifest of one bundle.
pub fn bundle_manifest(layers: &ReleaseLayers, contract: &Contract) -> Manifest {
    let files = [
        (&layers.weights, WEIGHT, LAYER_FILES[0]),
        (&layers.plan, WEIGHT_CONFIG, LAYER_FILES[1]),
        (&layers.contract, WEIGHT_CONFIG, LAYER_FILES[2]),
        (&layers.golden, DATASET, LAYER_FILES[3]),
    ];
    let config = json!({
        "descriptor": {"name": contract.model, "version": contract.version},
        "config": {"architecture": "ballast-plan", "format": format!("ballast-plan-v{}", contract.plan_major)},
        "modelfs": {"type": "layers", "diffIds": files.iter().map(|(blob, ..)| blob.digest.to_string()).collect::<Vec<_>>()},
    })
    .to_string()
    .into_bytes();
    let layers: Vec<_> = files
        .iter()
        .map(|(blob, kind, file)| {
            json!({"mediaType": kind, "digest": blob.digest, "size": blob.size, "annotations": {FILEPATH: file}})
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": MODEL_ARTIFACT,
        "config": {"mediaType": MODEL_CONFIG, "digest": Digest::of(&config), "size": config.len()},
        "layers": layers,
        "annotations": {"dev.ballast.target": contract.target, "dev.ballast.variant": contract.variant},
    })
    .to_string()
    .into_bytes();
    Manifest { manifest, config }
}

/// The artifact of one runner: a precompiled module.
pub fn runner_manifest(module: &Blob, target: &crate::TargetName) -> Manifest {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": RUNNER_ARTIFACT,
        "config": {"mediaType": EMPTY_TYPE, "digest": Digest::of(EMPTY_CONFIG), "size": EMPTY_CONFIG.len()},
        "layers": [{"mediaType": "application/vnd.ballast.runner.module.v1", "digest": module.digest, "size": module.size}],
        "annotations": {"dev.ballast.target": target},
    })
    .to_string()
    .into_bytes();
    Manifest { manifest, config: EMPTY_CONFIG.to_vec() }
}

/// The referrer that carries a Sigstore bundle for `subject`, in cosign's present form.
pub fn statement_manifest(statement: &Blob, subject: &Blob, predicate_type: &str) -> Manifest {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": SIGSTORE_BUNDLE_TYPE,
        "config": {"mediaType": EMPTY_TYPE, "digest": Digest::of(EMPTY_CONFIG), "size": EMPTY_CONFIG.len()},
        "layers": [{"mediaType": SIGSTORE_BUNDLE_TYPE, "digest": statement.digest, "size": statement.size}],
        "subject": {"mediaType": MANIFEST_TYPE, "digest": subject.digest, "size": subject.size},
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": predicate_type,
            // cosign writes the time of signing; a digested byte here never depends on one.
            "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
        },
    })
    .to_string()
    .into_bytes();
    Manifest { manifest, config: EMPTY_CONFIG.to_vec() }
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
        annotations: std::collections::BTreeMap<String, String>,
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
