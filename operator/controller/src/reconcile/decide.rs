//! What becomes of a release that gateways take: the planner's decision carried out in the record, and what gateways said.
//! No client.

use ballast_bundle::{DeploymentRef, ReleaseNumber, UnixMillis};
use ballast_crds::conditions::Reason;

use crate::controller::Controller;
use crate::records::{Failure, Phase, Record};
use crate::rollout::{self, Action, Decision, WaitCause};
use crate::roster::Member;
use crate::wanted::Wanted;

/// Failures kept for people.
const FAILURES: usize = 10;

impl Controller {
    /// Asks the planner (no client).
    pub(super) fn decide(
        &self,
        wanted: &Wanted,
        record: &mut Record,
        index: usize,
        members: &[Member],
        given: u64,
        now: UnixMillis,
    ) {
        let release = &mut record.releases[index];
        let Some(number) = release.number else { return };
        let ration = self.ration(&wanted.deployment, number);
        let eligible = |m: &Member| m.target.as_ref().is_some_and(|t| release.for_target(t).is_some());
        let heard = self.hearing.since();
        let views =
            members.iter().map(|m| rollout::view(m, &wanted.deployment, number, &release.identity, eligible(m), heard));
        let looked = rollout::look(&release.rollout, views, &wanted.policy, release.since, now);
        ration.allow(given, looked.plan.may_give);
        release.rollout = looked.plan.state;
        release.counts = looked.counts;
        if release.cause.is_none() {
            release.cause = first_cause(members, &wanted.deployment, number);
        }
        let (reason, message) = (looked.reason, looked.message);
        match looked.plan.decision {
            Decision::Wait(WaitCause::Paused) => release.enter(Phase::Paused, reason, message, now),
            Decision::Wait(_) => release.enter(Phase::RollingOut, reason, message, now),
            Decision::Halt { action, cause } => {
                if !matches!(release.phase, Phase::RolledBack) && release.reason() != Reason::Halted {
                    tracing::warn!(deployment = %wanted.deployment, version = release.version, ?cause, message, "rollout halted");
                }
                let because = release.cause.as_deref().unwrap_or_default();
                let message =
                    if because.is_empty() { message } else { format!("a gateway reported {because}: {message}") };
                match action {
                    Action::Hold => release.enter(Phase::Paused, Reason::Halted, message, now),
                    Action::Rollback => {
                        release.enter(Phase::RolledBack, Reason::RolledBack, message, now);
                        if record.stable == Some(number) {
                            // What was active and failed later is nobody's fallback any more.
                            record.stable = record.previous_stable();
                        }
                    }
                }
            }
            Decision::Complete if release.phase == Phase::Active => release.enter(Phase::Active, reason, message, now),
            Decision::Complete => {
                tracing::info!(deployment = %wanted.deployment, version = release.version, "release passed its last step");
                release.enter(Phase::Active, reason, message, now);
                let previous = record.stable.replace(number);
                for other in record.releases.iter_mut().filter(|r| r.number != Some(number)) {
                    if other.number.is_some() && other.number == previous {
                        other.enter(Phase::Superseded, Reason::Superseded, "a newer release took its place", now);
                    }
                }
            }
        }
    }

    /// Figures that outlive the decision: who was reached, how long the way back took.
    pub(super) fn observe(&self, record: &mut Record, index: usize, members: &[Member], wanted: &Wanted) {
        let release = &mut record.releases[index];
        let Some(number) = release.number else { return };
        let reports = members.iter().filter_map(|m| m.report(&wanted.deployment, number));
        let (mut reached, mut slowest) = (0, release.rollback_micros);
        for stored in reports {
            reached += u64::from(stored.report.requests > 0);
            slowest = slowest.max(stored.report.rollback_micros);
        }
        release.reached = release.reached.max(reached);
        release.rollback_micros = slowest;
    }
}

/// What the first gateway said that failed.
fn first_cause(members: &[Member], deployment: &DeploymentRef, number: ReleaseNumber) -> Option<String> {
    let failed = |m: &Member| {
        let stored = m.report(deployment, number)?;
        let reason = stored.report.reason.filter(|r| r.is_failure())?;
        Some((stored.since, format!("{reason:?}")))
    };
    members.iter().filter_map(failed).min().map(|(_, reason)| reason)
}

/// The newest failures of gateways, newest first; one entry per gateway and release.
pub(super) fn collect_failures(record: &mut Record, members: &[Member]) {
    let mut found: Vec<Failure> = members
        .iter()
        .flat_map(|m| m.reports.iter().map(move |r| (m, r)))
        .filter(|(_, r)| r.report.deployment == record.deployment)
        .filter_map(|(m, r)| {
            let reason = r.report.reason.filter(|reason| reason.is_failure())?;
            Some(Failure {
                gateway: m.row.display_name.clone().unwrap_or_else(|| m.row.id.to_string()),
                release: r.report.version.clone(),
                reason: format!("{reason:?}"),
                message: r.report.message.clone(),
                time: r.since,
            })
        })
        .collect();
    found.append(&mut record.failures);
    found.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.gateway.cmp(&b.gateway)));
    found.dedup();
    found.truncate(FAILURES);
    record.failures = found;
}
