//! From what a person typed to what the compiler wants.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use ballast_bundle::{GoldenMatch, Tolerance, Verification};
use ballast_compiler::{
    CompileRequest, InputOverride, RuntimeLimits, SequenceLimits, StateOverride, TargetSpec, archive,
};
use ballast_crds::{HardwareTarget, builtin_targets};

use crate::args::{Matching, Model};
use crate::duration::Bytes;
use crate::exit::Failure;

/// ONNX files are protobuf messages, which end at 2 GiB.
const MAX_MODEL_BYTES: u64 = 2 << 30;
/// A HardwareTarget is a screen of text.
const MAX_YAML_BYTES: u64 = 1 << 20;

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

/// Targets of these names, each once; all built-in ones when there are none.
pub fn targets(names: &[String]) -> Result<Vec<TargetSpec>, Failure> {
    let mut found: Vec<TargetSpec> = Vec::new();
    let all = || builtin_targets().iter().map(spec).collect::<anyhow::Result<Vec<_>>>();
    for name in names {
        found.extend(if name == "all" { all()? } else { vec![target(name)?] });
    }
    if names.is_empty() {
        found = all()?;
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|t| seen.insert(t.name.clone()));
    Ok(found)
}

/// A built-in target by its name, or a HardwareTarget in a file.
pub fn target(wanted: &str) -> Result<TargetSpec, Failure> {
    let all = builtin_targets();
    let name = |t: &HardwareTarget| t.metadata.name.clone().unwrap_or_default();
    if let Some(found) = all.iter().find(|t| name(t) == *wanted) {
        return Ok(spec(found)?);
    }
    if wanted.contains('/') || wanted.ends_with(".yaml") || wanted.ends_with(".yml") {
        return Ok(spec(&written(Path::new(wanted))?)?);
    }
    let known: Vec<String> = all.iter().map(name).collect();
    Err(Failure::Usage(format!(
        "there is no built-in hardware target {wanted:?}; there are {}; one of your own is named by its file, like ./{wanted}.yaml",
        known.join(", ")
    )))
}

/// The first HardwareTarget of a file, admitted as the operator would admit it.
fn written(path: &Path) -> anyhow::Result<HardwareTarget> {
    let bytes = read(path, MAX_YAML_BYTES)?;
    let text = String::from_utf8(bytes).with_context(|| format!("{} is no text", path.display()))?;
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text)
        .with_context(|| format!("{} is no YAML that can be read", path.display()))?;
    let found = documents.iter().find(|d| d["kind"] == "HardwareTarget");
    let document = found.with_context(|| format!("{} has no document of kind HardwareTarget", path.display()))?;
    let admitted = ballast_crds::validate::Admission::default()
        .admit(document, None)
        .map_err(|refused| anyhow!("{}: {refused}", path.display()))?;
    Ok(serde_json::from_value(admitted)?)
}

fn spec(object: &HardwareTarget) -> anyhow::Result<TargetSpec> {
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
) -> Result<CompileRequest, Failure> {
    if file.is_dir() {
        return Err(Failure::Failed(format!("{} is a directory: name the ONNX file in it", file.display())));
    }
    let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let golden =
        model.golden.as_deref().map(|path| read(path, ballast_bundle::golden::MAX_GOLDEN_BYTES as u64)).transpose()?;
    // A file with labels says what it wants to be judged by.
    let by_label = match model.matching {
        Some(matching) => matching == Matching::ArgMax,
        None => golden.as_deref().is_some_and(has_labels),
    };
    Ok(CompileRequest {
        model: model_and_files(file)?,
        model_name: name.map_or(stem, str::to_owned),
        version: version.to_owned(),
        variant: "default".into(),
        target,
        inputs: overrides(&model.shapes, &model.values, &model.states)?,
        runtime: RuntimeLimits {
            memory_limit: model.memory_limit.0,
            deadline_millis: model.deadline.map(|d| d.0),
            instances: model.instances,
            max_queue: 16,
            sequences: SequenceLimits::default(),
        },
        verification: Verification {
            golden_match: if by_label { GoldenMatch::ArgMax } else { GoldenMatch::Values },
            min_matching_per_mille: model.min_matching,
            tolerance: Tolerance { absolute: model.absolute, relative: model.relative },
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
        matching: None,
        absolute: 1e-4,
        relative: 1e-3,
        instances: 1,
        shapes: shapes.to_vec(),
        values: Vec::new(),
        states: Vec::new(),
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

/// What a model leaves open, as typed.
fn overrides(shapes: &[String], values: &[String], states: &[String]) -> Result<Vec<InputOverride>, Failure> {
    read_overrides(shapes, values, states).map_err(|e| Failure::Usage(format!("{e:#}")))
}

fn read_overrides(shapes: &[String], values: &[String], states: &[String]) -> anyhow::Result<Vec<InputOverride>> {
    let mut out = Vec::new();
    for text in shapes {
        let (name, shape) = text.split_once('=').with_context(|| format!("{text:?}: write NAME=1x3x224x224"))?;
        let shape = shape
            .split('x')
            .map(|d| d.parse().with_context(|| format!("{text:?}: {d:?} is not a dimension, write 1x3x224x224")))
            .collect::<anyhow::Result<Vec<u64>>>()?;
        out.push(InputOverride { name: name.to_owned(), shape: Some(shape), value: None, ..InputOverride::default() });
    }
    for text in values {
        let (name, value) = text.split_once('=').with_context(|| format!("{text:?}: write NAME=NUMBER"))?;
        let value = value
            .split(',')
            .map(|v| v.parse().with_context(|| format!("{text:?}: {v:?} is not a number")))
            .collect::<anyhow::Result<Vec<f64>>>()?;
        // A shape and a value of one input belong together.
        match out.iter_mut().find(|o| o.name == name) {
            Some(known) => known.value = Some(value),
            None => out.push(InputOverride {
                name: name.to_owned(),
                shape: None,
                value: Some(value),
                ..InputOverride::default()
            }),
        }
    }
    for text in states {
        let (name, output) = text.split_once('=').with_context(|| format!("{text:?}: write NAME=OUTPUT"))?;
        let state = Some(StateOverride { output: output.to_owned(), ..StateOverride::default() });
        match out.iter_mut().find(|o| o.name == name) {
            Some(known) => known.state = state,
            None => out.push(InputOverride { name: name.to_owned(), state, ..InputOverride::default() }),
        }
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
        let Err(Failure::Usage(error)) = targets(&["z80".into()]) else { panic!("there is one") };
        assert!(error.contains("\"z80\"") && error.contains("cortex-a76"), "{error}");
        let twice = targets(&["x86-64".into(), "all".into(), "x86-64".into()]).unwrap();
        assert_eq!((twice.len(), twice[0].name.as_str()), (all.len(), "x86-64"));
    }

    #[test]
    fn what_a_model_leaves_open_is_read_from_arguments() {
        let states = ["image=next".into(), "h=hn".into()];
        let found = overrides(&["image=1x3x4".into()], &["sr=16000".into()], &states).unwrap();
        let carried = |i: usize| found[i].state.as_ref().map(|s| s.output.as_str());
        assert_eq!((carried(0), carried(1), carried(2)), (Some("next"), None, Some("hn")));
        assert_eq!(found[0].shape.as_deref(), Some(&[1, 3, 4][..]));
        assert_eq!(found[1].value.as_deref(), Some(&[16000.0][..]));
        for bad in ["image", "image=1,2", "image="] {
            assert!(overrides(&[bad.into()], &[], &[]).is_err(), "{bad}");
        }
    }
}
