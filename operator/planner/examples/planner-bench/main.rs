//! `cargo xtask bench planner`: how often good releases are halted, and how far bad ones get.
//!
//! The real planner decides; the fleet, its time and its failures are simulated. Exits with 1 when a goal is missed.

mod random;
mod simulation;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ballast_crds::Rollout;
use ballast_planner::{Policy, SequentialTest};
use clap::Parser;

use crate::random::Random;
use crate::simulation::{Fleet, Outcome, SYNC, rollout};

/// Simulates rollouts over failure rates and fleet sizes.
#[derive(Debug, Parser)]
struct Args {
    /// Rollouts per line.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    rollouts: u64,
    /// Rollouts per line where a release that is hardly ever halted goes through 100,000 gateways.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    large: u64,
    /// Every rollout's random numbers follow from this and its place.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const RATES: [f64; 5] = [0.0, 0.01, 0.05, 0.10, 0.30];
const SIZES: [usize; 4] = [3, 30, 1_000, 100_000];
const SWITCHED_OFF: f64 = 0.1;

/// Goals hold from here on.
const GOAL_SIZE: usize = 1_000;
/// A release that fails on no more than this is good, and is halted in no more than this many cases.
const GOOD: f64 = 0.01;
/// A release that fails on so many reaches no more than [`REACH`] gateways in [`CAUGHT`] of the cases.
const BAD: f64 = 0.10;
const REACH: u64 = 100;
const CAUGHT: f64 = 0.95;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every goal is met.
fn run(args: &Args) -> Result<bool, String> {
    let policy = Policy::new(&Rollout::default(), SYNC).map_err(|e| e.to_string())?;
    let test = SequentialTest::new(1, 10);
    println!(
        "defaults of spec.rollout (steps 1, 10%, 100%; soak 10m; silenceDeadline 1h; failureRate 1/10, proving group {}); \
         {:.0} % of the gateways switched off; seed {}\n",
        test.group(),
        SWITCHED_OFF * 100.0,
        args.seed,
    );
    println!(
        "{:>7} {:>9} {:>9} {:>8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>10} {:>8}",
        "fails",
        "gateways",
        "rollouts",
        "halted",
        "1-(1-p)^n",
        "reach p50",
        "reach p95",
        "reach max",
        "<= 100",
        "time p50",
        "seconds"
    );
    let mut goals = Vec::new();
    for (line, (rate, gateways)) in RATES.iter().flat_map(|&p| SIZES.map(|n| (p, n))).enumerate() {
        let fleet = Fleet { gateways, switched_off: SWITCHED_OFF, failure_rate: rate };
        let rollouts = if gateways >= 100_000 && rate <= GOOD { args.large } else { args.rollouts };
        let started = Instant::now();
        let outcomes = simulate(&fleet, &policy, args.seed, line as u64, rollouts)?;
        let summary = Summary::of(&outcomes);
        println!(
            "{:>5.0} % {:>9} {:>9} {:>6.2} % {} {:>9} {:>9} {:>9} {:>6.2} % {:>10} {:>8.1}",
            rate * 100.0,
            gateways,
            rollouts,
            summary.halted * 100.0,
            // From 1,000 gateways on the test decides, not the first failure.
            if gateways < GOAL_SIZE {
                format!("{:>7.2} %", fleet.any_failure() * 100.0)
            } else {
                format!("{:>9}", "-")
            },
            summary.reach(0.5),
            summary.reach(0.95),
            summary.reach(1.0),
            summary.within * 100.0,
            span(summary.median_millis),
            started.elapsed().as_secs_f64(),
        );
        if gateways >= GOAL_SIZE && rate <= GOOD {
            goals.push(Goal {
                text: format!(
                    "{gateways} gateways, {:.0} % fail: halted in at most {:.0} %",
                    rate * 100.0,
                    GOOD * 100.0
                ),
                met: summary.halted <= GOOD,
                found: summary.halted,
                rollouts,
            });
        }
        if gateways >= GOAL_SIZE && rate == BAD {
            goals.push(Goal {
                text: format!(
                    "{gateways} gateways, {:.0} % fail: at most {REACH} reached in {:.0} %",
                    rate * 100.0,
                    CAUGHT * 100.0
                ),
                met: summary.within >= CAUGHT,
                found: summary.within,
                rollouts,
            });
        }
    }
    println!();
    for goal in &goals {
        let error = (goal.found * (1.0 - goal.found) / goal.rollouts as f64).sqrt();
        let word = if goal.met { "met" } else { "MISSED" };
        println!("goal {word}: {}: {:.2} % (standard error {:.2})", goal.text, goal.found * 100.0, error * 100.0);
    }
    Ok(goals.iter().all(|goal| goal.met))
}

struct Goal {
    text: String,
    met: bool,
    found: f64,
    rollouts: u64,
}

/// All rollouts of a line, on all processors; the same ones on any number of them.
fn simulate(fleet: &Fleet, policy: &Policy, seed: u64, line: u64, rollouts: u64) -> Result<Vec<Outcome>, String> {
    let next = AtomicU64::new(0);
    let work = || -> Result<Vec<Outcome>, String> {
        let mut outcomes = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= rollouts {
                return Ok(outcomes);
            }
            let place = line << 32 | i;
            let mut random = Random::new(seed, place);
            let outcome = rollout(fleet, policy, &mut random, |_, _| {});
            outcomes.push(outcome.map_err(|e| format!("seed {seed}, rollout {place}: {e}"))?);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut outcomes = Vec::new();
        for thread in running {
            outcomes.extend(thread.join().map_err(|_| "a simulation panicked".to_owned())??);
        }
        Ok(outcomes)
    })
}

struct Summary {
    halted: f64,
    within: f64,
    median_millis: u64,
    reached: Vec<u64>,
}

impl Summary {
    fn of(outcomes: &[Outcome]) -> Self {
        let share = |n: usize| n as f64 / outcomes.len() as f64;
        let sorted = |of: fn(&Outcome) -> u64| {
            let mut all: Vec<u64> = outcomes.iter().map(of).collect();
            all.sort_unstable();
            all
        };
        let reached = sorted(|o| o.reached);
        Self {
            halted: share(outcomes.iter().filter(|o| o.halted.is_some()).count()),
            within: share(reached.partition_point(|&n| n <= REACH)),
            median_millis: sorted(|o| o.millis)[outcomes.len() / 2],
            reached,
        }
    }

    fn reach(&self, quantile: f64) -> u64 {
        let rank = (quantile * self.reached.len() as f64).ceil() as usize;
        self.reached[rank.clamp(1, self.reached.len()) - 1]
    }
}

fn span(millis: u64) -> String {
    let minutes = millis / 60_000;
    format!("{}h{:02}m", minutes / 60, minutes % 60)
}
