//! `cargo xtask conformance`: models with known answers through compiler and sandbox.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};

use crate::process::{Group, run as run_to_end};
use crate::{python, workspace};

/// Cases of the `onnx` package that pass; the number may only rise.
const PASSED_AT_LEAST: usize = 1421;
/// Cases that are neither right nor refused by name.
const WRONG_AT_MOST: usize = 0;

/// What to run.
#[derive(Debug, Subcommand)]
pub enum Conformance {
    /// The operator cases of the pinned `onnx` package that are in scope.
    Onnx(Options),
}

/// `cargo xtask conformance onnx`.
#[derive(Debug, Args)]
pub struct Options {
    /// Only cases with this word in their name or operators.
    #[arg(long, value_name = "WORD")]
    filter: Option<String>,
    /// `table` or `json`.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: String,
    /// Write docs/operators.md instead of comparing it with what was found.
    #[arg(long, conflicts_with = "filter")]
    write_docs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { filter: None, output: "table".to_owned(), write_docs: false }
    }
}

/// Runs it; fails when a floor is missed, or docs/operators.md says something else.
pub fn run(what: &Conformance) -> Result<ExitCode> {
    let Conformance::Onnx(options) = what;
    Ok(if onnx(options)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether it is as it must be.
pub fn onnx(options: &Options) -> Result<bool> {
    let folder = workspace::target_dir()?.join("conformance").join("onnx");
    let script = workspace::root().join("tests/python/onnx_cases.py");
    let mut write = Command::new(python::environment()?);
    let quiet = options.output == "json";
    write.arg("-B").arg(script).arg(&folder).current_dir(workspace::root());
    if quiet {
        let output = write.output().context("python")?;
        ensure!(output.status.success(), "onnx_cases.py: {}", String::from_utf8_lossy(&output.stderr).trim());
    } else {
        run_to_end(&mut write)?;
    }
    let mut command = runner(&folder.join("cases"));
    command.args(["--output", &options.output]);
    match &options.filter {
        // Of some cases there is no sum to hold; each that is run must be right or refused.
        Some(word) => {
            command.args(["--filter", word]);
        }
        None => {
            command.args(["--passed-at-least", &PASSED_AT_LEAST.to_string()]);
            command.args(["--wrong-at-most", &WRONG_AT_MOST.to_string()]);
            command.arg("--operators").arg(folder.join("operators.json"));
            command.arg("--page").arg(workspace::root().join("docs/operators.md"));
            if options.write_docs {
                command.arg("--write-docs");
            }
        }
    }
    Ok(Group::spawn(&mut command)?.wait()?.success())
}

/// The program that runs folders of cases.
fn runner(cases: &Path) -> Command {
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--package", "ballast-tests", "--bin", "conformance", "--"]).arg(cases);
    command
}
