//! Assignments: the runner first, then every deployment's wish.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_bundle::protocol::FailureReason;
use ballast_bundle::{Assignment, Digest, ReleaseRef, RunnerRef, Verified};
use ballast_slots::{Event, State, Wish};

use super::{Driver, Input, Machine, is_name, mend};
use crate::error::in_full;
use crate::fetch::{FetchError, Fetched};
use crate::installed::InstalledRunner;
use crate::loaded::{Loaded, Unloadable};
use crate::probe;
use crate::runner::Runner;

/// A runner that did not come here or had no room is tried again after so long, or with the next assignment.
const RUNNER_AGAIN: Duration = Duration::from_secs(15);

impl Driver {
    /// An assignment in force: kept until the next, since whatever of it fails now is tried again.
    pub(super) fn assigned(&mut self, assignment: Verified<Assignment>) {
        self.parts.target = Some(assignment.target.clone());
        self.assignment = Some(assignment);
        self.runner_again = None;
        self.look_after_runner();
        self.apply();
    }

    /// Brings the assigned runner here if it is not in force. Until it is, or was refused, nothing new is admitted: bundles
    /// may need what only it speaks.
    pub(super) fn look_after_runner(&mut self) {
        let due = self.runner_again.is_none_or(|at| at.elapsed() >= RUNNER_AGAIN);
        if let Some(wanted) = self.missing_runner().filter(|_| due && !self.runner_busy) {
            self.fetch_runner(wanted);
        }
    }

    /// The assigned runner, or, where that was refused and the one in force is damaged, the one in force.
    pub(super) fn missing_runner(&self) -> Option<RunnerRef> {
        let assigned = self.assignment.as_ref()?.runner.as_ref();
        let before = self.runner_file.active.as_ref().map(|r| &r.reference).filter(|_| self.runner.is_none());
        let mut both = assigned.into_iter().chain(before);
        let wanted = both.find(|wanted| !self.runner_file.refuses(&wanted.module.digest))?;
        let has = self.runner.as_ref().is_some_and(|r| r.installed.record.reference.module == wanted.module);
        (!has).then(|| wanted.clone())
    }

    fn fetch_runner(&mut self, wanted: RunnerRef) {
        let Some(target) = self.parts.target.clone() else { return };
        self.runner_busy = true;
        let (source, roots, send) = (self.parts.source.clone(), self.parts.roots.clone(), self.parts.send.clone());
        let floors = self.runner_file.floors();
        let before = self.runner_file.active.clone().filter(|r| self.runner.is_none() && r.reference == wanted);
        tokio::spawn(async move {
            let result = match before {
                Some(record) => source.runner_again(record, &roots).await,
                None => source.runner(wanted, target, &roots, &floors).await,
            };
            let _ = send.send(Input::RunnerFetched { result: Box::new(result) });
        });
    }

    /// A runner that is here and verified is probed with every served model before it takes over.
    pub(super) fn runner_fetched(&mut self, result: Result<Fetched<InstalledRunner>, FetchError>) {
        let Fetched { installed, room } = match result {
            Ok(fetched) => fetched,
            Err(error) => {
                tracing::error!(%error, "the new runner was not accepted; what runs stays, and it is tried again");
                self.runner_busy = false;
                self.runner_again = Some(Instant::now());
                self.runner_waits = (error.reason(), format!("the runner that it needs is not here: {error}"));
                return;
            }
        };
        let module = installed.record.reference.module.digest;
        let (store, allowed, send) =
            (Arc::clone(&self.parts.source.store), self.parts.allowed.clone(), self.parts.send.clone());
        let served: Vec<(Machine, Vec<ReleaseRef>)> = self
            .machines
            .values()
            .map(|m| {
                let copy = Machine { installed: m.installed.clone(), ..Machine::new(m.state.clone()) };
                let releases = m.state.serving().map(|s| [Some(s.primary), s.backup]).into_iter().flatten().flatten();
                (copy, releases.cloned().collect())
            })
            .collect();
        let budget = self.parts.memory_budget.saturating_sub(self.memory_used());
        let alone = self.runner.is_none();
        tokio::spawn(async move {
            let made = tokio::task::spawn_blocking(move || {
                let runner = Arc::new(Runner::load(&store, installed, &allowed)?);
                let (mut all, mut left) = (Vec::new(), budget);
                for (machine, releases) in &served {
                    for release in releases {
                        let model = &machine.state.model;
                        let named = |e: Unloadable| Unloadable { message: format!("{model}: {}", e.message), ..e };
                        let prepared = match mend::prepare(machine, &store, release, &runner) {
                            // Nothing can be mended without a runner; with one, it is.
                            Err(e) if alone && e.reason == FailureReason::VerificationFailed => continue,
                            prepared => prepared.map_err(named)?,
                        };
                        // Until it takes over, everything is loaded twice.
                        left = left.checked_sub(prepared.memory()).ok_or_else(|| Unloadable {
                            reason: FailureReason::InsufficientMemory,
                            message: format!("{model} does not fit limits.memory a second time, to prove a new runner"),
                        })?;
                        all.push(prepared.start().map_err(named)?);
                    }
                }
                Ok((runner, all))
            })
            .await;
            let result = match made {
                Ok(Ok((runner, all))) => probe_all(all).await.map(|all| (runner, all)),
                Ok(Err(error)) => Err(error),
                Err(_) => {
                    Err(Unloadable { reason: FailureReason::InvalidBundle, message: "loading it panicked".to_owned() })
                }
            };
            let _ = send.send(Input::RunnerProbed { result, module, room });
        });
    }

