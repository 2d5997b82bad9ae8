//! One deployment, one pass: dereference → validate → build → sign and publish → decide → status.
//!
//! *Client* steps (marked) touch disk or registry; the others do not. Passes are short: what takes long (fetching and
//! compiling) runs beside them and is picked up by a later pass. A pass may be cut off anywhere: what was saved is whole,
//! and the next one goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ballast_bundle::{Counter, DeploymentRef, ReleaseNumber, TargetName, UnixMillis};
use ballast_compiler::VerdictReason;
use ballast_crds::GoldenOrigin;
use ballast_crds::conditions::Reason;

use crate::builder::{BuilderError, Builds, Built};
use crate::controller::Controller;
use crate::jobs::JobState;
use crate::records::{Failure, Phase, Record, Release, Served, TargetBuild};
use crate::rollout::{self, Action, Admission, Counts, Decision, RolloutState, WaitCause};
use crate::roster::Member;
use crate::serving::{Hurry, Offer, Serving};
use crate::state::StateError;
use crate::targets::Target;
use crate::wanted::Wanted;
use crate::workers::BuildError;

/// A clock this far behind the last counter is wrong: nothing is issued under it.
const CLOCK_BEHIND: u64 = 24 * 3600 * 1000;
/// Fleets under this size sync at rollout's pace as a whole: nobody waits for its turn to hear of a release.
const SMALL_FLEET: usize = 32;
/// A gateway that was not heard for so long holds no old release back: its assignment has expired (a pointer lives for so
/// long), and when it comes back it takes the stable release, whatever became of its own bytes.
const HELD_MILLIS: u64 = 7 * 24 * 3600 * 1000;
/// Failures kept for people.
const FAILURES: usize = 10;

impl Controller {
    /// The pass over one deployment: what gateways are told of it. Saves the record where order matters, and at the end
    /// when it changed.
    pub(crate) fn reconcile(
        &self,
        wanted: &Arc<Wanted>,
        record: &mut Record,
        now: UnixMillis,
    ) -> Result<Serving, StateError> {
        // First, since every index below counts from the oldest release that is kept.
        record.prune(wanted.history, &wanted.identity, |number| self.is_held(&wanted.deployment, number, now));
        // Dereference (no client): gateways and targets as they are now. What may be given is set off against what was
        // given before the gateways were counted: a sync in between makes the next step smaller, never larger.
        let given = self.given(wanted, record);
        let members = self.roster.select(&wanted.deployment.namespace, |row| wanted.selector.matches(&row.labels));
        let targets = self.targets_of(wanted, &members);
        // The release that the wish asks for.
        let current = self.current(wanted, record, now);
        let deciding = self.may_decide(&members, now);
        if let Some(index) = current {
            match record.releases[index].phase {
                Phase::Compiling => self.compile(wanted, record, index, &targets, &members, now)?,
                Phase::RollingOut | Phase::Active | Phase::Paused => {
                    self.extend(wanted, record, index, &targets, now)?;
                    if deciding {
                        self.decide(wanted, record, index, &members, given, now);
                    }
                }
                Phase::RolledBack | Phase::Refused | Phase::Superseded => {}
            }
            self.observe(record, index, &members, wanted);
        }
        collect_failures(record, &members);
        let serving = self.serving(wanted, record, current, members.len());
        record.served = Some(Served {
            model: serving.model.clone(),
            selector: serving.selector.clone(),
            update: serving.update.as_ref().map(|(offer, _)| offer.number),
            trial: serving.trial.clone(),
        });
        self.save_changes(record)?;
        Ok(serving)
    }

    /// Whether a gateway that may still come for it has a release in one of its slots, or was told to take it. Gateways of
    /// the whole namespace count: one that is selected no more has what it has until it hears so.
    fn is_held(&self, deployment: &DeploymentRef, number: ReleaseNumber, now: UnixMillis) -> bool {
        self.roster.any(&deployment.namespace, |member| {
            let heard = member.row.last_seen.unwrap_or(member.row.enrolled);
            now.0.saturating_sub(heard.0) < HELD_MILLIS && member.holds(deployment, number)
        })
    }

