//! What compiles beside the passes: started, polled, and judged when it is done. No client, but where a target joins a
//! release that lives: its bundle is published at once.

use std::sync::Arc;

use ballast_bundle::UnixMillis;
use ballast_crds::GoldenOrigin;
use ballast_crds::conditions::Reason;

use crate::builder::{BuilderError, Built};
use crate::controller::Controller;
use crate::events::bounded;
use crate::jobs::JobState;
use crate::reconcile::sign::Signed;
use crate::records::{Phase, Record, TargetBuild};
use crate::roster::Member;
use crate::state::StateError;
use crate::targets::Target;
use crate::wanted::Wanted;
use crate::workers::BuildError;

/// Most of a verdict's words that a status holds: an object ends at a megabyte, and names come from the model.
pub(super) const MAX_MESSAGE_BYTES: usize = 8 << 10;
const MAX_OPERATOR_BYTES: usize = 256;
/// Of one shape's line in status.
const MAX_SHAPE_BYTES: usize = 512;
/// As many as a status shows.
const MAX_OPERATORS: usize = 64;

/// A clock this far behind the last counter is wrong: nothing is issued under it.
pub(super) const CLOCK_BEHIND: u64 = 24 * 3600 * 1000;

impl Controller {
    pub(super) fn compile(
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
        if clock_is_behind(record, now) {
            self.jobs.forget(&wanted.deployment);
            let message = "this machine's clock is more than a day behind the last release's counter; set the clock";
            record.releases[index].enter(Phase::Compiling, Reason::ClockBehind, message, now);
            return Ok(());
        }
        let release = &mut record.releases[index];
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
                match self.sign(wanted, record, index, &builds, now)? {
                    Signed::Decided => self.jobs.forget(&wanted.deployment),
                    Signed::Not(message) => {
                        let error = BuilderError::Registry(message);
                        let reason = failure_reason(&error);
                        record.releases[index].enter(Phase::Compiling, reason, error.to_string(), now);
                        self.jobs.set_back(wanted, error, now);
                    }
                }
                Ok(())
            }
        }
    }

    /// A target that appeared while the release lives: one more statement, not one more release. *Client.*
    pub(super) fn extend(
        &self,
        wanted: &Arc<Wanted>,
        record: &mut Record,
        index: usize,
        targets: &[Target],
        now: UnixMillis,
    ) -> Result<(), StateError> {
        let release = &record.releases[index];
        let missing: Vec<Target> = targets.iter().filter(|t| !release.targets.contains_key(&t.name)).cloned().collect();
        // A wrong clock signs nothing, not for a release that lives either.
        if missing.is_empty() || clock_is_behind(record, now) {
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
                for (name, built) in &builds {
                    record.releases[index].targets.insert(name.clone(), target_build(built));
                }
                match self.publish(wanted, &mut record.releases[index], &builds) {
                    Ok(()) => self.jobs.forget(&wanted.deployment),
                    Err(message) => {
                        builds.keys().for_each(|name| drop(record.releases[index].targets.remove(name)));
                        self.jobs.set_back(wanted, BuilderError::Registry(message), now);
                    }
                }
                self.save(record)
            }
        }
    }
}

/// Whether the clock is wrong for certain: time does not run backwards.
fn clock_is_behind(record: &Record, now: UnixMillis) -> bool {
    record.last_counter.is_some_and(|c| c.0 > now.0.saturating_add(CLOCK_BEHIND))
}

pub(super) fn target_build(built: &Built) -> TargetBuild {
    let verdict = &built.verdict;
    let contract: Option<ballast_bundle::Contract> =
        built.artifacts.as_ref().and_then(|a| serde_json::from_slice(&a.contract).ok());
    TargetBuild {
        verdict: format!("{:?}", verdict.reason),
        message: bounded(&verdict.message, MAX_MESSAGE_BYTES),
        variant: built.artifacts.as_ref().map(|_| built.variant.clone()),
        size_bytes: verdict.size_bytes,
        peak_memory_bytes: verdict.peak_memory_bytes,
        gflop: verdict.gflop,
        predicted_latency_millis: Some(verdict.predicted_latency_millis),
        shapes: verdict
            .shapes
            .iter()
            .map(|shape| bounded(&shape.to_string(), MAX_SHAPE_BYTES))
            .take(ballast_bundle::buckets::MAX_BUCKETS)
            .collect(),
        golden: contract.map(|c| match c.verification.user_golden {
            true => GoldenOrigin::User,
            false => GoldenOrigin::Generated,
        }),
        serving_memory_bytes: verdict.memory.map_or(0, |m| m.serving_bytes),
        deadline_millis: verdict.deadline_millis,
        accuracy: verdict.accuracy.as_ref().map(|a| bounded(&a.to_string(), MAX_MESSAGE_BYTES)),
        inputs: verdict.inputs_yaml.as_ref().map(|yaml| bounded(yaml, MAX_MESSAGE_BYTES)),
        unsupported_operators: verdict
            .unsupported
            .iter()
            .map(|u| bounded(&format!("{} ({})", u.operator, u.node), MAX_OPERATOR_BYTES))
            .take(MAX_OPERATORS)
            .collect(),
        release: None,
    }
}

fn failure_reason(error: &BuilderError) -> Reason {
    use crate::fetch::FetchError;
    match error {
        BuilderError::Fetch(FetchError::DigestMismatch { .. }) => Reason::DigestMismatch,
        BuilderError::Fetch(FetchError::Unavailable { .. }) => Reason::SourceUnavailable,
        BuilderError::Fetch(FetchError::Uri { .. } | FetchError::TooLarge { .. }) => Reason::InvalidSpec,
        BuilderError::Build(BuildError::Crashed(_)) => Reason::CompilerCrashed,
        BuilderError::Build(BuildError::Failed(_) | BuildError::State(_)) => Reason::CompilerUnavailable,
        BuilderError::Registry(_) => Reason::BundleUnavailable,
    }
}

fn retried(error: &BuilderError) -> bool {
    match error {
        BuilderError::Fetch(e) => e.is_transient(),
        BuilderError::Build(BuildError::Crashed(_)) => false,
        BuilderError::Build(BuildError::Failed(_) | BuildError::State(_)) | BuilderError::Registry(_) => true,
    }
}
