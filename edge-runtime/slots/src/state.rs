//! What a gateway knows, durably, of one deployment (`slots/NAME.json`).

use ballast_bundle::protocol::{FailureReason, ReleaseState};
use ballast_bundle::{DeploymentRef, Digest, ReleaseNumber, ReleaseRef, TrialPolicy, UnixMillis};
use serde::{Deserialize, Serialize};

/// Version of the file's format; the next minor version reads it.
pub const FORMAT: u32 = 1;
/// Rejected releases that are remembered one by one; older ones are remembered as "all up to".
const MAX_REJECTED: usize = 32;

/// Which release: its number and its manifest. The same number with another manifest is another release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseId {
    /// Epoch and counter.
    pub number: ReleaseNumber,
    /// Of the bundle's manifest.
    pub manifest: Digest,
}

impl From<&ReleaseRef> for ReleaseId {
    fn from(release: &ReleaseRef) -> Self {
        Self { number: release.number, manifest: release.manifest.digest }
    }
}

/// What the assignment in force says of the deployment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wish {
    /// What to run; `None` = keep what runs.
    pub want: Option<ReleaseRef>,
    /// The last release that finished its steps; `want` itself once that did. `None` while none has.
    pub stable: Option<ReleaseRef>,
    /// For a release that is not yet Active here.
    pub trial: TrialPolicy,
}

/// How far a candidate has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Its bytes are on their way.
    Fetching,
    /// Its bytes already serve under a lower number; only its statement is on its way.
    Relabelling,
    /// Every byte is here and verified; waits to be admitted.
    Verified,
    /// Replays its golden vectors.
    Probing,
    /// Serves, with what served before loaded beside it.
    Trial,
}

/// A release on its way to Active.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Candidate {
    /// Which one.
    pub release: ReleaseRef,
    /// How far.
    pub phase: Phase,
    /// When Trial ends well.
    pub trial: TrialPolicy,
    /// When it entered its phase, or the process last started in it.
    pub since: UnixMillis,
    /// Times that it was begun with, by its arrow or by a start of the process, since it last lasted for
    /// [`BOOT_WINDOW_MILLIS`](crate::BOOT_WINDOW_MILLIS). Counted without a clock: a machine may have none that survives.
    pub boots: u32,
    /// Answered well in this phase.
    pub requests: u64,
    /// Failed in this phase.
    pub failures: u64,
    /// Why it cannot be tried now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deferred: Option<(FailureReason, String)>,
}

/// A release that became Active here once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Held {
    /// Which one.
    pub release: ReleaseRef,
    /// Under which it was tried; while a fallback is kept, more failures than it allows still roll back.
    pub trial: TrialPolicy,
    /// When it became Active, or the process last started with it.
    pub since: UnixMillis,
    /// As [`Candidate::boots`].
    pub boots: u32,
    /// Answered well since it became Active or the process started.
    pub requests: u64,
    /// Failed since then.
    pub failures: u64,
    /// An assignment once called it stable: it finished its steps in the fleet. Only such a release is kept as fallback.
    pub finished: bool,
}

/// A release that is never tried again under this number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rejected {
    /// Which one.
    pub id: ReleaseId,
    /// For people.
    pub version: String,
    /// Why.
    pub reason: FailureReason,
    /// One sentence for people.
    pub message: String,
    /// When.
    pub at: UnixMillis,
    /// Answered well in its last slot.
    pub requests: u64,
    /// Failed in its last slot.
    pub failures: u64,
}

/// Everything durable about one deployment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose releases.
    pub deployment: DeploymentRef,
    /// The name they are served under.
    pub model: String,
    /// Nothing below it is installed. Raised only when a release becomes Active.
    pub floor: ReleaseNumber,
    /// Serves, unless a candidate is on trial: then it answers what fails there.
    pub active: Option<Held>,
    /// On its way.
    pub candidate: Option<Candidate>,
    /// Kept beside an active release that has not yet finished its steps in the fleet.
    pub fallback: Option<Held>,
    /// Newest last.
    pub rejected: Vec<Rejected>,
    /// Set when `rejected` overflowed: everything up to it is refused.
    pub rejected_up_to: Option<ReleaseNumber>,
    /// The last assignment's word, so that a gateway without a network goes on after a power cut.
    pub wish: Option<Wish>,
}

/// What answers requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving<'a> {
    /// Takes every request.
    pub primary: &'a ReleaseRef,
    /// Whether `primary` is a candidate on trial.
    pub on_trial: bool,
    /// Answers what fails on `primary`.
    pub backup: Option<&'a ReleaseRef>,
}

