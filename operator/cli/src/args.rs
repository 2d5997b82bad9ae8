//! The command line. `docs/cli.md` is generated from here.

use std::path::PathBuf;

use clap::{Args as ClapArgs, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::duration::{Bytes, Millis};

/// Keeps a fleet of edge gateways in balance with the cloud.
#[derive(Debug, Parser)]
#[command(name = "ballast", version, propagate_version = true, subcommand_required = true)]
pub struct Args {
    #[command(flatten)]
    pub operator: Operator,
    #[command(subcommand)]
    pub command: Command,
}

/// Under the name that it was called by: `kubectl-ballast` is how kubectl finds its plugins.
pub fn command() -> clap::Command {
    let called = std::env::args_os().next().map(PathBuf::from);
    match called.as_deref().and_then(|p| p.file_name()) {
        Some(name) if name == "kubectl-ballast" => Args::command().name("kubectl-ballast").bin_name("kubectl ballast"),
        _ => Args::command(),
    }
}

/// Where the operator is.
#[derive(Debug, ClapArgs)]
pub struct Operator {
    /// The operator's administration socket: `admin.sock` in its state directory.
    #[arg(long, global = true, env = "BALLAST_SOCKET", value_name = "PATH", default_value = "state/admin.sock")]
    pub socket: PathBuf,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// The same as YAML.
    Yaml,
}

/// `-o`.
#[derive(Debug, ClapArgs)]
pub struct Output {
    /// How results are written.
    #[arg(short = 'o', long = "output", value_enum, default_value = "table", value_name = "FORMAT")]
    pub format: Format,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say whether a model fits hardware targets, with memory, size and predicted time, or all that is in the way.
    Check(Check),
    /// Compile a model for one hardware target into a bundle, and prove it in the sandbox.
    Compile(Compile),
    /// Run a model once: an ONNX file or a bundle in the sandbox here, or whatever a gateway serves.
    Infer(Infer),
    /// Show what a file or bundle says, without vouching for it.
    Inspect(Inspect),
    /// Verify the signature of a statement, and that a bundle is the one that it speaks of.
    Verify(Verify),
    /// Enrolment tokens.
    #[command(subcommand)]
    Token(Token),
    /// Gateways.
    #[command(subcommand)]
    Gateways(Gateways),
    /// Rollouts.
    #[command(subcommand)]
    Rollout(Rollout),
    /// What happened to deployments, the newest last: verdicts per target, and how rollouts went.
    Events(Events),
    /// Print a completion script for a shell.
    Completion {
        /// Which shell.
        shell: Shell,
    },
    /// Print this reference as Markdown.
    #[command(hide = true)]
    Docs,
}

/// `90%` or `90`, to a tenth, as 900.
fn per_mille(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no share: write a number over 0 and up to 100, as 95%");
    let (whole, tenth) = text.trim_end_matches('%').split_once('.').unwrap_or((text.trim_end_matches('%'), "0"));
    let (whole, tenth): (u32, u32) = (whole.parse().map_err(|_| wrong())?, tenth.parse().map_err(|_| wrong())?);
    let share =
        whole.checked_mul(10).and_then(|w| w.checked_add(tenth)).filter(|s| tenth < 10 && (1..=1000).contains(s));
    share.ok_or_else(wrong)
}

/// How answers are compared with golden vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Matching {
    /// Every number within the tolerance.
    Values,
    /// The index of the largest number is the label.
    ArgMax,
}

