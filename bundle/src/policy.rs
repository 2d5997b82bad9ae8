//! The escalation policy: below which confidence answers of one release are sent on. A small document of its own, so that
//! thresholds follow what the fleet learns without a new release.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::envelope::{sign_envelope, to_json};
use crate::{Confidence, Counter, DeploymentRef, Envelope, FleetId, ReleaseNumber, SigningKey, Threshold, UnixMillis};

/// Payload type of an escalation policy.
pub const POLICY_TYPE: &str = "application/vnd.ballast.escalation-policy.v1+json";

/// A threshold for every class.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClassThresholds {
    /// Of classes that stand alone, by their index in the output.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<u32, Threshold>,
    /// Of all others.
    pub others: Threshold,
}

impl ClassThresholds {
    /// One for all.
    pub const fn same(threshold: Threshold) -> Self {
        Self { classes: BTreeMap::new(), others: threshold }
    }

    /// Of one class.
    pub fn of(&self, class: u32) -> Threshold {
        self.classes.get(&class).copied().unwrap_or(self.others)
    }

    /// Whether an answer of `class`, as sure as `confidence`, is sent on.
    pub fn sends(&self, class: u32, confidence: Confidence) -> bool {
        self.of(class).sends(confidence)
    }
}

/// Payload of the policy's envelope, signed by the assignment role. It says when to ask, never whom: where an answer may be
/// asked for and what may leave stands in the release, which another key signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EscalationPolicy {
    /// 1.
    pub format: u32,
    /// The installation.
    pub fleet: FleetId,
    /// Whose model it is about.
    pub deployment: DeploymentRef,
    /// The one release whose confidences it was made from; another one is as sure as it likes.
    pub release: ReleaseNumber,
    /// Epoch of the trust root it was signed under.
    pub epoch: u32,
    /// Never goes back for one deployment: `max(last + 1, Unix ms)`. Old thresholds come again under a new one.
    pub sequence: Counter,
    /// When it was made.
    pub issued: UnixMillis,
    /// After this the release's own thresholds are in force again: what was learnt so long ago promises nothing.
    pub expires: UnixMillis,
    /// The thresholds.
    pub thresholds: ClassThresholds,
}

/// The newest policy of one deployment that a gateway has accepted; kept with it, durably, before the policy acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyFloor {
    /// A higher one starts sequences anew.
    pub epoch: u32,
    /// Within the epoch.
    pub sequence: Counter,
}

impl EscalationPolicy {
    /// Where the floor stands once this is accepted.
    pub const fn floor(&self) -> PolicyFloor {
        PolicyFloor { epoch: self.epoch, sequence: self.sequence }
    }

    /// What is in force for `release` at `now`: this, or, when it has expired or is another release's, the release's `own`.
    /// After a rollback, too: the release that is back is not the one that this was learnt from.
    pub fn in_force<'a>(
        &'a self,
        release: ReleaseNumber,
        own: &'a ClassThresholds,
        now: UnixMillis,
    ) -> &'a ClassThresholds {
        if self.release == release && now < self.expires { &self.thresholds } else { own }
    }
}

/// Signs a policy with the assignment role's key.
pub fn sign_policy(policy: &EscalationPolicy, key: &SigningKey) -> Envelope {
    sign_envelope(POLICY_TYPE, &to_json(policy), &[key])
}
