//! What the store keeps.

use ballast_bundle::protocol::{Facts, ReleaseReport, ReleaseState};
use ballast_bundle::{
    Blob, Counter, DeploymentRef, Digest, GatewayId, NamespaceUid, ReleaseNumber, TargetName, UnixMillis,
};
use serde::{Deserialize, Serialize};

use crate::labels::Labels;

/// Whether a gateway belongs to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GatewayState {
    /// It does.
    #[default]
    Enrolled,
    /// Taken out of service; may not connect.
    Retired,
    /// Its key is not trusted any more.
    Revoked,
}

/// The pointer in force for a gateway, as it was signed. Signing is deterministic, so the signature is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuedPointer {
    /// What it names.
    pub assignment: Blob,
    /// Epoch of the root it was signed under.
    pub epoch: u32,
    /// Its sequence.
    pub sequence: Counter,
    /// Start.
    pub issued: UnixMillis,
    /// End.
    pub expires: UnixMillis,
}

/// One gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRow {
    /// Chosen by the operator at enrolment.
    pub id: GatewayId,
    /// The token's.
    pub namespace: NamespaceUid,
    /// Name of the token it enrolled with; empty when the row was made again from a certificate.
    #[serde(default)]
    pub token: String,
    /// For people.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Given by the token, or by an administrator's Gateway object.
    pub labels: Labels,
    /// SubjectPublicKeyInfo digests that may speak for it: the one in use, then one just issued by a renewal.
    pub keys: Vec<Digest>,
    /// Whether it belongs to the fleet.
    pub state: GatewayState,
    /// Newest facts.
    pub facts: Facts,
    /// Digest of the facts as the gateway computes it; `None` asks for them.
    #[serde(default)]
    pub facts_digest: Option<Digest>,
    /// When it enrolled.
    pub enrolled: UnixMillis,
    /// Its last sync.
    #[serde(default)]
    pub last_seen: Option<UnixMillis>,
    /// End of its certificate.
    #[serde(default)]
    pub certificate_expires: Option<UnixMillis>,
    /// The HardwareTarget it matched at its last sync.
    #[serde(default)]
    pub target: Option<TargetName>,
    /// The assignment in force there, by its own word.
    #[serde(default)]
    pub assignment: Option<Digest>,
    /// Newest root there, by its own word.
    #[serde(default)]
    pub root_version: u64,
    /// The pointer in force.
    #[serde(default)]
    pub pointer: Option<IssuedPointer>,
    /// Of the row's last change; 0 before it is stored.
    pub revision: u64,
}

/// A release of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseKey {
    /// Whose.
    pub deployment: DeploymentRef,
    /// Which.
    pub number: ReleaseNumber,
}

/// A gateway's one vote on a release; later words change only what is shown, never the vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vote {
    /// It reached Active.
    Passed,
    /// It was rolled back for a reason that counts.
    Failed,
}

/// The newest report of a gateway on a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredReport {
    /// As it came, bounded.
    pub report: ReleaseReport,
    /// When the first report on this release came.
    pub first: UnixMillis,
    /// Since when it is in its state.
    pub since: UnixMillis,
    /// When the newest report came.
    pub received: UnixMillis,
    /// Cast once.
    #[serde(default)]
    pub vote: Option<Vote>,
    /// When the vote was cast.
    #[serde(default)]
    pub voted: Option<UnixMillis>,
}

impl StoredReport {
    /// Takes in a newer report of the same release.
    pub fn update(previous: Option<Self>, report: ReleaseReport, now: UnixMillis) -> Self {
        let vote = match report.state {
            ReleaseState::Active => Some(Vote::Passed),
            ReleaseState::RolledBack if report.reason.is_none_or(|r| r.is_failure()) => Some(Vote::Failed),
            _ => None,
        };
        let Some(previous) = previous else {
            let voted = vote.map(|_| now);
            return Self { report, first: now, since: now, received: now, vote, voted };
        };
        let since = if previous.report.state == report.state { previous.since } else { now };
        let (vote, voted) = match previous.vote {
            Some(cast) => (Some(cast), previous.voted),
            None => (vote, vote.map(|_| now)),
        };
        Self { report, first: previous.first, since, received: now, vote, voted }
    }
}

/// Counts of one release over enrolled gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Reported at all.
    pub reported: u64,
    /// Fetching.
    pub fetching: u64,
    /// Verified, Probing or Trial.
    pub trying: u64,
    /// Active now.
    pub active: u64,
    /// Rolled back now.
    pub rolled_back: u64,
    /// Deferred now.
    pub deferred: u64,
    /// Votes.
    pub passed: u64,
    /// Votes.
    pub failed: u64,
}

impl Tally {
    /// Adds (`sign` 1) or takes away (−1) one gateway's report.
    pub fn count(&mut self, report: &StoredReport, sign: i64) {
        let add = |n: &mut u64| *n = n.saturating_add_signed(sign);
        add(&mut self.reported);
        match report.report.state {
            ReleaseState::Fetching => add(&mut self.fetching),
            ReleaseState::Verified | ReleaseState::Probing | ReleaseState::Trial => add(&mut self.trying),
            ReleaseState::Active => add(&mut self.active),
            ReleaseState::RolledBack => add(&mut self.rolled_back),
            ReleaseState::Deferred => add(&mut self.deferred),
        }
        match report.vote {
            Some(Vote::Passed) => add(&mut self.passed),
            Some(Vote::Failed) => add(&mut self.failed),
            None => {}
        }
    }
}