    /// How many gateways were given the release that is wanted, so far.
    fn given(&self, wanted: &Wanted, record: &Record) -> u64 {
        let newest = record.releases.iter().rfind(|r| r.identity == wanted.identity);
        newest.and_then(|r| r.number).map_or(0, |number| self.ration(&wanted.deployment, number).given())
    }

    /// The targets that a release must be built for: found among the selected gateways, and allowed by the spec.
    fn targets_of(&self, wanted: &Wanted, members: &[Member]) -> Vec<Target> {
        let names: BTreeSet<&TargetName> = members.iter().filter_map(|m| m.target.as_ref()).collect();
        names.into_iter().filter(|n| wanted.allows(n)).filter_map(|n| self.target(n)).collect()
    }

    /// Finds or begins the release that `wanted` asks for. `None` never happens for a wish that could be read.
    fn current(&self, wanted: &Wanted, record: &mut Record, now: UnixMillis) -> Option<usize> {
        let newest = record.releases.iter().rposition(|r| r.identity == wanted.identity);
        if let Some(index) = newest {
            let release = &record.releases[index];
            let asked = wanted.retry.filter(|r| release.number.is_some_and(|n| n.counter.0 == r.counter));
            let retry = release.phase == Phase::RolledBack && asked.is_some();
            if let Some(asked) = asked.filter(|r| release.is_halted() && r.attempt > release.resumes) {
                let release = &mut record.releases[index];
                release.rollout = release.rollout.clone().resumed(&release.counts, now);
                (release.resumes, release.cause) = (asked.attempt, None);
                release.enter(Phase::RollingOut, Reason::RollingOut, "a person let it go on", now);
            }
            let release = &record.releases[index];
            let again = match release.phase {
                // Whoever goes back to an older release wants it again, under a new counter.
                Phase::Superseded => record.stable != release.number || release.number.is_none(),
                Phase::RolledBack => retry,
                Phase::Refused => wanted.retry.is_some_and(|r| r.counter == release.created.0),
                Phase::Compiling | Phase::RollingOut | Phase::Active | Phase::Paused => false,
            };
            if !again {
                self.supersede_others(record, index, now);
                return Some(index);
            }
        }
        record.releases.push(Release {
            identity: wanted.identity,
            version: wanted.version.clone(),
            number: None,
            phase: Phase::Compiling,
            reason: Reason::Compiling.as_str().into(),
            message: String::new(),
            created: now,
            since: now,
            targets: BTreeMap::new(),
            trial: wanted.trial.clone(),
            rollout: RolloutState::default(),
            counts: Counts::default(),
            cause: None,
            resumes: 0,
            reached: 0,
            rollback_micros: None,
            model: wanted.model_spec.clone(),
        });
        let index = record.releases.len() - 1;
        self.supersede_others(record, index, now);
        Some(index)
    }

    /// One release at a time: an older one that was still on its way stops, and never becomes a fallback.
    fn supersede_others(&self, record: &mut Record, current: usize, now: UnixMillis) {
        let stable = record.stable;
        for (index, release) in record.releases.iter_mut().enumerate() {
            let on_its_way = matches!(release.phase, Phase::Compiling | Phase::RollingOut | Phase::Paused);
            // A stable release stays Active until the next one has finished its steps.
            if index != current && on_its_way && (release.number.is_none() || release.number != stable) {
                release.enter(Phase::Superseded, Reason::Superseded, "a newer release took its place", now);
            }
        }
        // Back at the stable release after a newer one failed or was withdrawn.
        let release = &mut record.releases[current];
        if release.number.is_some() && release.number == stable && release.phase == Phase::Superseded {
            release.enter(Phase::Active, Reason::Complete, "", now);
        }
    }