/// Whether a release may be brought here, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Willing {
    /// It is active already.
    Active,
    /// It is kept as fallback: switching back needs nothing.
    Fallback,
    /// Its bytes are active under a lower number.
    Relabel,
    /// It has to be fetched, probed and tried.
    Install,
    /// It was rejected here before.
    Rejected,
    /// A newer one was active here.
    BelowFloor,
}

impl State {
    /// A deployment that this gateway has never heard of.
    pub fn new(deployment: DeploymentRef, model: String) -> Self {
        Self {
            format: FORMAT,
            deployment,
            model,
            floor: ReleaseNumber::default(),
            active: None,
            candidate: None,
            fallback: None,
            rejected: Vec::new(),
            rejected_up_to: None,
            wish: None,
        }
    }

    /// What answers requests now.
    pub fn serving(&self) -> Option<Serving<'_>> {
        let active = self.active.as_ref().map(|h| &h.release);
        match &self.candidate {
            Some(c) if c.phase == Phase::Trial => Some(Serving { primary: &c.release, on_trial: true, backup: active }),
            Some(_) | None => {
                let backup = self.fallback.as_ref().map(|h| &h.release);
                active.map(|primary| Serving { primary, on_trial: false, backup })
            }
        }
    }

    /// Every release whose blobs must stay: active, fallback, candidate.
    pub fn releases(&self) -> impl Iterator<Item = &ReleaseRef> {
        let held = self.active.iter().chain(&self.fallback).map(|h| &h.release);
        held.chain(self.candidate.iter().map(|c| &c.release))
    }

    /// Whether `release` may be brought here, and how.
    pub fn willing(&self, release: &ReleaseRef) -> Willing {
        let id = ReleaseId::from(release);
        let is = |held: &Option<Held>| held.as_ref().is_some_and(|h| ReleaseId::from(&h.release) == id);
        if is(&self.active) {
            Willing::Active
        } else if self.rejected.iter().any(|r| r.id == id) {
            Willing::Rejected
        } else if is(&self.fallback) {
            // Never rejected, whatever "all up to" says.
            Willing::Fallback
        } else if self.rejected_up_to.is_some_and(|n| id.number <= n) {
            Willing::Rejected
        } else if id.number < self.floor {
            Willing::BelowFloor
        } else if self
            .active
            .as_ref()
            .is_some_and(|h| h.release.manifest == release.manifest && h.release.number < release.number)
        {
            Willing::Relabel
        } else {
            Willing::Install
        }
    }

    /// The protocol's word for where a release is; `None` when it is in no slot.
    pub fn reported(&self, id: &ReleaseId) -> Option<ReleaseState> {
        if let Some(candidate) = self.candidate.as_ref().filter(|c| ReleaseId::from(&c.release) == *id) {
            return Some(match (candidate.deferred.is_some(), candidate.phase) {
                (true, _) => ReleaseState::Deferred,
                (false, Phase::Fetching | Phase::Relabelling) => ReleaseState::Fetching,
                (false, Phase::Verified) => ReleaseState::Verified,
                (false, Phase::Probing) => ReleaseState::Probing,
                (false, Phase::Trial) => ReleaseState::Trial,
            });
        }
        let held = self.active.iter().chain(&self.fallback).any(|h| ReleaseId::from(&h.release) == *id);
        if held {
            return Some(ReleaseState::Active);
        }
        self.rejected.iter().any(|r| r.id == *id).then_some(ReleaseState::RolledBack)
    }

    /// Whether a candidate is being probed or tried: the gateway's one place for that is taken.
    pub fn is_trying(&self) -> bool {
        self.candidate.as_ref().is_some_and(|c| match c.phase {
            Phase::Probing | Phase::Trial => true,
            Phase::Fetching | Phase::Relabelling | Phase::Verified => false,
        })
    }

    pub(crate) fn remember_rejected(&mut self, rejected: Rejected) {
        self.rejected.push(rejected);
        // What the floor refuses anyway needs no memory of its own; the newest are kept for reports.
        while self.rejected.len() > MAX_REJECTED {
            let dropped = self.rejected.remove(0).id.number;
            if dropped >= self.floor {
                self.rejected_up_to = self.rejected_up_to.max(Some(dropped));
            }
        }
    }
}

/// Whether a gateway with these deployments may start to probe and try a release of one of them.
pub fn trial_is_open<'a>(states: impl IntoIterator<Item = &'a State>) -> bool {
    !states.into_iter().any(State::is_trying)
}
