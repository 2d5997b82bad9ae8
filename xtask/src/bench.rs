//! `cargo xtask bench planner | engine | release | edge`: measurements, in release builds. Nothing here is asserted in
//! tests.

mod edge;
mod release;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};

use crate::{python, workspace};

/// Names the folder of models out of pinned packages in lists of models.
const MODELS: &str = "BALLAST_MODELS";

/// `cargo xtask bench`.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Simulate rollouts: how often good builds are halted and how far bad ones get.
    Planner {
        /// Passed on to the simulation.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure inference, one thread, beside a peer; see docs/benchmarks.md.
    Engine {
        /// `[[model]]` tables with name, path and inputs = [{name, shape, dtype}].
        #[arg(long, value_name = "FILE.toml")]
        models: PathBuf,
        /// The peer to measure beside.
        #[arg(long)]
        against: Option<Against>,
        /// Timed rounds per model, 20 at least.
        #[arg(long, default_value_t = 30)]
        rounds: u32,
    },
    /// Measure from a file written to bundles signed for every target, runners prepared.
    Release {
        /// Use the binaries of this folder instead of building them.
        #[arg(long, hide = true, value_name = "DIR")]
        binaries: Option<PathBuf>,
        /// Fresh operators to measure with.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
    },
    /// Measure the gateway: size of the program, memory when idle.
    Edge {
        /// Use the `ballast-edge` of this folder instead of building it.
        #[arg(long, hide = true, value_name = "DIR")]
        binaries: Option<PathBuf>,
        /// Seconds without a request before memory is read.
        #[arg(long, default_value_t = 60)]
        idle: u64,
    },
}

/// Peers of the engine bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Against {
    /// ONNX Runtime, from the pinned Python requirements.
    Onnxruntime,
}

/// Builds and runs one of them; its exit code.
pub fn run(bench: Bench) -> Result<ExitCode> {
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--release"]);
    match bench {
        Bench::Release { binaries, rounds } => return release::run(binaries.as_deref(), rounds),
        Bench::Edge { binaries, idle } => return edge::run(binaries.as_deref(), idle),
        Bench::Planner { arguments } => {
            let example = ["--package", "ballast-planner", "--example", "planner-bench", "--"];
            command.args(example).args(arguments);
        }
        Bench::Engine { models, against, rounds } => {
            let models = std::path::absolute(models)?;
            if std::fs::read_to_string(&models).is_ok_and(|list| list.contains(MODELS)) {
                command.env(MODELS, python::real_models()?);
            }
            command.args(["--package", "ballast-tests", "--bin", "bench-engine", "--", "--models"]).arg(models);
            command.args(["--rounds", &rounds.to_string()]);
            if let Some(Against::Onnxruntime) = against {
                command.args(["--against", "onnxruntime"]).env("BALLAST_PYTHON", python::environment()?);
            }
        }
    }
    let status = command.status().context("cargo run")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the figures were measured on.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, n)| n));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores", name.unwrap_or(std::env::consts::ARCH))
}

/// A fleet's folder, empty.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = workspace::target_dir()?.join("bench").join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    Ok(folder)
}

fn bytes(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len())
}