    fn compile(
        &self,
        wanted: &Arc<Wanted>,
        record: &mut Record,
        index: usize,
        targets: &[Target],
        members: &[Member],
        now: UnixMillis,
    ) -> Result<(), StateError> {
        let release = &mut record.releases[index];
        if targets.is_empty() {
            self.jobs.forget(&wanted.deployment);
            let (reason, message) = if members.is_empty() {
                (
                    Reason::NoGatewaySelected,
                    format!(
                        "no enrolled gateway of namespace {} has the labels of gatewaySelector",
                        wanted.namespace_name
                    ),
                )
            } else {
                (
                    Reason::NoEligibleGateway,
                    format!(
                        "none of the {} selected gateways matches a hardware target of this deployment",
                        members.len()
                    ),
                )
            };
            release.enter(Phase::Compiling, reason, message, now);
            return Ok(());
        }
        match self.jobs.poll(wanted, targets, &self.builder, now) {
            JobState::Running(progress) => {
                release.enter(Phase::Compiling, Reason::Compiling, progress, now);
                Ok(())
            }
            JobState::Failed(error) => {
                let (reason, message) = (failure_reason(&error), error.to_string());
                if retried(&error) {
                    release.enter(Phase::Compiling, reason, message, now);
                } else {
                    self.jobs.forget(&wanted.deployment);
                    release.enter(Phase::Refused, reason, message, now);
                }
                Ok(())
            }
            JobState::Done(builds) => {
                self.jobs.forget(&wanted.deployment);
                self.sign(wanted, record, index, &builds, now)
            }
        }
    }

    /// Refuses, or gives the release its counter and signs it. *Client.*
    fn sign(
        &self,
        wanted: &Wanted,
        record: &mut Record,
        index: usize,
        builds: &Builds,
        now: UnixMillis,
    ) -> Result<(), StateError> {
        let release = &mut record.releases[index];
        for (name, built) in builds {
            release.targets.insert(name.clone(), target_build(built));
        }
        if let Some((reason, message)) = refusal(builds) {
            release.enter(Phase::Refused, reason, message, now);
            tracing::warn!(deployment = %wanted.deployment, version = wanted.version, %reason, "release refused; nothing was signed");
            return Ok(());
        }
        if let Some(message) = self.contract_change(wanted, record, builds) {
            record.releases[index].enter(Phase::Refused, Reason::ContractChanged, message, now);
            return Ok(());
        }
        if record.last_counter.is_some_and(|c| c.0 > now.0.saturating_add(CLOCK_BEHIND)) {
            let message = "this machine's clock is more than a day behind the last release's counter; set the clock";
            record.releases[index].enter(Phase::Compiling, Reason::ClockBehind, message, now);
            return Ok(());
        }
        if record.releases[index].number.is_none() {
            let counter = Counter::next(record.last_counter, now.0);
            record.last_counter = Some(counter);
            record.releases[index].number = Some(ReleaseNumber { epoch: self.epoch, counter });
        }
        // Durable before anything is signed: a number is never given out twice, whenever this process dies.
        self.save(record)?;
        let published = self.publish(wanted, &mut record.releases[index], builds);
        let release = &mut record.releases[index];
        match published {
            Ok(()) => {
                release.rollout = RolloutState::default();
                release.enter(Phase::RollingOut, Reason::RollingOut, "", now);
                tracing::info!(deployment = %wanted.deployment, version = wanted.version, number = ?release.number, "release signed and published");
                self.save(record)
            }
            Err(e) => {
                release.enter(Phase::Compiling, Reason::BundleUnavailable, e, now);
                Ok(())
            }
        }
    }

    fn publish(&self, wanted: &Wanted, release: &mut Release, builds: &Builds) -> Result<(), String> {
        let Some(number) = release.number else { return Err("the release has no number".into()) };
        for (name, built) in builds {
            let Some(artifacts) = &built.artifacts else { continue };
            let reference = crate::publish::publish(
                &self.registry,
                &self.release_key,
                &wanted.deployment,
                &wanted.version,
                number,
                name,
                artifacts,
            )
            .map_err(|e| e.to_string())?;
            release.targets.entry(name.clone()).or_insert_with(|| target_build(built)).release = Some(reference);
        }
        Ok(())
    }

