//! One deployment, one pass, in six steps, a file each:
//!
//! | step | file | touches |
//! |---|---|---|
//! | dereference: prune, gateways and targets as they are | here | no client |
//! | which release the wish asks for | `current` | no client |
//! | build: start, poll and judge what compiles beside the passes | `build` | no client |
//! | sign and publish | `sign` | *client*: state directory, registry |
//! | decide: ask the planner, remember what gateways said | `decide` | no client |
//! | what gateways are told | `serve` | no client |
//!
//! Status is written by the pass that calls this. Passes are short: what takes long (fetching and compiling) runs beside
//! them and is picked up by a later pass. A pass may be cut off anywhere: what was saved is whole, and the next one goes on
//! from there.

mod build;
mod current;
mod decide;
mod serve;
mod sign;

use std::collections::BTreeSet;
use std::sync::Arc;

use ballast_bundle::{DeploymentRef, ReleaseNumber, TargetName, UnixMillis};

use crate::controller::Controller;
use crate::records::{Phase, Record, Served};
use crate::roster::Member;
use crate::serving::Serving;
use crate::state::StateError;
use crate::targets::Target;
use crate::wanted::Wanted;

/// A gateway that was not heard for so long holds no old release back: its assignment has expired (a pointer lives for so
/// long), and when it comes back it takes the stable release, whatever became of its own bytes.
const HELD_MILLIS: u64 = 7 * 24 * 3600 * 1000;

impl Controller {
    /// The pass over one deployment: what gateways are told of it. Saves the record where order matters, and at the end
    /// when it changed.
    pub(crate) fn reconcile(
        &self,
        wanted: &Arc<Wanted>,
        record: &mut Record,
        now: UnixMillis,
    ) -> Result<Serving, StateError> {
        // First, since every index below counts from the oldest release that is kept.
        record.prune(wanted.history, &wanted.identity, |number| self.is_held(&wanted.deployment, number, now));
        // Dereference (no client): gateways and targets as they are now. What may be given is set off against what was
        // given before the gateways were counted: a sync in between makes the next step smaller, never larger.
        let given = self.given(wanted, record);
        let members = self.roster.select(&wanted.deployment.namespace, |row| wanted.selector.matches(&row.labels));
        let targets = self.targets_of(wanted, &members);
        // The release that the wish asks for.
        let current = self.current(wanted, record, now);
        let deciding = self.may_decide(&members, now);
        if let Some(index) = current {
            match record.releases[index].phase {
                Phase::Compiling => self.compile(wanted, record, index, &targets, &members, now)?,
                Phase::RollingOut | Phase::Active | Phase::Paused => {
                    self.extend(wanted, record, index, &targets, now)?;
                    if deciding {
                        self.decide(wanted, record, index, &members, given, now);
                    }
                }
                Phase::RolledBack | Phase::Refused | Phase::Superseded => {}
            }
            self.observe(record, index, &members, wanted);
        }
        decide::collect_failures(record, &members);
        let serving = self.serving(wanted, record, current, members.len());
        record.served = Some(Served {
            model: serving.model.clone(),
            selector: serving.selector.clone(),
            update: serving.update.as_ref().map(|(offer, _)| offer.number),
            trial: serving.trial.clone(),
            escalation: serving.escalation.clone(),
        });
        self.save_changes(record)?;
        Ok(serving)
    }

    /// Whether a gateway that may still come for it has a release in one of its slots, or was told to take it. Gateways of
    /// the whole namespace count: one that is selected no more has what it has until it hears so.
    fn is_held(&self, deployment: &DeploymentRef, number: ReleaseNumber, now: UnixMillis) -> bool {
        self.roster.any(&deployment.namespace, |member| {
            let heard = member.row.last_seen.unwrap_or(member.row.enrolled);
            now.0.saturating_sub(heard.0) < HELD_MILLIS && member.holds(deployment, number)
        })
    }

    /// How many gateways were given the release that is wanted, so far.
    fn given(&self, wanted: &Wanted, record: &Record) -> u64 {
        let newest = record.releases.iter().rfind(|r| r.identity == wanted.identity);
        newest.and_then(|r| r.number).map_or(0, |number| self.ration(&wanted.deployment, number).given())
    }

    /// The targets that a release must be built for: found among the selected gateways, and allowed by the spec.
    fn targets_of(&self, wanted: &Wanted, members: &[Member]) -> Vec<Target> {
        let names: BTreeSet<&TargetName> = members.iter().filter_map(|m| m.target.as_ref()).collect();
        names.into_iter().filter(|n| wanted.allows(n)).filter_map(|n| self.target(n)).collect()
    }
}
