//! `ballast-operator`: reads what people wish for, compiles, signs, and tells gateways what to run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use ballast_compiler::{CompileOutcome, CompileRequest, Isolation, WorkerError, WorkerLimits};
use ballast_controller::args::{Args, Command, RunArgs};
use ballast_controller::compilation::Compiler;
use ballast_controller::run;
use clap::{CommandFactory as _, Parser as _};

/// Compiles in this same program, started as a worker.
struct Workers {
    exe: PathBuf,
    limits: WorkerLimits,
}

impl Compiler for Workers {
    fn compile(&self, request: &CompileRequest) -> Result<CompileOutcome, WorkerError> {
        ballast_compiler::run_in_worker(&self.exe, request, &self.limits)
    }

    fn isolation(&self) -> Option<Result<Isolation, WorkerError>> {
        Some(ballast_compiler::check_worker(&self.exe))
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        None => operate(args.run),
        Some(Command::Run(run)) => operate(*run),
        Some(Command::CompileWorker(worker)) => return ballast_compiler::compile_worker_main(&worker.arguments),
        Some(Command::ProveWorker(worker)) => return ballast_compiler::prove_worker_main(&worker.arguments),
        Some(Command::Completion { shell }) => {
            clap_complete::generate(shell, &mut Args::command(), "ballast-operator", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ballast-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn operate(args: RunArgs) -> anyhow::Result<()> {
    let exe = std::env::current_exe().context("this program's own path")?;
    run::run(args, Arc::new(Workers { exe, limits: WorkerLimits::default() }))
}