    pub(super) fn runner_probed(
        &mut self,
        result: Result<(Arc<Runner>, Vec<Arc<Loaded>>), Unloadable>,
        module: Digest,
    ) {
        self.runner_busy = false;
        let before = self.runner_file.clone();
        match result {
            Ok((runner, all)) => {
                self.runner_file.activate(&runner.installed);
                if let Err(error) = self.runner_file.write(&self.parts.dir) {
                    tracing::error!(error = in_full(&error), "the new runner could not be recorded; what runs stays");
                    self.runner_file = before;
                    self.runner_again = Some(Instant::now());
                    return;
                }
                tracing::info!(%module, target = %runner.installed.statement.target, "runner in force");
                self.runner = Some(runner);
                let mut all: Vec<_> = all.into_iter().map(|l| (l.id(), l)).collect();
                for machine in self.machines.values_mut() {
                    machine.prepared = None;
                    for release in machine.state.releases() {
                        let digest = release.manifest.digest;
                        if let Some(at) = all.iter().position(|(id, _)| id.manifest == digest) {
                            machine.loaded.insert(digest, all.swap_remove(at).1);
                        }
                    }
                }
                let names: Vec<_> = self.machines.keys().cloned().collect();
                for name in names {
                    // What could not be loaded for want of a runner is loaded now.
                    self.switch(&name);
                }
                self.collect = true;
                self.measure();
            }
            // Unknown, or damage on the disk: nothing is known against the runner.
            Err(Unloadable { reason, message })
                if !reason.is_failure() || reason == FailureReason::VerificationFailed =>
            {
                tracing::warn!(message, %module, "the new runner cannot be tried now; what runs stays");
                self.runner_again = Some(Instant::now());
                self.runner_waits =
                    (FailureReason::InsufficientMemory, format!("it waits for a new runner: {message}"));
            }
            Err(Unloadable { message: error, .. }) => {
                tracing::error!(error, %module, "the new runner is refused here; what runs stays");
                self.runner_file.reject(module);
                if let Err(error) = self.runner_file.write(&self.parts.dir) {
                    tracing::error!(error = in_full(&error), "the refusal could not be recorded");
                }
            }
        }
        self.look_after_runner();
    }

    /// The deployments of the assignment in force. Saying it again changes nothing.
    pub(super) fn apply(&mut self) {
        let Some(assignment) = self.assignment.clone() else { return };
        self.parts.cloud.assign(&assignment.deployments);
        let mut named = Vec::new();
        for assigned in &assignment.deployments {
            let name = assigned.deployment.name.clone();
            if !is_name(&name) || assigned.deployment.namespace != assignment.namespace {
                tracing::error!(deployment = name, "the assignment names a deployment that cannot be one");
                continue;
            }
            named.push(name.clone());
            let model = assigned.model.clone();
            let fresh = || Machine::new(State::new(assigned.deployment.clone(), model.clone()));
            let machine = self.machines.entry(name.clone()).or_insert_with(fresh);
            let (same, old) = (machine.state.deployment == assigned.deployment, machine.state.model.clone());
            if !same || old != model {
                let mut state = State::new(assigned.deployment.clone(), model.clone());
                if same {
                    // Another served name is no way round the floor, nor back to what was rejected.
                    state.floor = machine.state.floor;
                    state.rejected = std::mem::take(&mut machine.state.rejected);
                    state.rejected_up_to = machine.state.rejected_up_to;
                }
                *machine = Machine::new(state);
                self.parts.router.set(&old, &name, None);
            }
            let wish =
                Wish { want: assigned.want.clone(), stable: assigned.stable.clone(), trial: assigned.trial.clone() };
            self.event(&name, &Event::Assigned(wish));
        }
        let gone: Vec<_> = self.machines.keys().filter(|n| !named.contains(n)).cloned().collect();
        for name in gone {
            self.event(&name, &Event::Withdrawn);
        }
    }

    /// How fast the runner runs here; in the background, since it takes a quarter of a second.
    pub(super) fn measure(&self) {
        let Some(runner) = self.runner.clone() else { return };
        let send = self.parts.send.clone();
        tokio::task::spawn_blocking(move || match ballast_sandbox::measure_speed(&runner.engine, &runner.module) {
            Ok(speed) => {
                let _ = send.send(Input::Measured(speed));
            }
            Err(error) => tracing::warn!(%error, "the runner's speed could not be measured"),
        });
    }
}

async fn probe_all(all: Vec<Loaded>) -> Result<Vec<Arc<Loaded>>, Unloadable> {
    let mut probed = Vec::with_capacity(all.len());
    for loaded in all {
        let model = loaded.contract.model.clone();
        let named = |e: Unloadable| Unloadable { message: format!("{model}: {}", e.message), ..e };
        probed.push(Arc::new(probe::probe(loaded).await.map_err(named)?));
    }
    Ok(probed)
}