/// What a model leaves open, and the limits it is judged by.
#[derive(Debug, ClapArgs)]
pub struct Model {
    /// Golden vectors (safetensors with `inputs/NAME` and `outputs/NAME` or `labels/NAME`).
    #[arg(long, value_name = "FILE")]
    pub golden: Option<PathBuf>,
    /// How many of the golden vectors must match, as `spec.verification.golden.minMatching`.
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = per_mille, requires = "golden")]
    pub min_matching: u32,
    /// What is compared, as `spec.verification.golden.match`; without it labels where the file has any, else numbers.
    #[arg(long = "match", value_name = "HOW", value_enum, requires = "golden")]
    pub matching: Option<Matching>,
    /// How far numbers may be from those of the golden vectors, in the output's unit.
    #[arg(long, value_name = "NUMBER", default_value_t = 1e-4, requires = "golden")]
    pub absolute: f64,
    /// The same, as a share of the expected number.
    #[arg(long, value_name = "NUMBER", default_value_t = 1e-3, requires = "golden")]
    pub relative: f64,
    /// Shape of an input that the model leaves open, as `image=1x3x224x224`. Repeatable; the same input again is one more shape
    /// that requests may have.
    #[arg(long = "shape", value_name = "NAME=SHAPE")]
    pub shapes: Vec<String>,
    /// What fills a shorter input up to one of its several shapes, and the input that is 0 there and hides it from the model, as
    /// `ids=mask`, or `ids=mask,-1` to fill it up with something else than 0. Repeatable.
    #[arg(long = "padding", value_name = "NAME=MASK[,NUMBER]")]
    pub padding: Vec<String>,
    /// The axis of an input, from 0, along which clients may send several rows at once, as `image=0`. Repeatable.
    #[arg(long = "batch-axis", value_name = "NAME=AXIS")]
    pub batch_axes: Vec<String>,
    /// Fixes an input to a number, as `sr=16000`. Repeatable.
    #[arg(long = "value", value_name = "NAME=NUMBER")]
    pub values: Vec<String>,
    /// Lets gateways carry an input over from an output, as `state=stateN`: `inputs[].state`. Repeatable.
    #[arg(long = "state", value_name = "NAME=OUTPUT")]
    pub states: Vec<String>,
    /// Most memory that one instance may take.
    #[arg(long, value_name = "BYTES", default_value = "256Mi")]
    pub memory_limit: Bytes,
    /// Instances that serve at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub instances: u32,
    /// From dequeue to answer; without it derived from the predicted time.
    #[arg(long, value_name = "DURATION")]
    pub deadline: Option<Millis>,
}

#[derive(Debug, ClapArgs)]
pub struct Check {
    /// The model.
    #[arg(value_name = "FILE.onnx")]
    pub file: PathBuf,
    /// A built-in hardware target, or the file of a HardwareTarget (`press.yaml`); repeatable, also as `a,b`; `all` is every
    /// built-in one. Without it all of them, and one that fits is enough.
    #[arg(short, long = "target", value_name = "TARGET", value_delimiter = ',')]
    pub targets: Vec<String>,
    #[command(flatten)]
    pub model: Model,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, ClapArgs)]
pub struct Compile {
    /// The model.
    #[arg(value_name = "FILE.onnx")]
    pub file: PathBuf,
    /// A built-in hardware target, or the file of a HardwareTarget.
    #[arg(short, long, value_name = "TARGET")]
    pub target: String,
    /// Where the bundle goes; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// An OCI image layout instead of plain files.
    #[arg(long)]
    pub oci: bool,
    /// The name that it is served under; without it the file's.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Its version.
    #[arg(long, value_name = "VERSION", default_value = "0.0.0")]
    pub model_version: String,
    #[command(flatten)]
    pub model: Model,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, ClapArgs)]
pub struct Infer {
    /// An ONNX file, a bundle's directory, or a gateway (`http://HOST:8000`).
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// Which model; only for a gateway.
    #[arg(short, long, value_name = "NAME")]
    pub model: Option<String>,
    /// An input: `image=FILE` (`.json` numbers, `.npy`, or raw little-endian bytes) or `image=@1,2,3`. Repeatable.
    #[arg(short, long = "input", value_name = "NAME=VALUE")]
    pub inputs: Vec<String>,
    /// All inputs from golden vectors (safetensors); `--vector` says which.
    #[arg(long, value_name = "FILE", conflicts_with = "inputs")]
    pub golden: Option<PathBuf>,
    /// Which of the golden vectors.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "golden")]
    pub vector: usize,
    /// Shape of an input that the model leaves open, as `image=1x3x224x224`; only for an ONNX file. Repeatable.
    #[arg(long = "shape", value_name = "NAME=SHAPE")]
    pub shapes: Vec<String>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, ClapArgs)]
