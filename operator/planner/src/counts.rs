//! What the planner sees of a fleet: counts.

use ballast_bundle::UnixMillis;
use ballast_bundle::protocol::ReleaseState;
use ballast_crds::GatewayCounts;
use serde::{Deserialize, Serialize};

use crate::{Score, Threshold};

/// A gateway's one vote on a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vote {
    /// It reached Active.
    Passed,
    /// It was rolled back for a reason that counts.
    Failed,
}

/// Counts for one release, over the enrolled gateways that the deployment selects.
///
/// Each eligible gateway is in exactly one of `passed`, `failed`, `lost`, `in_flight`, `held`, `waiting`, `outside` and
/// `away`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// By the selector.
    pub selected: u64,
    /// Of those, on a target that has a bundle.
    pub eligible: u64,
    /// Voted for it.
    pub passed: u64,
    /// Voted against it.
    pub failed: u64,
    /// Fetched it, did not vote, and has been silent for longer than the deadline: counts as failed.
    pub lost: u64,
    /// Was given it, has not voted yet, and is heard of (or fetched it and may still come back): takes a place in the
    /// window.
    pub in_flight: u64,
    /// Was given it and cannot try it now (memory, disk): unknown, takes no place.
    pub held: u64,
    /// Below the threshold, heard of, not given it yet.
    pub waiting: u64,
    /// Above the threshold, heard of, not given it.
    pub outside: u64,
    /// Not fetched it and silent for longer than the deadline: takes no place and is not waited for.
    pub away: u64,
    /// Serve it now.
    pub active: u64,
    /// Voted for it, and went back later.
    pub relapsed: u64,
    /// Eligible and silent for longer than the deadline, whatever else.
    pub silent: u64,
    /// Fetched it (reports it in any state but Fetching and Deferred).
    pub fetched: u64,
}

impl Counts {
    /// Gateways whose word is final.
    pub const fn resolved(&self) -> u64 {
        self.passed + self.failed + self.lost
    }

    /// Votes against, and silence that counts as one.
    pub const fn failures(&self) -> u64 {
        self.failed + self.lost
    }

    /// Gateways that were given the release and count for the step.
    pub const fn given(&self) -> u64 {
        self.resolved() + self.in_flight
    }

    /// As status shows them: every eligible gateway is in one of `pending`, `updated`, `failed`.
    pub fn shown(&self) -> GatewayCounts {
        let n = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let failed = self.failures() + self.relapsed;
        let updated = self.fetched.saturating_sub(failed);
        GatewayCounts {
            selected: n(self.selected),
            eligible: n(self.eligible),
            pending: n(self.eligible.saturating_sub(updated + failed)),
            updated: n(updated),
            healthy: n(self.active),
            failed: n(failed),
            silent: n(self.silent),
            ineligible: n(self.selected.saturating_sub(self.eligible)),
        }
    }
}

/// What is known of one selected gateway with respect to one release.
#[derive(Debug, Clone, Copy)]
pub struct GatewayView {
    /// Its place in the release's order.
    pub score: Score,
    /// Its target has a bundle.
    pub eligible: bool,
    /// A pointer that names the release was signed for it. A report on the release says so too.
    pub given: bool,
    /// Newest report on the release.
    pub state: Option<ReleaseState>,
    /// Its vote, cast once.
    pub vote: Option<Vote>,
    /// Its last sync; `None` = never since it enrolled.
    pub last_seen: Option<UnixMillis>,
}

/// Folds gateways into [`Counts`], for stores that keep no aggregates.
#[derive(Debug)]
pub struct Tally {
    counts: Counts,
    threshold: Threshold,
    silence_millis: u64,
    now: UnixMillis,
    /// The smallest scores above the threshold, sorted.
    next: Vec<Score>,
}

impl Tally {
    /// How many scores are kept for exact growth; more are estimated by their even spread.
    pub const EXACT: usize = 64;

    /// An empty one. `silence_millis` is [`crate::Policy::silence_millis`], `threshold` the rollout's.
    pub fn new(threshold: Threshold, silence_millis: u64, now: UnixMillis) -> Self {
        Self { counts: Counts::default(), threshold, silence_millis, now, next: Vec::with_capacity(Self::EXACT + 1) }
    }

    /// Counts one gateway.
    pub fn add(&mut self, gateway: &GatewayView) {
        let counts = &mut self.counts;
        counts.selected += 1;
        if !gateway.eligible {
            return;
        }
        counts.eligible += 1;
        let silent = gateway.last_seen.is_none_or(|seen| self.now.0.saturating_sub(seen.0) > self.silence_millis);
        let fetched = gateway.vote.is_some()
            || gateway.state.is_some_and(|s| !matches!(s, ReleaseState::Fetching | ReleaseState::Deferred));
        counts.silent += u64::from(silent);
        counts.fetched += u64::from(fetched);
        counts.active += u64::from(gateway.state == Some(ReleaseState::Active));
        match (gateway.vote, gateway.state) {
            (Some(Vote::Passed), state) => {
                counts.passed += 1;
                counts.relapsed += u64::from(state == Some(ReleaseState::RolledBack));
            }
            (Some(Vote::Failed), _) => counts.failed += 1,
            (None, _) if fetched && silent => counts.lost += 1,
            (None, _) if fetched => counts.in_flight += 1,
            (None, _) if silent => counts.away += 1,
            (None, Some(ReleaseState::Deferred)) => counts.held += 1,
            (None, state) if gateway.given || state.is_some() => counts.in_flight += 1,
            (None, _) if self.threshold.admits(gateway.score) => counts.waiting += 1,
            (None, _) => {
                counts.outside += 1;
                let at = self.next.partition_point(|score| *score < gateway.score);
                if at < Self::EXACT {
                    self.next.insert(at, gateway.score);
                    self.next.truncate(Self::EXACT);
                }
            }
        }
    }

    /// The counts, and the smallest scores outside, sorted: at most [`Self::EXACT`].
    pub fn finish(self) -> (Counts, Vec<Score>) {
        (self.counts, self.next)
    }
}
