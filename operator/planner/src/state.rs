//! What is remembered of a rollout, and the window that it keeps.

use ballast_bundle::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::watch::Watch;
use crate::{Counts, HaltCause, Policy, Threshold};

/// Below this many eligible gateways there are no statistics: one by one, and the first failure halts. It is the number
/// of clean votes after which Wald's test would accept 1 % against 10 % (`ln(β ÷ (1 − α)) ÷ ln(0.9 ÷ 0.99)`).
pub const SMALL_FLEET: u64 = 32;

/// While the release has not proved itself, no more gateways than this try it at once: a release that fails everywhere
/// reaches a handful, one that fails on a tenth about 40 instead of its whole group (`cargo xtask bench planner`).
pub const UNPROVED_WINDOW: u64 = 8;

/// What is remembered of a rollout between two looks. Keep it with the release, durably.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutState {
    /// Index into the policy's steps.
    pub step: usize,
    /// Scores below it are members; only grows.
    pub threshold: Threshold,
    /// How many may try the release at once.
    pub window: u64,
    /// Passes and failures since the window last changed or was filled.
    pub(crate) clean: u64,
    pub(crate) spoiled: u64,
    /// Counted at the last look.
    pub(crate) passed: u64,
    pub(crate) failures: u64,
    /// Votes before this rollout was resumed by a person: forgiven, and no proof either.
    pub(crate) forgiven: (u64, u64),
    /// Its group has voted for it.
    pub(crate) proved: bool,
    /// Since when the step is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) soaking: Option<UnixMillis>,
    /// It was found bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) halted: Option<HaltCause>,
    /// It passed its last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) watch: Option<Watch>,
}

impl Default for RolloutState {
    fn default() -> Self {
        Self {
            step: 0,
            threshold: Threshold::default(),
            window: 1,
            clean: 0,
            spoiled: 0,
            passed: 0,
            failures: 0,
            forgiven: (0, 0),
            proved: false,
            soaking: None,
            halted: None,
            watch: None,
        }
    }
}

impl RolloutState {
    /// Whether it passed its last step once: then it is what `stable` means, until it is found bad.
    pub const fn is_complete(&self) -> bool {
        self.watch.is_some()
    }

    /// Whether it was found bad.
    pub const fn halted(&self) -> Option<HaltCause> {
        self.halted
    }

    /// Whether its group has voted for it: the window is no longer capped.
    pub const fn is_proved(&self) -> bool {
        self.proved
    }

    /// A person says to go on after a halt (`onFailure: Pause`): what happened so far is forgiven, relapses included, the
    /// window starts at one again, and the step is not passed until new votes say so.
    pub fn resumed(mut self, counts: &Counts, now: UnixMillis) -> Self {
        if self.halted.take().is_some() {
            self.forgiven = votes(counts);
            (self.passed, self.failures) = (0, 0);
            (self.window, self.clean, self.spoiled, self.soaking, self.proved) = (1, 0, 0, None, false);
            self.watch = self.watch.map(|_| Watch::start(counts, now));
        }
        self
    }

    /// Passes and failures that were not forgiven.
    pub(crate) fn fresh(&self, counts: &Counts) -> (u64, u64) {
        let (passed, failures) = votes(counts);
        (passed.saturating_sub(self.forgiven.0), failures.saturating_sub(self.forgiven.1))
    }

    /// The window: 1, doubled whenever as many gateways as it holds have voted and speak for the release, halved as soon
    /// as too many of them speak against it. Below 26 gateways, at 1 and 10 %, that is the first failure.
    pub(crate) fn open_window(&mut self, counts: &Counts, policy: &Policy) {
        let (passed, failures) = self.fresh(counts);
        self.clean += passed.saturating_sub(self.passed);
        self.spoiled += failures.saturating_sub(self.failures);
        (self.passed, self.failures) = (passed, failures);
        let limit = match counts.eligible {
            ..SMALL_FLEET => 1,
            _ if self.proved => u64::MAX,
            _ => UNPROVED_WINDOW,
        };
        if self.spoiled > policy.test.tolerated(self.window) {
            (self.window, self.clean, self.spoiled) = ((self.window / 2).max(1), 0, 0);
        }
        while self.clean + self.spoiled >= self.window {
            (self.clean, self.spoiled) = (self.clean + self.spoiled - self.window, 0);
            if self.window >= limit {
                break;
            }
            self.window = self.window.saturating_mul(2);
        }
        self.window = self.window.min(limit);
    }

    /// How many more may be given the release: places in the window, and in the group while it has not proved itself.
    pub(crate) fn places(&self, counts: &Counts, policy: &Policy) -> u64 {
        let tried = counts.given().saturating_sub(self.forgiven.0 + self.forgiven.1);
        let group = if self.proved { u64::MAX } else { policy.test.group().saturating_sub(tried) };
        self.window.saturating_sub(counts.in_flight).min(group)
    }
}

/// A gateway that went back after its vote counts as a failure at once.
fn votes(counts: &Counts) -> (u64, u64) {
    (counts.passed.saturating_sub(counts.relapsed), counts.failures() + counts.relapsed)
}
