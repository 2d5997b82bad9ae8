//! The planner as its callers see it.

#[path = "../../examples/planner-bench/random.rs"]
mod random;
#[path = "../../examples/planner-bench/simulation.rs"]
mod simulation;

mod counting;
mod deciding;
mod escalation;
mod fleets;
mod membership;
mod placement;
mod resuming;

use ballast_bundle::UnixMillis;
use ballast_bundle::protocol::ReleaseState;
use ballast_crds::{Rollout, Step, StepSize};
use ballast_planner::{Counts, GatewayView, Plan, Policy, RolloutState, Score, Vote, plan};

/// Milliseconds of an hour, the default `silenceDeadline`.
const HOUR: u64 = 3_600_000;
/// The default soak.
const SOAK: u64 = 600_000;

fn rollout(steps: &[&str]) -> Rollout {
    let step =
        |text: &&str| Step { gateways: text.parse().map_or_else(|_| StepSize::Share((*text).into()), StepSize::Count) };
    Rollout { steps: steps.iter().map(step).collect(), ..Rollout::default() }
}

fn policy(steps: &[&str]) -> Policy {
    Policy::new(&rollout(steps), 60_000).unwrap()
}

/// A fleet of `eligible` with these votes and nobody trying; the rest is outside.
fn counted(eligible: u64, passed: u64, failed: u64) -> Counts {
    let outside = eligible - passed - failed;
    Counts {
        selected: eligible,
        eligible,
        passed,
        failed,
        outside,
        active: passed,
        fetched: passed + failed,
        ..Counts::default()
    }
}

/// Looks at `counts`, time zero.
fn look(state: &RolloutState, counts: &Counts, policy: &Policy) -> Plan {
    look_at(state, counts, policy, 0)
}

fn look_at(state: &RolloutState, counts: &Counts, policy: &Policy, now: u64) -> Plan {
    plan(state, counts, &[], policy, UnixMillis(now))
}

/// A gateway that is heard of, outside, and knows nothing of the release.
fn gateway(score: u64) -> GatewayView {
    GatewayView {
        score: Score(score),
        eligible: true,
        given: false,
        state: None,
        vote: None,
        last_seen: Some(UnixMillis(0)),
    }
}

fn reporting(state: ReleaseState, vote: Option<Vote>) -> GatewayView {
    GatewayView { given: true, state: Some(state), vote, ..gateway(0) }
}
