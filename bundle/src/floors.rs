//! Below which numbers a gateway never goes again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Counter, DeploymentRef, ReleaseNumber, TargetName};

/// What a gateway never goes below. Sequence: raised when a pointer is verified and durable. Releases: raised only at
/// Active (raising it earlier locked others out: tough CVE-2025-2888, go-tuf CVE-2022-29173).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Floors {
    /// Of pointers, within [`Floors::epoch`].
    pub sequence: Counter,
    /// Epoch of the last accepted pointer; a higher one starts sequences anew, as it does counters.
    #[serde(default)]
    pub epoch: u32,
    /// Of each deployment's releases; a list, since JSON keys are strings.
    #[serde(with = "release_floors")]
    pub releases: BTreeMap<DeploymentRef, ReleaseNumber>,
    /// Of each target's runners. Runners are numbered per target, when the target is first needed: the number of one
    /// says nothing of another's, and a gateway whose target changes begins at that target's own floor.
    #[serde(default)]
    pub runners: BTreeMap<TargetName, ReleaseNumber>,
}

impl Floors {
    /// Whether a pointer of this epoch and sequence may come after those that were accepted.
    pub fn allows_pointer(&self, epoch: u32, sequence: Counter) -> bool {
        (epoch, sequence) >= (self.epoch, self.sequence)
    }

    /// At Active, not earlier. Never lowers.
    pub fn raise_release(&mut self, deployment: &DeploymentRef, number: ReleaseNumber) {
        let floor = self.releases.entry(deployment.clone()).or_default();
        *floor = (*floor).max(number);
    }

    /// When a runner of this target has taken over. Never lowers.
    pub fn raise_runner(&mut self, target: &TargetName, number: ReleaseNumber) {
        let floor = self.runners.entry(target.clone()).or_default();
        *floor = (*floor).max(number);
    }

    /// Below which a runner of this target is a replay.
    pub fn runner(&self, target: &TargetName) -> ReleaseNumber {
        self.runners.get(target).copied().unwrap_or_default()
    }
}

mod release_floors {
    use super::{BTreeMap, DeploymentRef, Deserialize, ReleaseNumber, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Floor {
        deployment: DeploymentRef,
        number: ReleaseNumber,
    }

    pub(super) fn serialize<S: serde::Serializer>(
        floors: &BTreeMap<DeploymentRef, ReleaseNumber>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(
            floors.iter().map(|(deployment, number)| Floor { deployment: deployment.clone(), number: *number }),
        )
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<DeploymentRef, ReleaseNumber>, D::Error> {
        Ok(Vec::<Floor>::deserialize(d)?.into_iter().map(|f| (f.deployment, f.number)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_never_fall_and_survive_json() {
        let deployment = DeploymentRef { namespace: "ns".parse().unwrap(), name: "digits".into() };
        let number = |epoch, counter| ReleaseNumber { epoch, counter: Counter(counter) };
        let mut floors = Floors::default();
        floors.raise_release(&deployment, number(1, 9));
        floors.raise_release(&deployment, number(1, 5));
        assert_eq!(floors.releases[&deployment], number(1, 9));
        floors.raise_release(&deployment, number(2, 1));
        let target: TargetName = "x86-64-v3".parse().unwrap();
        floors.raise_runner(&target, number(1, 3));
        floors.raise_runner(&target, number(1, 2));
        let json = serde_json::to_string(&floors).unwrap();
        assert_eq!(serde_json::from_str::<Floors>(&json).unwrap(), floors);
        assert_eq!((floors.releases[&deployment], floors.runner(&target)), (number(2, 1), number(1, 3)));
        assert_eq!(floors.runner(&"x86-64".parse().unwrap()), ReleaseNumber::default());
    }

    #[test]
    fn a_higher_epoch_starts_sequences_anew() {
        let floors = Floors { sequence: Counter(u64::MAX), epoch: 1, ..Floors::default() };
        assert!(!floors.allows_pointer(1, Counter(7)));
        assert!(floors.allows_pointer(1, Counter(u64::MAX)));
        assert!(floors.allows_pointer(2, Counter(7)));
        assert!(!Floors { epoch: 2, ..floors }.allows_pointer(1, Counter(u64::MAX)));
    }
}
