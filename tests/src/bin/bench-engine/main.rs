//! `cargo xtask bench engine`: models in the sandbox, as a gateway runs them, beside a peer. See docs/benchmarks.md.

mod machine;
mod ours;
mod peer;
mod sheet;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use ballast_bundle::{DataType, TensorSpec, half};
use clap::{Parser, ValueEnum};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use sheet::{Line, Times};

#[derive(Parser)]
struct Args {
    /// `[[model]]` tables with name, path and inputs.
    #[arg(long, value_name = "FILE.toml")]
    models: PathBuf,
    /// Timed rounds per model, 20 at least.
    #[arg(long, default_value_t = 30)]
    rounds: u32,
    /// The peer.
    #[arg(long)]
    against: Option<Against>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Against {
    Onnxruntime,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Models {
    model: Vec<ModelEntry>,
}

/// One `[[model]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelEntry {
    name: String,
    /// Relative to the list, or below `${BALLAST_MODELS}`: the models out of pinned packages, see docs/benchmarks.md.
    path: PathBuf,
    #[serde(default)]
    inputs: Vec<InputEntry>,
}

/// What the model leaves open of an input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputEntry {
    name: String,
    shape: Vec<u64>,
    /// Compared with what the model says. As the Open Inference Protocol, numpy or ONNX call it.
    #[serde(default, deserialize_with = "datatype")]
    dtype: Option<DataType>,
}

fn datatype<'de, D: Deserializer<'de>>(d: D) -> Result<Option<DataType>, D::Error> {
    let name = String::deserialize(d)?;
    Ok(Some(match name.to_ascii_lowercase().as_str() {
        "bool" | "bool_" => DataType::Bool,
        "uint8" | "u8" => DataType::Uint8,
        "uint16" | "u16" => DataType::Uint16,
        "uint32" | "u32" => DataType::Uint32,
        "uint64" | "u64" => DataType::Uint64,
        "int8" | "i8" => DataType::Int8,
        "int16" | "i16" => DataType::Int16,
        "int32" | "i32" => DataType::Int32,
        "int64" | "i64" => DataType::Int64,
        "fp32" | "float32" | "float" | "f32" => DataType::Fp32,
        "fp64" | "float64" | "double" | "f64" => DataType::Fp64,
        "fp16" | "float16" | "half" | "f16" => DataType::Fp16,
        "bf16" | "bfloat16" => DataType::Bf16,
        _ => return Err(D::Error::custom(format!("dtype {name:?}: write FP32, INT64, … or float32, int64, …"))),
    }))
}

/// Where a model lies.
fn place(entry: &ModelEntry, folder: &Path) -> Result<PathBuf> {
    let Ok(below) = entry.path.strip_prefix("${BALLAST_MODELS}") else { return Ok(folder.join(&entry.path)) };
    let models =
        std::env::var_os("BALLAST_MODELS").context("BALLAST_MODELS is not set; `cargo xtask bench` does it")?;
    Ok(Path::new(&models).join(below))
}

