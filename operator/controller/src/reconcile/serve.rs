//! What gateways are told of a deployment from now on. No client.

use ballast_bundle::DeploymentRef;

use crate::controller::Controller;
use crate::records::{Phase, Record, Release};
use crate::rollout::Admission;
use crate::serving::{Hurry, Offer, Serving};
use crate::wanted::Wanted;

/// Fleets under this size sync at rollout's pace as a whole: nobody waits for its turn to hear of a release.
const SMALL_FLEET: usize = 32;

impl Controller {
    /// What goes on when the object cannot be acted on: who has a release keeps it, nobody is given one.
    pub(crate) fn standing(&self, record: &Record) -> Option<Serving> {
        let served = record.served.as_ref()?;
        let update =
            record.releases.iter().find(|r| r.number.is_some() && r.number == served.update && !r.phase.is_over());
        Some(Serving {
            deployment: record.deployment.clone(),
            model: served.model.clone(),
            selector: served.selector.clone(),
            update: update.and_then(|r| self.admit(&record.deployment, r)),
            stable: record.stable().and_then(Offer::of),
            trial: served.trial.clone(),
            escalation: served.escalation.clone(),
            hurry: Hurry::Nobody,
            yields: true,
        })
    }

    fn admit(&self, deployment: &DeploymentRef, release: &Release) -> Option<(Offer, Admission)> {
        let ration = self.ration(deployment, release.number?);
        let admission = Admission { identity: release.identity, threshold: release.rollout.threshold, ration };
        Some((Offer::of(release)?, admission))
    }

    pub(super) fn serving(&self, wanted: &Wanted, record: &Record, current: Option<usize>, members: usize) -> Serving {
        let current = current.map(|i| &record.releases[i]);
        let update = current.filter(|r| matches!(r.phase, Phase::RollingOut | Phase::Paused | Phase::Active));
        // A gateway that voted, and one that was just told to go back, are heard within a sync at rollout's pace.
        let hurry = current.is_some_and(|r| {
            matches!(r.phase, Phase::Compiling | Phase::RollingOut)
                || record.stable != r.number && r.phase == Phase::Active
        });
        Serving {
            deployment: wanted.deployment.clone(),
            model: wanted.model.clone(),
            selector: wanted.selector.clone(),
            update: update.and_then(|r| self.admit(&wanted.deployment, r)),
            stable: record.stable().and_then(Offer::of),
            trial: wanted.trial.clone(),
            escalation: wanted.escalation.clone(),
            hurry: match hurry {
                false => Hurry::Nobody,
                true if members < SMALL_FLEET => Hurry::Everybody,
                true => Hurry::Members,
            },
            yields: false,
        }
    }
}
