//! What compiles beside the passes: started, polled, and judged when it is done. No client, but where a target joins a
//! release that lives: its bundle is published at once.

use std::sync::Arc;

use ballast_bundle::UnixMillis;
use ballast_crds::GoldenOrigin;
use ballast_crds::conditions::Reason;

use crate::builder::{BuilderError, Built};
use crate::controller::Controller;
use crate::jobs::JobState;
use crate::records::{Phase, Record, TargetBuild};
use crate::roster::Member;
use crate::state::StateError;
use crate::targets::Target;
use crate::wanted::Wanted;
use crate::workers::BuildError;

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
}

pub(super) fn target_build(built: &Built) -> TargetBuild {
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
