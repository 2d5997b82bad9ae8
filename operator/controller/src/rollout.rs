//! The planner's border: gateways are folded into its counts, its decisions become phases and sentences.

use std::sync::{Arc, Mutex, PoisonError};

use ballast_bundle::{DeploymentRef, Digest, ReleaseNumber, UnixMillis};
use ballast_crds::conditions::{Reason, row};
use ballast_fleet::store::Vote;
pub use ballast_planner::{Action, Counts, Decision, RolloutState, Threshold, WaitCause};
use ballast_planner::{GatewayView, Plan, Policy, Score, StatusInput, Tally, plan, situation, status};

use crate::roster::Member;

/// What a gateway's row and report say of a release. Nobody is silent while this operator could not hear: `heard` is since
/// when it could.
pub fn view(
    member: &Member,
    deployment: &DeploymentRef,
    number: ReleaseNumber,
    identity: &Digest,
    eligible: bool,
    heard: UnixMillis,
) -> GatewayView {
    let stored = member.report(deployment, number);
    GatewayView {
        score: Score::of(identity, &member.row.id),
        eligible,
        given: member.was_given(deployment, number),
        state: stored.map(|s| s.report.state),
        vote: stored.and_then(|s| s.vote).map(|vote| match vote {
            Vote::Passed => ballast_planner::Vote::Passed,
            Vote::Failed => ballast_planner::Vote::Failed,
        }),
        // One that has just enrolled had no time to speak.
        last_seen: Some(member.row.last_seen.unwrap_or(member.row.enrolled).max(heard)),
    }
}

/// A decision with all that is shown of it.
pub struct Looked {
    /// The planner's.
    pub plan: Plan,
    /// The planner's input.
    pub counts: Counts,
    /// Ready's reason.
    pub reason: Reason,
    /// One sentence.
    pub message: String,
}

/// Looks at a rollout.
pub fn look(
    state: &RolloutState,
    views: impl Iterator<Item = GatewayView>,
    policy: &Policy,
    since: UnixMillis,
    now: UnixMillis,
) -> Looked {
    let mut tally = Tally::new(state.threshold, policy.silence_millis, now);
    for view in views {
        tally.add(&view);
    }
    let (counts, next) = tally.finish();
    let plan = plan(state, &counts, &next, policy, now);
    let (_, message) =
        status(&StatusInput { state: &plan.state, decision: &plan.decision, counts: &counts, policy, since });
    let reason = row(situation(&plan.decision, &counts), false).cells[0].1;
    Looked { plan, counts, reason, message }
}

/// How many gateways may still be given a release; shared by the passes, which set it, and the syncs, which use it up.
#[derive(Debug, Default)]
pub struct Ration(Mutex<(u64, u64)>);

impl Ration {
    /// What was given so far. Read before the gateways are counted.
    pub fn given(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// So many more than `given` may be given. Whoever was given it since then is taken off: a pass can only be careful.
    pub fn allow(&self, given: u64, more: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = given.saturating_add(more);
    }

    /// Takes one, and lets `mark` remember it before anybody else looks.
    pub fn take(&self, mark: impl FnOnce()) -> bool {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.0 >= inner.1 {
            return false;
        }
        inner.0 += 1;
        mark();
        true
    }
}

/// Who is given an update.
#[derive(Debug, Clone)]
pub struct Admission {
    /// Hash that the order is drawn with.
    pub identity: Digest,
    /// Members.
    pub threshold: Threshold,
    /// Of those, so many at once.
    pub ration: Arc<Ration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ration_is_never_exceeded_and_a_late_count_only_makes_it_smaller() {
        let ration = Ration::default();
        assert!(!ration.take(|| ()));
        ration.allow(ration.given(), 2);
        let before = ration.given();
        assert!(ration.take(|| ()));
        // The pass counted without the one that was just given.
        ration.allow(before, 1);
        assert!(!ration.take(|| ()));
        ration.allow(0, u64::MAX);
        assert!(ration.take(|| ()));
    }
}