    /// A target that appeared while the release lives: one more statement, not one more release. *Client.*
    fn extend(
        &self,
        wanted: &Arc<Wanted>,
        record: &mut Record,
        index: usize,
        targets: &[Target],
        now: UnixMillis,
    ) -> Result<(), StateError> {
        let release = &record.releases[index];
        let missing: Vec<Target> = targets.iter().filter(|t| !release.targets.contains_key(&t.name)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        match self.jobs.poll(wanted, &missing, &self.builder, now) {
            JobState::Running(_) => Ok(()),
            JobState::Failed(error) => {
                if !retried(&error) {
                    self.jobs.forget(&wanted.deployment);
                    for target in &missing {
                        let build = TargetBuild {
                            verdict: failure_reason(&error).as_str().into(),
                            message: error.to_string(),
                            ..TargetBuild::default()
                        };
                        record.releases[index].targets.insert(target.name.clone(), build);
                    }
                }
                Ok(())
            }
            JobState::Done(builds) => {
                self.jobs.forget(&wanted.deployment);
                for (name, built) in &builds {
                    record.releases[index].targets.insert(name.clone(), target_build(built));
                }
                if let Err(message) = self.publish(wanted, &mut record.releases[index], &builds) {
                    tracing::error!(deployment = %wanted.deployment, message, "a new target could not be published");
                    for name in builds.keys() {
                        record.releases[index].targets.remove(name); // tried again by the next pass
                    }
                }
                self.save(record)
            }
        }
    }

    /// Asks the planner (no client).
    fn decide(
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
    fn observe(&self, record: &mut Record, index: usize, members: &[Member], wanted: &Wanted) {
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

    fn contract_change(&self, wanted: &Wanted, record: &Record, builds: &Builds) -> Option<String> {
        if wanted.allow_contract_change {
            return None;
        }
        let stable = record.stable()?;
        builds.iter().find_map(|(name, built)| {
            let new: ballast_bundle::Contract = serde_json::from_slice(&built.artifacts.as_ref()?.contract).ok()?;
            let old = self.contract_of(stable.for_target(name)?)?;
            (new.inputs != old.inputs || new.outputs != old.outputs).then(|| {
                format!(
                    "inputs or outputs differ from those of {} on {name}; clients would break: set model.allowContractChange if that is meant",
                    stable.version
                )
            })
        })
    }
}

impl Controller {
    /// What goes on when the object cannot be acted on: who has a release keeps it, nobody is given one.
    pub(crate) fn standing(&self, record: &Record) -> Option<Serving> {
        let served = record.served.as_ref()?;
        let update =
            record.releases.iter().find(|r| r.number.is_some() && r.number == served.update && !r.phase.is_over());
        Some(Serving {
            deployment: record.deployment.clone(),
            model: served.model.clone(),
            selector: served.selector.clone(),
            update: update.and_then(|r| self.admit(&record.deployment, r)),
            stable: record.stable().and_then(Offer::of),
            trial: served.trial.clone(),
            hurry: Hurry::Nobody,
            yields: true,
        })
    }

    fn admit(&self, deployment: &DeploymentRef, release: &Release) -> Option<(Offer, Admission)> {
        let ration = self.ration(deployment, release.number?);
        let admission = Admission { identity: release.identity, threshold: release.rollout.threshold, ration };
        Some((Offer::of(release)?, admission))
    }

    fn serving(&self, wanted: &Wanted, record: &Record, current: Option<usize>, members: usize) -> Serving {
        let current = current.map(|i| &record.releases[i]);
        let update = current.filter(|r| matches!(r.phase, Phase::RollingOut | Phase::Paused | Phase::Active));
        // A gateway that voted, and one that was just told to go back, are heard within a sync at rollout's pace.
        let hurry = current.is_some_and(|r| {
            matches!(r.phase, Phase::Compiling | Phase::RollingOut)
                || record.stable != r.number && r.phase == Phase::Active
        });
        Serving {
            deployment: wanted.deployment.clone(),
            model: wanted.model.clone(),
            selector: wanted.selector.clone(),
            update: update.and_then(|r| self.admit(&wanted.deployment, r)),
            stable: record.stable().and_then(Offer::of),
            trial: wanted.trial.clone(),
            hurry: match hurry {
                false => Hurry::Nobody,
                true if members < SMALL_FLEET => Hurry::Everybody,
                true => Hurry::Members,
            },
            yields: false,
        }
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

fn target_build(built: &Built) -> TargetBuild {
    let verdict = &built.verdict;
    let contract: Option<ballast_bundle::Contract> =
        built.artifacts.as_ref().and_then(|a| serde_json::from_slice(&a.contract).ok());
    TargetBuild {
        verdict: format!("{:?}", verdict.reason),
        message: verdict.message.clone(),
        variant: built.artifacts.as_ref().map(|_| built.variant.clone()),
        size_bytes: verdict.size_bytes,
        peak_memory_bytes: verdict.peak_memory_bytes,
        gflop: verdict.gflop,
        predicted_latency_millis: Some(verdict.predicted_latency_millis),
        golden: contract.map(|c| match c.verification.user_golden {
            true => GoldenOrigin::User,
            false => GoldenOrigin::Generated,
        }),
        unsupported_operators: verdict.unsupported.iter().map(|u| format!("{} ({})", u.operator, u.node)).collect(),
        release: None,
    }
}

/// Why nothing may be signed. One target that answers wrongly condemns the release; one that is too small does not.
fn refusal(builds: &Builds) -> Option<(Reason, String)> {
    let wrong: Vec<_> = builds.iter().filter(|(_, b)| b.verdict.reason == VerdictReason::GoldenMismatch).collect();
    if let Some((name, built)) = wrong.first() {
        let message = format!("on {name}: {} Nothing was signed.", sentence(&built.verdict.message));
        return Some((Reason::GoldenMismatch, message));
    }
    if builds.values().any(|b| b.artifacts.is_some()) {
        return None;
    }
    let (name, built) = builds.iter().next()?;
    let more = match builds.len() - 1 {
        0 => String::new(),
        1 => " (and on one more target)".to_owned(),
        n => format!(" (and on {n} more targets)"),
    };
    Some((reason_name(built.verdict.reason), format!("on {name}{more}: {}", built.verdict.message)))
}

/// With a full stop, whether or not it has one.
fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

fn failure_reason(error: &BuilderError) -> Reason {
    use crate::fetch::FetchError;
    match error {
        BuilderError::Fetch(FetchError::DigestMismatch { .. }) => Reason::DigestMismatch,
        BuilderError::Fetch(FetchError::Unavailable { .. }) => Reason::SourceUnavailable,
        BuilderError::Fetch(FetchError::Uri { .. } | FetchError::TooLarge { .. }) => Reason::InvalidSpec,
        BuilderError::Build(BuildError::Crashed(_)) => Reason::CompilerCrashed,
        BuilderError::Build(BuildError::Failed(_) | BuildError::State(_)) => Reason::CompilerUnavailable,
    }
}

fn retried(error: &BuilderError) -> bool {
    match error {
        BuilderError::Fetch(e) => e.is_transient(),
        BuilderError::Build(BuildError::Crashed(_)) => false,
        BuilderError::Build(BuildError::Failed(_) | BuildError::State(_)) => true,
    }
}

/// The newest failures of gateways, newest first; one entry per gateway and release.
fn collect_failures(record: &mut Record, members: &[Member]) {
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

/// A verdict's reason as a condition's.
const fn reason_name(reason: VerdictReason) -> Reason {
    match reason {
        VerdictReason::Fits | VerdictReason::NotLowered => Reason::DoesNotFit,
        VerdictReason::NotOnnx => Reason::NotOnnx,
        VerdictReason::UnsupportedOperators => Reason::UnsupportedOperators,
        VerdictReason::UnsupportedType => Reason::UnsupportedType,
        VerdictReason::OpenDimensions => Reason::OpenDimensions,
        VerdictReason::InvalidInputs => Reason::InvalidSpec,
        VerdictReason::MemoryExceeded => Reason::MemoryExceeded,
        VerdictReason::DeadlineExceeded => Reason::DeadlineExceeded,
        VerdictReason::InvalidGolden | VerdictReason::GoldenMismatch => Reason::GoldenMismatch,
    }
}

#[cfg(test)]
mod tests {
    use super::sentence;

    #[test]
    fn a_sentence_ends_once() {
        assert_eq!(sentence("The model is wrong."), "The model is wrong.");
        assert_eq!(sentence("the model is wrong \n"), "the model is wrong.");
    }
}
