//! Escalation policies, in the order of everything signed.

use super::{CLOCK_SKEW_MILLIS, Unverified, Verified, read, role};
use crate::policy::POLICY_TYPE;
use crate::{DeploymentRef, Envelope, EscalationPolicy, PolicyFloor, Role, TrustRoot, UnixMillis, VerifyError};

/// Largest escalation policy: room for ten thousand classes.
pub const MAX_POLICY_BYTES: usize = 256 << 10;
/// Longest life of an escalation policy, 90 days: a quarter's traffic may be another's.
pub const MAX_POLICY_LIFE_MILLIS: u64 = 90 * 24 * 60 * 60 * 1000;

impl Unverified<Envelope> {
    /// A policy for `deployment`, not older than the last one, not expired. Which of its releases it belongs to is asked
    /// where it acts ([`EscalationPolicy::in_force`]): it may come before its release does.
    ///
    /// Of the same sequence only the same document is acceptable; that is for the caller to compare, who keeps the last one.
    pub fn escalation_policy(
        &self,
        root: &Verified<TrustRoot>,
        deployment: &DeploymentRef,
        floor: PolicyFloor,
        now: UnixMillis,
    ) -> Result<Verified<EscalationPolicy>, VerifyError> {
        let payload = self.0.payload_signed_by(POLICY_TYPE, role(root, Role::Assignment)?)?;
        let policy: EscalationPolicy = read(
            &payload,
            MAX_POLICY_BYTES,
            "not an escalation policy, or one with unknown fields or wrong thresholds",
        )?;
        if policy.fleet != root.fleet {
            return Err(VerifyError::Fleet { mine: root.fleet.clone(), found: policy.fleet });
        }
        if policy.epoch != root.epoch {
            return Err(VerifyError::Epoch { root: root.epoch, found: policy.epoch });
        }
        if policy.floor() < floor {
            return Err(VerifyError::Sequence { floor: floor.sequence, found: policy.sequence });
        }
        if policy.expires.0.saturating_add(CLOCK_SKEW_MILLIS) <= now.0 {
            return Err(VerifyError::Expired { expires: policy.expires.0, now: now.0 });
        }
        if policy.issued > policy.expires {
            return Err(VerifyError::Malformed("the escalation policy expires before it was issued"));
        }
        if policy.expires.0.saturating_sub(policy.issued.0) > MAX_POLICY_LIFE_MILLIS {
            return Err(VerifyError::Malformed("the escalation policy lives for more than 90 days"));
        }
        if policy.deployment != *deployment {
            return Err(VerifyError::Mismatch("deployment"));
        }
        Ok(Verified(policy))
    }
}
