//! What status says of a rollout.

use ballast_bundle::UnixMillis;
use ballast_crds::RolloutStatus;
use ballast_crds::conditions::{Situation, rfc3339};

use crate::{Action, Counts, Decision, HaltCause, Policy, RolloutState, WaitCause};

/// The row of the truth table that a decision stands for.
pub fn situation(decision: &Decision, counts: &Counts) -> Situation {
    match decision {
        Decision::Halt { action: Action::Rollback, .. } => Situation::RolledBack,
        Decision::Halt { action: Action::Hold, .. } => Situation::Halted,
        Decision::Complete if counts.failures() + counts.relapsed > 0 => Situation::CompleteSomeFailed,
        Decision::Complete if counts.silent > 0 => Situation::CompleteSomeSilent,
        Decision::Complete => Situation::Complete,
        Decision::Wait(cause) => match cause {
            WaitCause::NoGatewaySelected => Situation::NoGatewayLeft,
            WaitCause::NoEligibleGateway => Situation::NoEligibleGateway,
            WaitCause::Paused => Situation::Paused,
            WaitCause::Resolving => Situation::RollingOut,
            WaitCause::WaitingForGateways => Situation::WaitingForGateways,
            WaitCause::Soaking { .. } => Situation::Soaking,
        },
    }
}

/// What [`status`] needs besides.
#[derive(Debug, Clone, Copy)]
pub struct StatusInput<'a> {
    /// The plan's.
    pub state: &'a RolloutState,
    /// The plan's.
    pub decision: &'a Decision,
    /// The plan's input.
    pub counts: &'a Counts,
    /// The plan's input.
    pub policy: &'a Policy,
    /// When the decision last changed.
    pub since: UnixMillis,
}

/// `status.rollout`, and a sentence for the conditions' messages.
pub fn status(input: &StatusInput<'_>) -> (RolloutStatus, String) {
    let StatusInput { state, decision, counts, policy, since } = *input;
    let steps = policy.steps.len();
    let step = (state.step + 1).min(steps);
    let row = ballast_crds::conditions::row(situation(decision, counts), false);
    let word = match decision {
        Decision::Wait(WaitCause::Paused) | Decision::Halt { action: Action::Hold, .. } => "Pause",
        Decision::Wait(WaitCause::Soaking { .. }) => "Soak",
        Decision::Wait(WaitCause::Resolving) => "Advance",
        Decision::Wait(_) => "Wait",
        Decision::Halt { action: Action::Rollback, .. } => "Halt",
        Decision::Complete => "Complete",
    };
    let shown = RolloutStatus {
        step: format!("{step}/{steps}"),
        decision: word.to_owned(),
        reason: row.cells[0].1.to_string(),
        since: Some(rfc3339(since)),
    };
    (shown, sentence(step, steps, input))
}

fn sentence(step: usize, steps: usize, input: &StatusInput<'_>) -> String {
    let StatusInput { state, decision, counts, policy, .. } = *input;
    let votes =
        format!("{} passed, {} failed of {} eligible gateways", counts.passed, counts.failures(), counts.eligible);
    let target = policy.step_size(state.step, counts.eligible);
    match decision {
        Decision::Wait(WaitCause::NoGatewaySelected) => {
            "the selector matches no enrolled gateway: check gatewaySelector against `ballast gateways list`".to_owned()
        }
        Decision::Wait(WaitCause::NoEligibleGateway) => {
            format!("none of {} selected gateways is of a target that the release was built for", counts.selected)
        }
        Decision::Wait(WaitCause::Paused) => format!("paused in step {step} of {steps}: {votes}"),
        Decision::Wait(WaitCause::Resolving) => {
            format!(
                "step {step} of {steps} ({target} gateways, {} at once): {votes}, {} trying",
                state.window, counts.in_flight
            )
        }
        Decision::Wait(WaitCause::WaitingForGateways) => format!(
            "step {step} of {steps}: nobody can try it now ({} away, {} without room); {votes}",
            counts.away, counts.held
        ),
        Decision::Wait(WaitCause::Soaking { until }) => {
            format!("step {step} of {steps} passed and is watched until {}: {votes}", rfc3339(*until))
        }
        Decision::Halt { cause, action } => {
            let why = match cause {
                HaltCause::FirstFailure => "the first failure in a small fleet",
                HaltCause::SequentialTest => "more failures than a good release has",
                HaltCause::Watch => "gateways went back after the rollout was complete",
            };
            let then = match action {
                Action::Rollback => "every gateway serves the stable release; change the model, or ask for a retry",
                Action::Hold => "gateways keep what they have; resume, or undo",
            };
            format!("{why}: {votes}; {then}")
        }
        Decision::Complete => format!("every step passed: {} of {} gateways serve it", counts.active, counts.eligible),
    }
}
