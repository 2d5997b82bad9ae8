//! From builds to a signed release in the registry, or to a refusal. *Client*: state directory and registry.

use ballast_bundle::{Contract, Counter, ReleaseNumber, UnixMillis};
use ballast_compiler::VerdictReason;
use ballast_crds::conditions::Reason;

use super::build::{CLOCK_BEHIND, MAX_MESSAGE_BYTES, target_build};
use crate::builder::Builds;
use crate::controller::Controller;
use crate::events::bounded;
use crate::records::{Phase, Record, Release};
use crate::rollout::RolloutState;
use crate::state::StateError;
use crate::wanted::Wanted;

/// What became of a build.
pub(super) enum Signed {
    /// The release is signed, or refused.
    Decided,
    /// Neither, for a reason that may pass.
    Not(String),
}

impl Controller {
    /// Refuses, or gives the release its counter and signs it. *Client.*
    pub(super) fn sign(
        &self,
        wanted: &Wanted,
        record: &mut Record,
        index: usize,
        builds: &Builds,
        now: UnixMillis,
    ) -> Result<Signed, StateError> {
        let release = &mut record.releases[index];
        for (name, built) in builds {
            release.targets.insert(name.clone(), target_build(built));
        }
        if let Some((reason, message)) = refusal(builds) {
            release.enter(Phase::Refused, reason, message, now);
            tracing::warn!(deployment = %wanted.deployment, version = wanted.version, %reason, "release refused; nothing was signed");
            return Ok(Signed::Decided);
        }
        match self.contract_change(wanted, record, builds) {
            Ok(None) => {}
            Ok(Some(message)) => {
                record.releases[index].enter(Phase::Refused, Reason::ContractChanged, message, now);
                return Ok(Signed::Decided);
            }
            Err(message) => return Ok(Signed::Not(message)),
        }
        // Of a time that this machine forgot, unless it is no time at all: whoever may write the object may write that.
        let kept = self.source.counter(&wanted.deployment).filter(|c| c.0 <= now.0.saturating_add(CLOCK_BEHIND));
        // A higher one was given out since this one, under which nothing is signed yet: it takes another one.
        record.releases[index].number.take_if(|number| kept.is_some_and(|kept| kept > number.counter));
        if record.releases[index].number.is_none() {
            let counter = Counter::next(record.last_counter.max(kept), now.0);
            record.last_counter = Some(counter);
            record.releases[index].number = Some(ReleaseNumber { epoch: self.epoch, counter });
        }
        // Durable before anything is signed, here and with the object: a number is never given out twice, whenever this
        // process dies, and by nobody else either.
        self.save(record)?;
        if let Some(number) = record.releases[index].number
            && let Err(message) = self.source.reserve(&wanted.deployment, number.counter)
        {
            return Ok(Signed::Not(message));
        }
        let published = self.publish(wanted, &mut record.releases[index], builds);
        let release = &mut record.releases[index];
        match published {
            Ok(()) => {
                release.rollout = RolloutState::default();
                release.enter(Phase::RollingOut, Reason::RollingOut, "", now);
                tracing::info!(deployment = %wanted.deployment, version = wanted.version, number = ?release.number, "release signed and published");
                self.save(record)?;
                Ok(Signed::Decided)
            }
            Err(message) => Ok(Signed::Not(message)),
        }
    }

    pub(super) fn publish(&self, wanted: &Wanted, release: &mut Release, builds: &Builds) -> Result<(), String> {
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

    /// What clients would notice, in one sentence. `Err`: nobody can tell.
    fn contract_change(&self, wanted: &Wanted, record: &Record, builds: &Builds) -> Result<Option<String>, String> {
        let Some(stable) = record.stable().filter(|_| !wanted.allow_contract_change) else { return Ok(None) };
        for (name, built) in builds {
            let Some(artifacts) = &built.artifacts else { continue };
            // A target that is new is held against any other: tensors are the model's, not the target's.
            let any = || stable.targets.values().find_map(|t| t.release.as_ref());
            let Some(reference) = stable.for_target(name).or_else(any) else { continue };
            let unreadable =
                |e: &dyn std::fmt::Display| format!("the inputs and outputs of {} cannot be read: {e}", stable.version);
            let old = self.contract_of(reference).map_err(|e| unreadable(&e))?;
            let new: Contract = serde_json::from_slice(&artifacts.contract).map_err(|e| e.to_string())?;
            // Who sends several rows, or one of several shapes, needs a release that takes them.
            let fewer = (old.batch.is_some() && new.batch != old.batch)
                || (old.buckets.is_some() && new.buckets != old.buckets);
            let carried = new.state_names() != old.state_names();
            if new.inputs != old.inputs || new.outputs != old.outputs || fewer || carried {
                return Ok(Some(format!(
                    "inputs or outputs differ from those of {} on {name}; clients would break: set model.allowContractChange if that is meant",
                    stable.version
                )));
            }
        }
        Ok(None)
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
    let message = format!("on {name}{more}: {}", bounded(&built.verdict.message, MAX_MESSAGE_BYTES));
    Some((reason_name(built.verdict.reason), message))
}

/// With a full stop, whether or not it has one.
fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
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
