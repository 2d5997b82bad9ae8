//! `cargo xtask test`: every test of the project, phase by phase, each with its time; all phases run even if one fails.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;

use crate::demo::prerequisites;
use crate::process::{self, Group, interrupted, run};
use crate::{bans, conformance, differential, hardware, python, tools, workspace};

/// `cargo xtask test`.
#[derive(Debug, Args)]
pub struct Options {
    /// Only the phases whose names contain this.
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
}

/// Tests that passed and failed; a phase that is not made of tests counts as one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

const ONE: Tally = Tally { passed: 1, failed: 0 };

type Phase = (&'static str, fn() -> Result<Tally>);

/// In order: what is fast first; the environment before the tests that use it; the demo last.
const PHASES: [Phase; 15] = [
    ("tools", environment),
    ("format", format),
    ("bans", bans),
    ("clippy", || cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    ("rustdoc", rustdoc),
    ("fuzz targets", fuzz_targets),
    ("build", || cargo(&["build", "--quiet", "--workspace", "--bins"])),
    ("cluster tools", || tools::all().map(|()| ONE)),
    ("cargo test", cargo_test),
    ("conformance", conformance),
    ("differential", differential),
    ("python checks", python_checks),
    ("hardware", || hardware::run().map(|()| ONE)),
    ("demo", demo),
    ("demo can fail", demo_can_fail),
];

/// Runs the phases; the last line is `N passed, N failed`.
pub fn all(options: Options) -> Result<ExitCode> {
    process::watch_for_interruption()?;
    let started = Instant::now();
    let (mut total, mut times, mut broken) = (Tally::default(), Vec::new(), Vec::new());
    for (name, phase) in PHASES {
        if options.only.as_ref().is_some_and(|word| !name.contains(word.as_str())) {
            continue;
        }
        if interrupted() {
            break;
        }
        println!("== {name}");
        let since = Instant::now();
        let tally = phase().unwrap_or_else(|error| {
            println!("FAILED: {error:#}");
            Tally { passed: 0, failed: 1 }
        });
        total.passed += tally.passed;
        total.failed += tally.failed;
        if tally.failed > 0 {
            broken.push(name);
        }
        let line = format!(
            "{name}: {} ({:.1} s)",
            if tally.failed == 0 { "ok" } else { "FAILED" },
            since.elapsed().as_secs_f64()
        );
        println!("{line}");
        times.push(line);
    }
    if interrupted() {
        println!("interrupted; every child has ended");
        return Ok(ExitCode::from(130));
    }
    ensure!(!times.is_empty(), "no phase is called like that; there are: {}", PHASES.map(|(name, _)| name).join(", "));
    println!("\n{}\ntotal: {:.1} s", times.join("\n"), started.elapsed().as_secs_f64());
    if !broken.is_empty() {
        println!("failed phases: {}", broken.join(", "));
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn environment() -> Result<Tally> {
    if !prerequisites::has_target(prerequisites::WASM_TARGET) {
        run(Command::new("rustup").current_dir(workspace::root()).args(["target", "add", prerequisites::WASM_TARGET]))?;
    }
    prerequisites::check(None)?;
    python::environment()?;
    hardware::tools()?;
    Ok(ONE)
}

fn cargo(arguments: &[&str]) -> Result<Tally> {
    run(workspace::cargo().args(arguments))?;
    Ok(ONE)
}

fn rustdoc() -> Result<Tally> {
    run(workspace::cargo().args(["doc", "--quiet", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(ONE)
}

fn bans() -> Result<Tally> {
    bans::check()?;
    Ok(ONE)
}

/// `cargo test`, its output shown as it comes and its results added up.
fn cargo_test() -> Result<Tally> {
    let mut command = workspace::cargo();
    command.args(["test", "--quiet", "--workspace", "--no-fail-fast"]).stdout(Stdio::piped());
    // For tests that compare with Python implementations.
    if let Ok(python) = python::environment() {
        command.env("BALLAST_PYTHON", python);
    }
    let mut child = Group::spawn(&mut command)?;
    let mut tally = Tally::default();
    let output = child.stdout().context("no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let text = String::from_utf8_lossy(&line);
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}")?;
        if let Some(more) = result_line(&text) {
            tally.passed += more.passed;
            tally.failed += more.failed;
        }
    }
    let status = child.wait()?;
    // A test binary that does not compile, or dies, has no result line.
    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    ensure!(tally.passed + tally.failed > 0, "cargo test ran no test");
    Ok(tally)
}

fn result_line(line: &str) -> Option<Tally> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let number =
        |what: &str| rest.split([';', '.']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok());
    Some(Tally { passed: number("passed")?, failed: number("failed")? })
}

/// The fuzz targets are a workspace of their own.
fn format() -> Result<Tally> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"])
}

/// That they compile; `cargo xtask fuzz` runs them.
fn fuzz_targets() -> Result<Tally> {
    let folder = workspace::target_dir()?.join("fuzz");
    let mut command = workspace::cargo();
    command.args(["clippy", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml", "--target-dir"]).arg(folder);
    run(command.args(["--", "-D", "warnings"]))?;
    Ok(ONE)
}

/// Random graphs against ONNX Runtime.
fn differential() -> Result<Tally> {
    ensure!(differential::tested()?, "random graphs are not what they must be");
    Ok(ONE)
}

/// The operator cases of the `onnx` package; docs/operators.md says what was found.
fn conformance() -> Result<Tally> {
    ensure!(conformance::onnx(&conformance::Options::default())?, "the operator cases are not what they must be");
    Ok(ONE)
}

fn python_checks() -> Result<Tally> {
    let python = python::environment()?;
    let folder = workspace::root().join("tests/python");
    let mut scripts: Vec<_> = std::fs::read_dir(&folder)?.filter_map(|e| Some(e.ok()?.path())).collect();
    scripts.retain(|p| {
        p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("check_"))
            && p.extension().is_some_and(|e| e == "py")
    });
    scripts.sort();
    ensure!(!scripts.is_empty(), "no check_*.py in {}", folder.display());
    let mut tally = Tally::default();
    for script in scripts {
        match run(Command::new(&python).arg("-B").arg(&script).current_dir(workspace::root())) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                println!("FAILED: {error:#}");
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

/// What the demo's report must say. Read again here, so that a demo that judges itself too kindly is caught.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Found {
    gateways: usize,
    requests: u64,
    lost: u64,
    refused: u64,
    wrong: u64,
    releases: Vec<FoundRelease>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FoundRelease {
    version: String,
    phase: String,
    reason: String,
    gateways_reached: usize,
    rollback_millis: Option<f64>,
}

/// Runs the demo as a user does; its exit code and report.
fn run_demo(arguments: &[&str], report: &Path) -> Result<(bool, Found)> {
    let _ = std::fs::remove_file(report);
    // Not `current_exe`: the build phase may have put a new file in this program's place.
    let xtask = workspace::target_dir()?.join("debug").join("xtask");
    let status = Group::spawn(Command::new(&xtask).arg("demo").arg("--report").arg(report).args(arguments))?.wait()?;
    let text = std::fs::read_to_string(report).context("the demo wrote no report")?;
    Ok((status.success(), serde_json::from_str(&text).context("the demo's report")?))
}

fn demo() -> Result<Tally> {
    let report = workspace::target_dir()?.join("demo-report.json");
    let (success, found) = run_demo(&[], &report)?;
    ensure!(success, "the demo failed");
    ensure!(found.gateways == 5 && found.requests > 1000, "{} gateways, {} requests", found.gateways, found.requests);
    ensure!(
        (found.lost, found.refused, found.wrong) == (0, 0, 0),
        "{} lost, {} refused, {} wrong",
        found.lost,
        found.refused,
        found.wrong
    );
    let outcomes: Vec<_> =
        found.releases.iter().map(|r| (r.version.as_str(), r.phase.as_str(), r.gateways_reached)).collect();
    // 4.0.0 reaches nobody where the first request to it is a blank image: it is rolled back before any right answer.
    let [.., ("4.0.0", "RolledBack", 0 | 1)] = outcomes[..] else { bail!("the releases ended as {outcomes:?}") };
    ensure!(
        outcomes[..3] == [("1.0.0", "Active", 5), ("2.0.0", "Active", 5), ("3.0.0", "Refused", 0)],
        "the releases ended as {outcomes:?}"
    );
    let [_, _, refused, rolled_back] = &found.releases[..] else { bail!("four releases") };
    ensure!(refused.reason == "GoldenMismatch", "3.0.0 was refused for {:?}", refused.reason);
    ensure!(
        rolled_back.rollback_millis.is_some_and(|ms| ms < 1000.0),
        "4.0.0: rolled back in {:?} ms",
        rolled_back.rollback_millis
    );
    Ok(ONE)
}

/// A hidden switch of the demo, and how a report shows that fault and no other.
type Fault = (&'static str, fn(&Found) -> bool);

/// Each deliberate fault must make the demo fail, and for its own reason.
fn demo_can_fail() -> Result<Tally> {
    let report = workspace::target_dir()?.join("demo-fault.json");
    let faults: [Fault; 3] = [
        ("drop-answer", |f| (f.lost, f.refused, f.wrong) == (1, 0, 0)),
        ("flip-output", |f| (f.lost, f.refused, f.wrong) == (0, 0, 1)),
        ("force-bad-release", |f| {
            f.wrong > 0 && f.releases.iter().any(|r| r.version == "4.0.0" && r.gateways_reached == f.gateways)
        }),
    ];
    let mut tally = Tally::default();
    for (fault, shows) in faults {
        let (success, found) = run_demo(&["--gateways", "2", "--inject", fault], &report)?;
        let caught = !success && shows(&found);
        println!("{fault}: {}", if caught { "the demo failed, as it must" } else { "FAILED: it did not show" });
        tally.passed += u64::from(caught);
        tally.failed += u64::from(!caught);
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_read() {
        let line = "test result: FAILED. 17 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.11s";
        assert_eq!(result_line(line), Some(Tally { passed: 17, failed: 2 }));
        assert_eq!(result_line("running 3 tests"), None);
    }
}
