//! `cargo xtask`: the command line of the project's chores.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, conformance, demo, test};

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
    /// Measure, in release builds.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Demo(options) => demo::run(options),
        Chore::Test(options) => test::all(options),
        Chore::Conformance(what) => conformance::run(&what),
        Chore::Bench(bench) => bench::run(bench),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
