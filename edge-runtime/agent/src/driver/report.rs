//! Reports: what the operator is told of every release that is in a slot or was rejected.

use ballast_bundle::protocol::{ReleaseReport, ReleaseState};
use ballast_slots::{ReleaseId, State};

use super::{Driver, Machine};

/// The server takes no more in one sync.
const MAX_REPORTS: usize = 64;
/// Rejected releases that are reported again and again per deployment; the newest.
const MAX_REJECTED: usize = 4;

impl Driver {
    /// Puts the reports where the sync loop finds them, and what should be served where requests do.
    pub(super) fn publish(&self) {
        let assigned = self.machines.values().filter(|m| m.state.wish.is_some() || m.state.active.is_some());
        self.parts.router.assign(assigned.map(|m| m.state.model.clone()).collect());
        // What is in a slot and the newest verdict of every deployment come before anybody's history.
        let (mut all, mut older) = (Vec::new(), Vec::new());
        for machine in self.machines.values() {
            let mut rejected = rejections(machine);
            all.extend(held(machine));
            all.extend(rejected.next());
            older.extend(rejected);
        }
        all.append(&mut older);
        all.truncate(MAX_REPORTS);
        self.parts.board.set_reports(all);
    }
}

/// Of what is in a slot.
fn held(machine: &Machine) -> impl Iterator<Item = ReleaseReport> {
    let state = &machine.state;
    state.releases().filter_map(move |r| {
        let id = ReleaseId::from(r);
        let candidate = state.candidate.as_ref().filter(|c| ReleaseId::from(&c.release) == id);
        let held = state.active.iter().chain(&state.fallback).find(|h| ReleaseId::from(&h.release) == id);
        let (requests, failures) = candidate
            .map(|c| (c.requests, c.failures))
            .or_else(|| held.map(|h| (h.requests, h.failures)))
            .unwrap_or_default();
        let deferred = candidate.and_then(|c| c.deferred.clone());
        Some(ReleaseReport {
            requests,
            failures,
            reason: deferred.as_ref().map(|(reason, _)| *reason),
            message: deferred.map(|(_, message)| message).unwrap_or_default(),
            latency_p99_micros: machine.loaded.get(&id.manifest).and_then(|l| l.stats.p99_micros()),
            ..report(state, id, &r.version, state.reported(&id)?)
        })
    })
}

/// Of what was rejected, newest first.
fn rejections(machine: &Machine) -> impl Iterator<Item = ReleaseReport> {
    let state = &machine.state;
    state.rejected.iter().rev().take(MAX_REJECTED).map(move |r| ReleaseReport {
        requests: r.requests,
        failures: r.failures,
        reason: Some(r.reason),
        message: r.message.clone(),
        rollback_micros: machine.rollback_micros.get(&r.id).copied(),
        ..report(state, r.id, &r.version, ReleaseState::RolledBack)
    })
}

fn report(of: &State, id: ReleaseId, version: &str, state: ReleaseState) -> ReleaseReport {
    ReleaseReport {
        deployment: of.deployment.clone(),
        number: id.number,
        manifest: id.manifest,
        version: version.to_owned(),
        state,
        reason: None,
        message: String::new(),
        requests: 0,
        failures: 0,
        rollback_micros: None,
        latency_p99_micros: None,
    }
}
