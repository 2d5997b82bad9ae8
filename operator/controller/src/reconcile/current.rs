//! Which release a wish asks for: one that there is, another try of it, or a new one. No client.

use std::collections::BTreeMap;

use ballast_bundle::UnixMillis;
use ballast_crds::conditions::Reason;

use crate::controller::Controller;
use crate::records::{Phase, Record, Release};
use crate::rollout::{Counts, RolloutState};
use crate::wanted::Wanted;

impl Controller {
    /// Finds or begins the release that `wanted` asks for. `None` never happens for a wish that could be read.
    pub(super) fn current(&self, wanted: &Wanted, record: &mut Record, now: UnixMillis) -> Option<usize> {
        let newest = record.releases.iter().rposition(|r| r.identity == wanted.identity);
        if let Some(index) = newest {
            let release = &record.releases[index];
            let asked = wanted.retry.filter(|r| release.number.is_some_and(|n| n.counter.0 == r.counter));
            let retry = release.phase == Phase::RolledBack && asked.is_some();
            if let Some(asked) = asked.filter(|r| release.is_halted() && r.attempt > release.resumes) {
                let release = &mut record.releases[index];
                release.rollout = release.rollout.clone().resumed(&release.counts, now);
                (release.resumes, release.cause) = (asked.attempt, None);
                release.enter(Phase::RollingOut, Reason::RollingOut, "a person let it go on", now);
            }
            let release = &record.releases[index];
            let again = match release.phase {
                // Whoever goes back to an older release wants it again, under a new counter.
                Phase::Superseded => record.stable != release.number || release.number.is_none(),
                Phase::RolledBack => retry,
                Phase::Refused => wanted.retry.is_some_and(|r| r.counter == release.created.0),
                Phase::Compiling | Phase::RollingOut | Phase::Active | Phase::Paused => false,
            };
            if !again {
                self.supersede_others(record, index, now);
                return Some(index);
            }
        }
        record.releases.push(Release {
            identity: wanted.identity,
            version: wanted.version.clone(),
            number: None,
            phase: Phase::Compiling,
            reason: Reason::Compiling.as_str().into(),
            message: String::new(),
            created: now,
            since: now,
            targets: BTreeMap::new(),
            trial: wanted.trial.clone(),
            rollout: RolloutState::default(),
            counts: Counts::default(),
            cause: None,
            resumes: 0,
            reached: 0,
            rollback_micros: None,
            model: wanted.model_spec.clone(),
        });
        let index = record.releases.len() - 1;
        self.supersede_others(record, index, now);
        Some(index)
    }

    /// One release at a time: an older one that was still on its way stops, and never becomes a fallback.
    fn supersede_others(&self, record: &mut Record, current: usize, now: UnixMillis) {
        let stable = record.stable;
        for (index, release) in record.releases.iter_mut().enumerate() {
            let on_its_way = matches!(release.phase, Phase::Compiling | Phase::RollingOut | Phase::Paused);
            // A stable release stays Active until the next one has finished its steps.
            if index != current && on_its_way && (release.number.is_none() || release.number != stable) {
                release.enter(Phase::Superseded, Reason::Superseded, "a newer release took its place", now);
            }
        }
        // Back at the stable release after a newer one failed or was withdrawn.
        let release = &mut record.releases[current];
        if release.number.is_some() && release.number == stable && release.phase == Phase::Superseded {
            release.enter(Phase::Active, Reason::Complete, "", now);
        }
    }
}
