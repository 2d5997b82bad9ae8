//! `ballast`, also `kubectl-ballast`: checks, compiles and runs models here, and talks to an operator over its socket.

mod args;
mod bundles;
mod check;
mod compile;
mod docs;
mod duration;
mod events;
mod exit;
mod fleet;
mod http;
mod infer;
mod inspect;
mod models;
mod output;
mod progress;
mod rollout;
mod sandbox;
mod tensors;
mod verify;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::args::{Args, Command};
use crate::exit::Failure;

fn main() -> ExitCode {
    // The compiler reads models in children of this same program. Before anything else, since a worker takes away its
    // own rights, which must happen before a thread is started.
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.first().and_then(|a| a.to_str()) {
        Some(ballast_compiler::COMPILE_WORKER) => return ballast_compiler::compile_worker_main(&arguments),
        Some(ballast_compiler::PROVE_WORKER) => return ballast_compiler::prove_worker_main(&arguments),
        _ => {}
    }
    let matches = args::command().get_matches();
    let args = match Args::from_arg_matches(&matches) {
        Ok(args) => args,
        Err(e) => e.exit(),
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(sentence) = failure.sentence() {
                eprintln!("error: {sentence}");
            }
            failure.code()
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Check(c) => check::run(c),
        Command::Compile(c) => compile::run(c),
        Command::Infer(c) => infer::run(c),
        Command::Inspect(c) => inspect::run(c),
        Command::Verify(c) => verify::run(c),
        Command::Token(c) => fleet::token(&args.operator, c),
        Command::Gateways(c) => fleet::gateways(&args.operator, c),
        Command::Rollout(c) => rollout::run(&args.operator, c),
        Command::Events(c) => events::run(&args.operator, c),
        Command::Completion { shell } => {
            let mut command = args::command();
            let name = command.get_name().to_owned();
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, name, &mut script);
            // A reader that left early (`| head`) is no error.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
            Ok(())
        }
        Command::Docs => {
            print!("{}", docs::markdown(Args::command()));
            Ok(())
        }
    }
}
