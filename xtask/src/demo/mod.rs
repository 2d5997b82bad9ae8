//! `cargo xtask demo`: the whole loop on this machine, judged from outside.
//!
//! The script starts processes, writes YAML files, pulls plugs, and looks. What it reports comes from two places only:
//! the load generator, which knows nothing of rollouts, and `ballast rollout status -o json`.

mod acts;
pub mod documents;
pub mod fleet;
pub mod http;
mod load;
pub mod prerequisites;
pub mod proxy;
mod report;
mod stage;
pub mod status;
pub mod traffic;
mod view;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use self::fleet::Binaries;
use self::stage::Demo;
use self::view::View;
use crate::process::{self, interrupted};
use crate::workspace;

/// All gateways together get so many requests per second, so that the figures are about Ballast and not about how two
/// cores share themselves out.
const REQUESTS_PER_SECOND: u32 = 500;

/// `cargo xtask demo`.
#[derive(Debug, Args)]
pub struct Options {
    /// Gateways to start; from 32 on, rollouts go by the sequential test instead of one by one.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=200))]
    gateways: u16,
    /// Your own model, rolled out to the same fleet at the end.
    #[arg(long, value_name = "FILE.onnx")]
    model: Option<PathBuf>,
    /// Shape of an input that your model leaves open, as `image=1x3x224x224`. Repeatable.
    #[arg(long = "shape", value_name = "NAME=SHAPE", requires = "model", value_parser = shape)]
    shapes: Vec<(String, Vec<u64>)>,
    /// Leave everything running at the end and print commands to try; Ctrl-C ends it.
    #[arg(long)]
    keep: bool,
    /// Write what was found as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Requests per second and gateway, at most. By default 100, fewer with more than five gateways.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Make the demo fail, to prove that it can.
    #[arg(long, hide = true)]
    inject: Option<Inject>,
    /// Use the binaries of this folder instead of building them.
    #[arg(long, hide = true, value_name = "DIR")]
    binaries: Option<PathBuf>,
}

/// Deliberate faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Inject {
    /// One answer never arrives.
    DropAnswer,
    /// One bit of one answer flips.
    FlipOutput,
    /// The bad release goes everywhere because nobody checks its outputs.
    ForceBadRelease,
}

impl Options {
    fn rate(&self) -> u32 {
        self.rate.unwrap_or_else(|| (REQUESTS_PER_SECOND / u32::from(self.gateways)).clamp(1, 100))
    }

    /// Of a trial: about as many as arrive in a second and a half. At least 40, because any 28 live images in a row have
    /// a blank one among them, which 4.0.0 must not get past.
    fn min_requests(&self) -> u32 {
        (self.rate() * 3 / 2).clamp(40, 150)
    }
}

fn shape(text: &str) -> Result<(String, Vec<u64>), String> {
    let (name, shape) = text.split_once('=').ok_or("write NAME=1x3x224x224")?;
    let shape: Result<Vec<u64>, _> = shape.split('x').map(str::parse).collect();
    Ok((name.to_owned(), shape.map_err(|_| "write NAME=1x3x224x224")?))
}

/// Runs the demo; the exit code says whether everything was as promised.
pub fn run(options: Options) -> Result<ExitCode> {
    process::watch_for_interruption()?;
    let mut view = View::new();
    view.act("prerequisites");
    prerequisites::check(options.model.as_deref())?;
    if let Some(path) = &options.report {
        // Now, and not after two minutes.
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("--report cannot write {}", path.display()))?;
    }
    let binaries = match &options.binaries {
        Some(folder) => Binaries::of(folder),
        None => {
            view.act("build (ballast-operator, ballast-edge, ballast; development profile)");
            build()?
        }
    };
    let root = workspace::target_dir()?.join("demo").join(format!("run-{}", std::process::id()));
    ended(&root, Demo::start(options, view, &root, binaries).and_then(Demo::play))
}

/// What is left, and the exit code.
fn ended(root: &Path, outcome: Result<bool>) -> Result<ExitCode> {
    match outcome {
        Ok(true) => {
            let _ = std::fs::remove_dir_all(root);
            Ok(ExitCode::SUCCESS)
        }
        Err(_) if interrupted() => {
            println!("interrupted; every child has ended");
            let _ = std::fs::remove_dir_all(root);
            Ok(ExitCode::from(130))
        }
        Ok(false) => {
            println!("logs: {}", root.join("logs").display());
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            println!("the demo failed: {error:#}\nlogs: {}", root.join("logs").display());
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Builds all binaries and says where they are. The whole workspace, as the tests do: another choice of packages would
/// unify features differently and compile the large dependencies a second time. `BALLAST_BINARIES` names a folder that has them
/// already: those of a release, for one.
pub fn build() -> Result<Binaries> {
    if let Some(folder) = std::env::var_os("BALLAST_BINARIES") {
        return Ok(Binaries::of(Path::new(&folder)));
    }
    process::run(workspace::cargo().args(["build", "--workspace", "--bins"]))?;
    Ok(Binaries::of(&workspace::target_dir()?.join("debug")))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Result<Options, String> {
        let line = [&["demo"], arguments].concat();
        Command::try_parse_from(line).map(|c| c.options).map_err(|e| e.to_string())
    }

    #[test]
    fn more_gateways_get_fewer_requests_each() {
        let rates = |arguments: &[&str]| options(arguments).map(|o| (o.rate(), o.min_requests())).unwrap();
        assert_eq!(rates(&[]), (100, 150));
        assert_eq!(rates(&["--gateways", "40"]), (12, 40));
        assert_eq!(rates(&["--gateways", "40", "--rate", "1000"]), (1000, 150));
    }

    #[test]
    fn what_makes_no_sense_is_refused_at_once() {
        for bad in [
            &["--rate", "0"][..],
            &["--rate", "-1"],
            &["--gateways", "1"],
            &["--shape", "x=1x2"],
            &["--model", "a.onnx", "--shape", "x"],
            &["--model", "a.onnx", "--shape", "x=1,2"],
        ] {
            assert!(options(bad).is_err(), "{bad:?}");
        }
        let good = options(&["--model", "a.onnx", "--shape", "x=1x3x48x192"]).unwrap();
        assert_eq!(good.shapes, [("x".to_owned(), vec![1, 3, 48, 192])]);
    }
}
