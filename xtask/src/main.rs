//! `cargo xtask`: the command line of the project's chores.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, conformance, demo, differential, fuzz, test, tools};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Run the whole loop on this machine: a fleet, a real model, good and bad releases, live traffic.
    Demo(demo::Options),
    /// Run every test of the project, the demo included.
    Test(test::Options),
    /// Run models with known answers through compiler and sandbox.
    #[command(subcommand)]
    Conformance(conformance::Conformance),
    /// Run random small graphs in the sandbox, the reference evaluator and ONNX Runtime.
    Differential(differential::Options),
    /// Fuzz what reads hostile bytes.
    Fuzz(fuzz::Options),
    /// Build the programs of Kubernetes that tests run against, once, into target/tools.
    Tools,
    /// Measure, in release builds.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Demo(options) => demo::run(options),
        Chore::Test(options) => test::all(options),
        Chore::Conformance(what) => conformance::run(&what),
        Chore::Differential(options) => differential::run(&options),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Tools => tools::all().map(|()| ExitCode::SUCCESS),
        Chore::Bench(bench) => bench::run(bench),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