/// How far outputs may be apart: `|ours − peer's| ≤ ABSOLUTE + RELATIVE · |peer's|`.
const ABSOLUTE: f64 = 1e-4;
const RELATIVE: f64 = 1e-3;
const WARM_UP: u32 = 3;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let text = std::fs::read_to_string(&args.models).with_context(|| format!("reading {}", args.models.display()))?;
    let models: Models = toml::from_str(&text).with_context(|| format!("reading {}", args.models.display()))?;
    let folder = args.models.parent().unwrap_or(Path::new("."));
    let rounds = args.rounds.max(20);

    let engine = ours::Ours::new()?;
    println!("{}", machine::cpu());
    engine.describe();
    let mut peer = match args.against {
        Some(Against::Onnxruntime) => Some(peer::Peer::start()?),
        None => None,
    };
    if let Some(peer) = &mut peer {
        println!("{}, one thread", peer.version()?);
    }
    println!("{rounds} rounds, interleaved, times in ms\n{}", Line::heading());

    let (mut ratios, mut failed) = (Vec::new(), Vec::new());
    for entry in &models.model {
        let measured = place(entry, folder).and_then(|path| measure(&engine, peer.as_mut(), entry, &path, rounds));
        match measured {
            Ok(line) => {
                println!("{line}");
                ratios.extend(line.ratio());
            }
            Err(error) => {
                println!("{:<24} FAILED: {error:#}", entry.name);
                failed.push(entry.name.as_str());
            }
        }
    }
    if !failed.is_empty() {
        println!("{} of {} failed: {}", failed.len(), models.model.len(), failed.join(", "));
    }
    match sheet::geometric_mean(&ratios) {
        Some(mean) => {
            println!(
                "geometric mean of {} ratios of medians, ours to the peer's (below 1 is faster): {mean:.3}",
                ratios.len()
            );
        }
        None => println!("no ratios: nothing was measured beside a peer"),
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(
    engine: &ours::Ours,
    mut peer: Option<&mut peer::Peer>,
    entry: &ModelEntry,
    path: &Path,
    rounds: u32,
) -> Result<Line> {
    let model = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let mut built = engine.build(&entry.name, model, &entry.inputs)?;
    for input in &entry.inputs {
        let found = built.inputs().iter().find(|spec| spec.name == input.name);
        let fits = found.is_some_and(|spec| input.dtype.is_none_or(|dtype| dtype == spec.datatype));
        anyhow::ensure!(fits, "the model has no input {} of that type", input.name);
    }
    let inputs: Vec<Vec<u8>> = (1..).zip(built.inputs()).map(|(seed, spec)| random(seed, spec)).collect();
    let outputs = built.run(&inputs)?.0;
    if let Some(peer) = &mut peer {
        peer.load(path)?;
        peer.inputs(built.inputs(), &inputs)?;
        let theirs = peer.answer()?;
        anyhow::ensure!(theirs.len() == outputs.len(), "the peer has {} outputs, we {}", theirs.len(), outputs.len());
        for ((spec, ours), theirs) in built.outputs().iter().zip(&outputs).zip(&theirs) {
            sheet::compare(spec, ours, theirs, ABSOLUTE, RELATIVE)?;
        }
    }
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for round in 0..WARM_UP + rounds {
        let mine = built.run(&inputs)?.1;
        let its = peer.as_mut().map(|peer| peer.run()).transpose()?;
        if round >= WARM_UP {
            ours.push(mine);
            its.into_iter().for_each(|time| theirs.push(time));
        }
    }
    Ok(Line { name: entry.name.clone(), gflop: built.gflop(), ours, theirs })
}

/// Values from a seed (xorshift*): floats in −1..1, integers in 0..100, Booleans.
fn random(seed: u64, spec: &TensorSpec) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40
    };
    let elements = spec.elements().unwrap_or(0);
    let mut out = Vec::new();
    for _ in 0..elements {
        let r = next();
        let real = r as f64 / f64::from(1u32 << 23) - 1.0;
        let whole = r % 100;
        match spec.datatype {
            DataType::Fp32 => out.extend((real as f32).to_le_bytes()),
            DataType::Fp64 => out.extend(real.to_le_bytes()),
            DataType::Fp16 => out.extend(half::to_fp16(real as f32).to_le_bytes()),
            DataType::Bf16 => out.extend(half::to_bf16(real as f32).to_le_bytes()),
            DataType::Bool => out.push((r & 1) as u8),
            other => out.extend(whole.to_le_bytes().iter().take(other.size())),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_may_be_called_as_anybody_calls_them() {
        let list = |dtype: &str| {
            format!(
                "[[model]]\nname = \"a\"\npath = \"a\"\ninputs = [{{ name = \"x\", shape = [1], dtype = {dtype:?} }}]"
            )
        };
        for name in ["FP32", "float32", "float"] {
            let models: Models = toml::from_str(&list(name)).unwrap();
            assert_eq!(models.model[0].inputs[0].dtype, Some(DataType::Fp32), "{name}");
        }
        assert!(toml::from_str::<Models>(&list("quad")).is_err());
        let models: Models =
            toml::from_str("[[model]]\nname = \"a\"\npath = \"a\"\ninputs = [{ name = \"x\", shape = [1] }]").unwrap();
        assert_eq!(models.model[0].inputs[0].dtype, None);
    }
}
