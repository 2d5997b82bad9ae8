//! The user's rollout, parsed.

use ballast_crds::{OnFailure, QuantityError, Rollout, StepSize};

use crate::SequentialTest;

/// `spec.rollout`, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Cumulative; the last is everybody.
    pub steps: Vec<StepSize>,
    /// How long a step is watched after it passed.
    pub soak_millis: u64,
    /// After so much silence a gateway that fetched the release has failed.
    pub silence_millis: u64,
    /// Tells good from bad.
    pub test: SequentialTest,
    /// What a failed release leads to.
    pub on_failure: OnFailure,
    /// A person's wish.
    pub paused: bool,
}

/// Why a rollout cannot be read. The schema refuses such objects before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A quantity.
    #[error("rollout.{field}: {source}")]
    Quantity {
        /// Below `spec.rollout`.
        field: &'static str,
        /// What is wrong with it. In the sentence, so no `source()` besides.
        r#source: QuantityError,
    },
    /// No step.
    #[error("rollout.steps is empty; write at least gateways: \"100%\"")]
    NoSteps,
}

impl Policy {
    /// A gateway syncs this many times before silence can mean anything.
    const SYNCS_BEFORE_SILENCE: u64 = 3;

    /// Parses `rollout`; `sync_wait_millis` is how long a gateway waits between two syncs when nothing is going on.
    pub fn new(rollout: &Rollout, sync_wait_millis: u64) -> Result<Self, PolicyError> {
        let at = |field| move |source| PolicyError::Quantity { field, source };
        let silence = rollout.silence_deadline.millis().map_err(at("silenceDeadline"))?;
        let steps: Vec<_> = rollout.steps.iter().map(|step| step.gateways.clone()).collect();
        if steps.is_empty() {
            return Err(PolicyError::NoSteps);
        }
        Ok(Self {
            steps,
            soak_millis: rollout.soak.millis().map_err(at("soak"))?,
            silence_millis: silence.max(sync_wait_millis.saturating_mul(Self::SYNCS_BEFORE_SILENCE)),
            test: SequentialTest::new(rollout.failure_rate.good, rollout.failure_rate.bad),
            on_failure: rollout.on_failure,
            paused: rollout.paused,
        })
    }

    /// Gateways of a step out of `eligible`; the last step is everybody whatever it says.
    pub fn step_size(&self, step: usize, eligible: u64) -> u64 {
        match self.steps.get(step) {
            Some(size) if step + 1 < self.steps.len() => size.of(eligible),
            _ => eligible,
        }
    }

    /// How many steps there are.
    pub fn last_step(&self) -> usize {
        self.steps.len().saturating_sub(1)
    }
}
