//! Models with known answers through compiler and sandbox: `cargo xtask conformance`, `differential` and the real models' checks.
//!
//! Each folder given holds `model.onnx`, `golden.safetensors` (`inputs/NAME`, `outputs/NAME`, one or more vectors stacked) and,
//! where tolerances are the case's own, `case.json`. Each is compiled as for a release (census, import, the reference evaluator on the vectors, lowering, proof)
//! and run in the sandbox; every output is compared with what is expected. The last line is
//! `passed N, unsupported N, wrong N`: *unsupported* is what the compiler's census refused by name before it lowered anything,
//! *wrong* is everything else that did not give the expected answers, a panic and a hang included.

mod case;
mod compare;
mod docs;
mod guard;
mod memory;
mod native;
mod report;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

use report::Report;

#[derive(Debug, Parser)]
#[command(name = "conformance")]
struct Args {
    /// Folders of cases: each folder inside is one.
    #[arg(required_unless_present = "worker", value_name = "DIR")]
    cases: Vec<PathBuf>,
    /// Only cases with this word in their name or operators.
    #[arg(long, value_name = "WORD")]
    filter: Option<String>,
    /// How to report.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Fewer passed cases than this are a failure.
    #[arg(long, value_name = "N", default_value_t = 0)]
    passed_at_least: usize,
    /// More wrong cases than this are a failure.
    #[arg(long, value_name = "N", default_value_t = 0)]
    wrong_at_most: usize,
    /// An unsupported case is a failure too.
    #[arg(long)]
    all: bool,
    /// Cases at once; as many as there are CPUs.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// After this many seconds a case is wrong.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    limit: u64,
    /// Timed runs per case; the fastest is reported.
    #[arg(long, value_name = "N", default_value_t = 0)]
    rounds: u32,
    /// Also hold the reference evaluator and the kernels, as native code of this machine, to the expected answers.
    #[arg(long)]
    native: bool,
    /// Also hold the memory that verdicts promise to what an instance takes.
    #[arg(long)]
    memory: bool,
    /// Operators there are (`operators.json`), for the page.
    #[arg(long, value_name = "FILE", requires = "page")]
    operators: Option<PathBuf>,
    /// The page of operators; it must say what is found.
    #[arg(long, value_name = "FILE", requires = "operators")]
    page: Option<PathBuf>,
    /// Write the page instead of comparing.
    #[arg(long, requires = "page")]
    write_docs: bool,
    /// Keep each case's plan here.
    #[arg(long, value_name = "DIR")]
    plans: Option<PathBuf>,
    /// Keep each case's contract and golden vectors here, a zero byte between them.
    #[arg(long, value_name = "DIR")]
    contracts: Option<PathBuf>,
    /// One case after the other, from standard input, with the runner's code in this file.
    #[arg(long, hide = true, value_name = "FILE")]
    worker: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

impl Args {
    /// What a worker is told.
    fn options(&self) -> worker::Options {
        worker::Options {
            rounds: self.rounds,
            native: self.native,
            memory: self.memory,
            plans: self.plans.clone(),
            contracts: self.contracts.clone(),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.worker {
        Some(code) => worker::serve(code, &args.options()).map(|()| ExitCode::SUCCESS),
        None => run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(args: &Args) -> Result<ExitCode> {
    let mut cases = Vec::new();
    for folder in &args.cases {
        let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let case = case::Case::open(&entry?.path())?;
            if args.filter.as_ref().is_none_or(|word| case.is_about(word)) {
                cases.push(case);
            }
        }
    }
    ensure!(!cases.is_empty(), "there is no such case");
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let found = guard::run(&cases, jobs, Duration::from_secs(args.limit), &args.options())?;
    let report = Report::new(cases, found);
    match args.output {
        Output::Table => print!("{report}"),
        Output::Json => println!("{}", serde_json::to_string(&report.json())?),
    }
    let mut failed = report.wrong() > args.wrong_at_most || report.passed() < args.passed_at_least;
    failed |= args.all && report.unsupported() > 0;
    if let (Some(operators), Some(page)) = (&args.operators, &args.page)
        && args.filter.is_none()
    {
        failed |= !page_is_right(&report, operators, page, args.write_docs)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn page_is_right(report: &Report, operators: &Path, page: &Path, write: bool) -> Result<bool> {
    let known = docs::read(operators)?;
    let wanted = docs::page(&known, report);
    if write {
        std::fs::write(page, wanted).with_context(|| format!("writing {}", page.display()))?;
        return Ok(true);
    }
    let right = std::fs::read_to_string(page).is_ok_and(|found| found == wanted);
    if !right {
        eprintln!(
            "{} is not what was found: `cargo xtask conformance onnx --write-docs` writes it anew",
            page.display()
        );
    }
    Ok(right)
}
