//! `cargo xtask differential`: random small graphs in the sandbox, the reference evaluator and ONNX Runtime.

use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;

use crate::process::Group;
use crate::{python, workspace};

/// Graphs and seed of `cargo xtask test`: the same ones each time, a minute's work.
const TESTED: (u32, u64) = (300, 1);

/// `cargo xtask differential`.
#[derive(Debug, Args)]
pub struct Options {
    /// How many.
    #[arg(long, default_value_t = 10_000)]
    graphs: u32,
    /// What they are made from; another each time without it. It is printed.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs it; fails when one graph is wrong.
pub fn run(options: &Options) -> Result<ExitCode> {
    let seed = match options.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    Ok(if differ(options.graphs, seed)? { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Those of `cargo xtask test`; whether they are as they must be.
pub fn tested() -> Result<bool> {
    let (graphs, seed) = TESTED;
    Ok(!differ(graphs, seed)?)
}

/// Whether one is wrong, or too many are refused.
fn differ(graphs: u32, seed: u64) -> Result<bool> {
    let mut command = Command::new(python::environment()?);
    command.arg("-B").arg(workspace::root().join("tests/python/differential.py")).current_dir(workspace::root());
    command.args(["--graphs", &graphs.to_string(), "--seed", &seed.to_string()]);
    command.arg("--failures").arg(workspace::target_dir()?.join("differential"));
    Ok(!Group::spawn(&mut command)?.wait()?.success())
}
