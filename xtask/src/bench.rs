//! `cargo xtask bench planner | engine`: measurements, in release builds. Nothing here is asserted in tests.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};

use crate::{python, workspace};

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
        Bench::Planner { arguments } => {
            let example = ["--package", "ballast-planner", "--example", "planner-bench", "--"];
            command.args(example).args(arguments);
        }
        Bench::Engine { models, against, rounds } => {
            let models = std::path::absolute(models)?;
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
