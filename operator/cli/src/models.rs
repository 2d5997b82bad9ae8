//! From what a person typed to what the compiler wants.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use ballast_bundle::{GoldenMatch, Tolerance, Verification};
use ballast_compiler::{CompileRequest, InputOverride, RuntimeLimits, TargetSpec, archive};
use ballast_crds::{HardwareTarget, builtin_targets};

use crate::args::Model;
use crate::duration::Bytes;

/// ONNX files are protobuf messages, which end at 2 GiB.
const MAX_MODEL_BYTES: u64 = 2 << 30;

/// A file within a bound, with its name in the error.
pub fn read(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        bail!("{} is a directory, not a file", path.display());
    }
    let mut bytes = Vec::new();
    let n = file.take(limit + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    if n as u64 > limit {
        bail!("{} is larger than the {limit} bytes that are allowed", path.display());
    }
    Ok(bytes)
}

/// Built-in targets of these names; all of them when there are none.
pub fn targets(names: &[String]) -> anyhow::Result<Vec<TargetSpec>> {
    let all = builtin_targets();
    let name = |t: &HardwareTarget| t.metadata.name.clone().unwrap_or_default();
    if names.is_empty() {
        return all.iter().map(target).collect();
    }
    names
        .iter()
        .map(|wanted| {
            let found = all.iter().find(|t| name(t) == *wanted).ok_or_else(|| {
                let known: Vec<String> = all.iter().map(name).collect();
                anyhow!("there is no built-in hardware target {wanted:?}; there are {}", known.join(", "))
            })?;
            target(found)
        })
        .collect()
}

fn target(object: &HardwareTarget) -> anyhow::Result<TargetSpec> {
    let spec = &object.spec;
    let speed = |of: fn(&ballast_crds::TargetSpeed) -> &ballast_crds::Decimal| {
        spec.speed.as_ref().map_or(Ok(0.0), |s| of(s).value())
    };
    let mut cpu_features = spec.cpu_features.clone();
    cpu_features.sort();
    Ok(TargetSpec {
        name: object.metadata.name.as_deref().unwrap_or_default().parse()?,
        triple: spec.triple.clone(),
        cpu_features,
        memory_bytes: spec.memory.bytes()?,
        deny: spec.operators.as_ref().map(|o| o.deny.clone()).unwrap_or_default(),
        gflops: speed(|s| &s.gflops)?,
        // GB/s in the object, bytes per second in the compiler.
        memory_bandwidth: speed(|s| &s.memory_bandwidth)? * 1e9,
    })
}

/// This machine as a target: for running a model here.
pub fn host() -> anyhow::Result<TargetSpec> {
    Ok(TargetSpec {
        name: "host".parse()?,
        triple: format!("{}-unknown-linux-musl", std::env::consts::ARCH),
        cpu_features: Vec::new(),
        memory_bytes: 4 << 30,
        deny: Vec::new(),
        gflops: 0.0,
        memory_bandwidth: 0.0,
    })
}

/// A model with the files beside it that its tensors lie in, as one piece.
fn model_and_files(file: &Path) -> anyhow::Result<Vec<u8>> {
    let model = read(file, MAX_MODEL_BYTES)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut left = MAX_MODEL_BYTES - model.len() as u64;
    let mut files = BTreeMap::new();
    for name in archive::named(&model) {
        let path = archive::safe_path(&name).with_context(|| format!("{} names a file", file.display()))?;
        let content = read(&folder.join(path), left)
            .with_context(|| format!("{} has tensors in {name:?}, which must lie beside it", file.display()))?;
        left -= content.len() as u64;
        files.insert(name, content);
    }
    archive::pack(model, &files).with_context(|| format!("{} has tensors in other files", file.display()))
}