pub struct Inspect {
    /// A bundle's directory, an OCI image layout, or a file: trust root, pointer, statement, manifest, contract, plan,
    /// golden vectors.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, ClapArgs)]
pub struct Verify {
    /// A Sigstore bundle with a release or runner statement.
    #[arg(value_name = "STATEMENT")]
    pub statement: PathBuf,
    /// The public key that must have signed it (PEM).
    #[arg(long, value_name = "FILE", required_unless_present = "roots", conflicts_with = "roots")]
    pub key: Option<PathBuf>,
    /// The fleet's trust roots from version 1 on; the newest names the keys. Repeatable, in order.
    #[arg(long = "root", value_name = "FILE")]
    pub roots: Vec<PathBuf>,
    /// The bundle's directory or OCI image layout, or the runner's file: every byte is compared with the statement.
    #[arg(long, value_name = "PATH")]
    pub bundle: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token that lets gateways in; it is printed once.
    Create {
        /// For people; unique in the namespace.
        name: String,
        /// A label that gateways get, as `line=bottling`. Repeatable.
        #[arg(short, long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
        /// How many gateways may enrol with it.
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
        /// How long it is good for.
        #[arg(long, default_value = "24h", value_name = "DURATION")]
        expires: Millis,
        /// Lets a gateway that lost its key take its old place.
        #[arg(long)]
        allow_replace: bool,
        /// The namespace that the gateways will belong to.
        #[arg(short, long, default_value = "default")]
        namespace: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub enum Gateways {
    /// All gateways.
    List {
        /// At most so many.
        #[arg(long, default_value_t = 10_000, value_name = "N")]
        limit: usize,
        #[command(flatten)]
        output: Output,
    },
    /// One gateway with its facts and the releases that it reported: Active answers, Fallback stands behind it, Candidate is on
    /// its way, Gone was held once.
    Show {
        /// Its id, or its name where only one gateway has it.
        id: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Events {
    /// The ModelDeployment; without it all of them.
    pub name: Option<String>,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    #[command(flatten)]
    pub output: Output,
}

/// Which deployment.
#[derive(Debug, ClapArgs)]
pub struct Deployment {
    /// The ModelDeployment.
    pub name: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Every release of a deployment: how far it is, why it stopped, and what in its file was not accepted.
    Status(Deployment),
    /// Follow the release that the object asks for until it is active, rolled back, refused or paused.
    Watch {
        #[command(flatten)]
        deployment: Deployment,
        /// Wait first until the operator has read this version: right after a file was saved it has not.
        #[arg(long, value_name = "VERSION")]
        model_version: Option<String>,
        /// Give up after so long. Without it, 15 s for a deployment that is not there or whose file is not accepted, and never
        /// for one that is on its way.
        #[arg(long, value_name = "DURATION")]
        timeout: Option<Millis>,
    },
    /// Let no more gateways take the release.
    Pause(Deployment),
    /// Go on.
    Resume(Deployment),
    /// Try a release again that was rolled back or refused.
    Retry(Deployment),
    /// Go back to an earlier model.
    Undo {
        #[command(flatten)]
        deployment: Deployment,
        /// The counter of the release to go back to; without it the last good one before the newest.
        #[arg(long, value_name = "COUNTER")]
        to: Option<u64>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_contradicts_itself_nowhere() {
        Args::command().debug_assert();
        command().debug_assert();
    }

    #[test]
    fn everything_says_what_it_is() {
        fn each(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {}", argument.get_id());
            }
            command.get_subcommands().for_each(|child| each(child, &path));
        }
        each(&Args::command(), "");
    }
}
