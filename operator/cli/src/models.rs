//! From what a person typed to what the compiler wants.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use ballast_bundle::{GoldenMatch, Tolerance, Verification};
use ballast_compiler::{
    CompileRequest, InputOverride, InputPadding, RuntimeLimits, SequenceLimits, StateOverride, TargetSpec, archive,
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
        inputs: overrides(model)?,
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
        padding: Vec::new(),
        batch_axes: Vec::new(),
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
fn overrides(model: &Model) -> Result<Vec<InputOverride>, Failure> {
    read_overrides(model).map_err(|e| Failure::Usage(format!("{e:#}")))
}

/// What is said of one input, which may be said in several arguments.
fn of<'o>(out: &'o mut Vec<InputOverride>, name: &str) -> &'o mut InputOverride {
    let at = out.iter().position(|o| o.name == name).unwrap_or_else(|| {
        out.push(InputOverride { name: name.to_owned(), ..InputOverride::default() });
        out.len() - 1
    });
    &mut out[at]
}

fn read_overrides(model: &Model) -> anyhow::Result<Vec<InputOverride>> {
    let mut out = Vec::new();
    for text in &model.shapes {
        let (name, shape) = text.split_once('=').with_context(|| format!("{text:?}: write NAME=1x3x224x224"))?;
        let shape = shape
            .split('x')
            .map(|d| d.parse().with_context(|| format!("{text:?}: {d:?} is not a dimension, write 1x3x224x224")))
            .collect::<anyhow::Result<Vec<u64>>>()?;
        let input = of(&mut out, name);
        // The same input again is one more shape of it.
        if input.shapes.is_empty() && input.shape.is_none() {
            input.shape = Some(shape);
        } else {
            input.shapes.extend(input.shape.take());
            input.shapes.push(shape);
        }
    }
    for text in &model.padding {
        let wrong = || format!("{text:?}: write NAME=MASK, or NAME=MASK,-1 to fill NAME up with something else than 0");
        let (name, mask) = text.split_once('=').filter(|(_, mask)| !mask.is_empty()).with_context(wrong)?;
        let (mask, value) = match mask.rsplit_once(',') {
            Some((mask, value)) => (mask, value.parse().with_context(wrong)?),
            None => (mask, 0),
        };
        of(&mut out, name).padding = Some(InputPadding { mask: mask.to_owned(), value });
    }
    for text in &model.batch_axes {
        let wrong = || format!("{text:?}: write NAME=0, or whichever axis rows lie along");
        let (name, axis) = text.split_once('=').with_context(wrong)?;
        of(&mut out, name).batch_axis = Some(axis.parse().with_context(wrong)?);
    }
    for text in &model.values {
        let (name, value) = text.split_once('=').with_context(|| format!("{text:?}: write NAME=NUMBER"))?;
        let value = value
            .split(',')
            .map(|v| v.parse().with_context(|| format!("{text:?}: {v:?} is not a number")))
            .collect::<anyhow::Result<Vec<f64>>>()?;
        // A shape and a value of one input belong together.
        of(&mut out, name).value = Some(value);
    }
    for text in &model.states {
        let (name, output) = text.split_once('=').with_context(|| format!("{text:?}: write NAME=OUTPUT"))?;
        of(&mut out, name).state = Some(StateOverride { output: output.to_owned(), ..StateOverride::default() });
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
        let text = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let shaped = |shapes: &[&str]| plain(&text(shapes));
        let found = overrides(&Model { values: text(&["sr=16000"]), ..shaped(&["image=1x3x4"]) }).unwrap();
        let states = text(&["image=next", "h=hn"]);
        let carried = overrides(&Model { states, values: text(&["sr=16000"]), ..shaped(&["image=1x3x4"]) }).unwrap();
        let output = |i: usize| carried[i].state.as_ref().map(|s| s.output.as_str());
        assert_eq!((output(0), output(1), output(2)), (Some("next"), None, Some("hn")));
        assert_eq!(found[0].shape.as_deref(), Some(&[1, 3, 4][..]));
        assert_eq!(found[1].value.as_deref(), Some(&[16000.0][..]));
        let several = shaped(&["x=1x16", "m=1x16", "x=1x64", "m=1x64", "x=1x128", "m=1x128"]);
        let padding = text(&["x=m,-1", "tokens:0=mask:0"]);
        let several = overrides(&Model { padding, batch_axes: text(&["image=2"]), ..several }).unwrap();
        assert_eq!((several.len(), several[0].shape.is_none(), several[0].shapes.len()), (4, true, 3));
        assert_eq!(several[0].shapes[0], [1, 16]);
        assert_eq!(several[0].padding, Some(InputPadding { mask: "m".into(), value: -1 }));
        assert_eq!(several[2].padding, Some(InputPadding { mask: "mask:0".into(), value: 0 }));
        assert_eq!((several[3].name.as_str(), several[3].batch_axis), ("image", Some(2)));
        for bad in ["image", "image=1,2", "image="] {
            assert!(overrides(&shaped(&[bad])).is_err(), "{bad}");
        }
        for bad in ["x", "x=", "x=m,", "x=m,a"] {
            assert!(overrides(&Model { padding: text(&[bad]), ..shaped(&[]) }).is_err(), "{bad}");
        }
        for bad in ["x", "x=", "x=-1", "x=1x2"] {
            assert!(overrides(&Model { batch_axes: text(&[bad]), ..shaped(&[]) }).is_err(), "{bad}");
        }
    }
}
