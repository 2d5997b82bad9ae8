//! `ballast inspect`: what a file or bundle says. Nothing here is vouched for; `verify` does that.

use std::path::Path;

use anyhow::{Context as _, bail};
use ballast_bundle::golden::Golden;
use ballast_bundle::manifest::parse_bundle_manifest;
use ballast_bundle::{Contract, Digest, Envelope, claims};
use ballast_plan::Plan;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::args::Inspect;
use crate::bundles::Bundle;
use crate::duration;
use crate::exit::Failure;
use crate::models::read;
use crate::output::{print, yaml};

/// Documents are at most 4 MiB, golden files 16; plans of large models a few.
const MAX_BYTES: u64 = 64 << 20;

/// `inspect`.
pub fn run(command: &Inspect) -> Result<(), Failure> {
    let path = &command.path;
    let found = if path.is_dir() { directory(path)? } else { file(&read(path, MAX_BYTES)?, path)? };
    print(command.output.format, &found, yaml)
}

fn directory(path: &Path) -> anyhow::Result<Value> {
    let bundle = Bundle::read(path)?;
    let contract = bundle.contract()?;
    let plan = plan(&bundle.plan)?;
    let golden = Golden::of_entries(&bundle.golden, &contract).context("golden.safetensors")?;
    Ok(json!({
        "kind": "bundle",
        "manifest": Digest::of(&bundle.manifest),
        "layers": bundle.layers,
        "size": duration::bytes(bundle.layers.weights.size + bundle.layers.plan.size),
        "contract": contract,
        "plan": plan,
        "goldenVectors": golden.iter().map(Golden::len).sum::<usize>(),
    }))
}

/// By what the bytes are, not by what the file is called.
fn file(bytes: &[u8], path: &Path) -> anyhow::Result<Value> {
    if let Ok(plan) = plan(bytes) {
        return Ok(json!({"kind": "plan", "plan": plan}));
    }
    let Ok(json) = serde_json::from_slice::<Value>(bytes) else {
        if let Some(tensors) = safetensors(bytes) {
            return Ok(json!({"kind": "golden vectors", "tensors": tensors}));
        }
        bail!("{} is no document, plan or golden file of Ballast's", path.display());
    };
    if let Ok((predicate_type, statement)) = claims(bytes) {
        let statement: Value = serde_json::from_slice(&statement)?;
        return Ok(json!({"kind": "statement, not verified", "predicateType": predicate_type, "statement": statement}));
    }
    if let Ok(envelope) = serde_json::from_value::<Envelope>(json.get("envelope").unwrap_or(&json).clone()) {
        let payload = STANDARD.decode(&envelope.payload).context("the envelope's payload")?;
        let payload: Value = serde_json::from_slice(&payload).context("the envelope's payload")?;
        let signatures: Vec<&str> = envelope.signatures.iter().map(|s| s.keyid.as_str()).collect();
        return Ok(json!({
            "kind": "envelope, not verified",
            "payloadType": envelope.payload_type,
            "payload": payload,
            "signedByKeys": signatures,
        }));
    }
    if let Ok(layers) = parse_bundle_manifest(bytes) {
        return Ok(
            json!({"kind": "bundle manifest", "digest": Digest::of(bytes), "layers": layers, "annotations": json["annotations"]}),
        );
    }
    if let Ok(contract) = serde_json::from_slice::<Contract>(bytes) {
        return Ok(json!({"kind": "contract", "contract": contract}));
    }
    bail!("{} is JSON, but no document of Ballast's", path.display())
}

fn plan(bytes: &[u8]) -> anyhow::Result<Value> {
    let plan = Plan::parse(bytes).map_err(|e| anyhow::anyhow!("plan.bin: {e}"))?;
    let tensor = |t: ballast_plan::Tensor<'_>| json!({"name": t.name, "type": format!("{:?}", t.dtype), "shape": t.dims().collect::<Vec<_>>()});
    let entries: Vec<Value> = plan
        .entries()
        .map(|e| {
            json!({
                "name": e.name(),
                "inputs": e.inputs().map(tensor).collect::<Vec<_>>(),
                "outputs": e.outputs().map(tensor).collect::<Vec<_>>(),
                "steps": e.steps().count(),
            })
        })
        .collect();
    Ok(json!({
        "arenaBytes": plan.arena_bytes(),
        "weightsBytes": plan.weights_bytes(),
        "flop": plan.flop(),
        "entries": entries,
    }))
}

/// Names, types and shapes of a safetensors file of anybody's.
fn safetensors(bytes: &[u8]) -> Option<Value> {
    let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk::<8>()?)).ok()?;
    let mut header: serde_json::Map<String, Value> =
        serde_json::from_slice(bytes.get(8..8usize.checked_add(length)?)?).ok()?;
    header.remove("__metadata__");
    for tensor in header.values_mut() {
        tensor.as_object_mut()?.remove("data_offsets");
    }
    Some(Value::Object(header))
}