/// The request for one file and target.
pub fn request(
    file: &Path,
    target: TargetSpec,
    model: &Model,
    name: Option<&str>,
    version: &str,
) -> anyhow::Result<CompileRequest> {
    if file.is_dir() {
        bail!("{} is a directory: name the ONNX file in it", file.display());
    }
    let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let golden =
        model.golden.as_deref().map(|path| read(path, ballast_bundle::golden::MAX_GOLDEN_BYTES as u64)).transpose()?;
    // A file with labels says what it wants to be judged by.
    let by_label = golden.as_deref().is_some_and(has_labels);
    Ok(CompileRequest {
        model: model_and_files(file)?,
        model_name: name.map_or(stem, str::to_owned),
        version: version.to_owned(),
        variant: "default".into(),
        target,
        inputs: overrides(&model.shapes, &model.values)?,
        runtime: RuntimeLimits {
            memory_limit: model.memory_limit.0,
            deadline_millis: model.deadline.map(|d| d.0),
            instances: 1,
            max_queue: 16,
        },
        verification: Verification {
            golden_match: if by_label { GoldenMatch::ArgMax } else { GoldenMatch::Values },
            min_matching_per_mille: model.min_matching,
            tolerance: Tolerance { absolute: 1e-4, relative: 1e-3 },
            finite_outputs: true,
            max_latency_p99_millis: None,
            user_golden: false,
        },
        golden,
    })
}

/// A model with nothing but shapes, for running it here.
pub fn plain(shapes: &[String]) -> Model {
    Model {
        golden: None,
        min_matching: 1000,
        shapes: shapes.to_vec(),
        values: Vec::new(),
        memory_limit: Bytes(4 << 30),
        deadline: None,
    }
}

fn has_labels(golden: &[u8]) -> bool {
    let header = golden.first_chunk::<8>().map(|n| u64::from_le_bytes(*n)).and_then(|n| usize::try_from(n).ok());
    let header = header.and_then(|n| golden.get(8..8usize.checked_add(n)?));
    let header: Option<BTreeMap<String, serde_json::Value>> = header.and_then(|h| serde_json::from_slice(h).ok());
    header.is_some_and(|h| h.keys().any(|k| k.starts_with("labels/")))
}

fn overrides(shapes: &[String], values: &[String]) -> anyhow::Result<Vec<InputOverride>> {
    let mut out = Vec::new();
    for text in shapes {
        let (name, shape) = text.split_once('=').with_context(|| format!("{text:?}: write NAME=1x3x224x224"))?;
        let shape = shape
            .split('x')
            .map(|d| d.parse().with_context(|| format!("{text:?}: {d:?} is not a dimension, write 1x3x224x224")))
            .collect::<anyhow::Result<Vec<u64>>>()?;
        out.push(InputOverride { name: name.to_owned(), shape: Some(shape), value: None });
    }
    for text in values {
        let (name, value) = text.split_once('=').with_context(|| format!("{text:?}: write NAME=NUMBER"))?;
        let value: f64 = value.parse().with_context(|| format!("{text:?}: {value:?} is not a number"))?;
        out.push(InputOverride { name: name.to_owned(), shape: None, value: Some(vec![value]) });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_target_can_be_compiled_for() {
        let all = targets(&[]).unwrap();
        assert!(all.iter().any(|t| t.name.as_str() == "x86-64-v3" && t.gflops > 1.0 && t.memory_bandwidth > 1e9));
        let error = targets(&["z80".into()]).unwrap_err().to_string();
        assert!(error.contains("\"z80\"") && error.contains("cortex-a76"), "{error}");
    }

    #[test]
    fn what_a_model_leaves_open_is_read_from_arguments() {
        let found = overrides(&["image=1x3x4".into()], &["sr=16000".into()]).unwrap();
        assert_eq!(found[0].shape.as_deref(), Some(&[1, 3, 4][..]));
        assert_eq!(found[1].value.as_deref(), Some(&[16000.0][..]));
        for bad in ["image", "image=1,2", "image="] {
            assert!(overrides(&[bad.into()], &[]).is_err(), "{bad}");
        }
    }
}
