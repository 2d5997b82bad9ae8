//! `cargo xtask fuzz`: the targets of `fuzz/` with libFuzzer on the stable compiler. See docs/fuzzing.md.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::process::{Group, run as run_to_end};
use crate::{python, workspace};

/// What tells libFuzzer where a run went: blocks, and what is compared with what. `-Z sanitizer` would need a nightly compiler;
/// this pass does not.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";
/// One input that takes longer is a finding, seconds.
const TIMEOUT: u32 = 25;
/// Memory that one input may take, MiB.
const MEMORY: u32 = 2048;
/// Longest input, bytes; longer ones of the same kind find nothing new, and cost speed.
const LONGEST: u32 = 16_384;

/// A target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// Any bytes as an ONNX model.
    Importer,
    /// Any bytes as a plan.
    Plan,
    /// Any bytes as a contract and golden vectors.
    Contract,
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Importer => "importer",
            Self::Plan => "plan",
            Self::Contract => "contract",
        }
    }
}

/// `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub struct Options {
    /// Which.
    target: Target,
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Run these files once each instead: what an earlier run found.
    #[arg(long, value_name = "FILE")]
    replay: Vec<PathBuf>,
}

/// Builds the target and runs it on what was found before and on seeds out of the tests.
pub fn run(options: &Options) -> Result<ExitCode> {
    let folder = workspace::target_dir()?.join("fuzz");
    let name = options.target.name();
    let program = build(&folder, name)?;
    let mut command = Command::new(program);
    command.args([format!("-timeout={TIMEOUT}"), format!("-rss_limit_mb={MEMORY}")]);
    if options.replay.is_empty() {
        let place = |kind: &str| -> Result<PathBuf> {
            let place = folder.join(kind).join(name);
            std::fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
            Ok(place)
        };
        let (corpus, seeds, found) = (place("corpus")?, place("seeds")?, place("artifacts")?);
        write_seeds(options.target, &seeds)?;
        command.args([format!("-max_total_time={}", options.seconds), format!("-max_len={LONGEST}")]);
        command.arg(format!("-artifact_prefix={}/", found.display())).arg(corpus).arg(seeds);
    } else {
        command.args(&options.replay);
    }
    let status = Group::spawn(&mut command)?.wait()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// With coverage, in a folder of its own; for the target triple, so that build scripts are left alone.
fn build(folder: &Path, name: &str) -> Result<PathBuf> {
    let output = Command::new("rustc").arg("-vV").current_dir(workspace::root()).output().context("rustc")?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let triple = version.lines().find_map(|l| l.strip_prefix("host: ")).context("rustc names no host")?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--manifest-path", "fuzz/Cargo.toml", "--bin", name, "--target", triple]);
    cargo.arg("--target-dir").arg(folder).env("RUSTFLAGS", COVERAGE).env_remove("CARGO_ENCODED_RUSTFLAGS");
    run_to_end(&mut cargo)?;
    Ok(folder.join(triple).join("debug").join(name))
}

/// The operator cases of the `onnx` package: their models, with those of the other checks, options and archives; and what the
/// compiler makes of them.
fn write_seeds(target: Target, seeds: &Path) -> Result<()> {
    let cases = workspace::target_dir()?.join("conformance").join("onnx");
    if !cases.is_dir() {
        let script = workspace::root().join("tests/python/onnx_cases.py");
        run_to_end(Command::new(python::environment()?).arg("-B").arg(script).arg(&cases))?;
    }
    let cases = cases.join("cases");
    if target != Target::Importer {
        let mut cargo = workspace::cargo();
        cargo.args(["run", "--quiet", "--package", "ballast-tests", "--bin", "conformance", "--"]).arg(cases);
        cargo.args(["--wrong-at-most", &usize::MAX.to_string(), &format!("--{}s", target.name())]).arg(seeds);
        return run_to_end(&mut cargo);
    }
    let mut script = Command::new(python::environment()?);
    script.arg("-B").arg(workspace::root().join("tests/python/fuzz_seeds.py"));
    run_to_end(script.arg(&cases).arg(seeds).arg(LONGEST.to_string()))
}
