//! Assignments: the runner first, then every deployment's wish.

use std::sync::Arc;

use ballast_bundle::{Assignment, Digest, Floors, ReleaseRef, RunnerRef, Verified};
use ballast_slots::{Event, State, Wish};

use super::{Driver, Input, Machine, effects, is_name};
use crate::fetch::FetchError;
use crate::loaded::Loaded;
use crate::probe;
use crate::runner::{Runner, RunnerRecord};

impl Driver {
    pub(super) fn assignment(&mut self, assignment: Verified<Assignment>) {
        self.parts.target = Some(assignment.target.clone());
        let wanted = assignment.runner.clone();
        self.pending = Some(assignment);
        match wanted {
            Some(runner) if self.needs(&runner) => self.fetch_runner(runner),
            Some(_) | None => self.apply(),
        }
    }

    fn needs(&self, wanted: &RunnerRef) -> bool {
        let has = self.runner.as_ref().is_some_and(|r| r.record.reference.module == wanted.module);
        !has && !self.runner_file.rejected.contains(&wanted.module.digest)
    }

    fn fetch_runner(&mut self, wanted: RunnerRef) {
        if self.runner_busy {
            return; // what waits is looked at again when it ends
        }
        let Some(target) = self.parts.target.clone() else { return };
        self.runner_busy = true;
        let (source, root, send) = (self.parts.source.clone(), self.parts.root.clone(), self.parts.send.clone());
        let mut floors = Floors::default();
        if let Some(active) = &self.runner_file.active {
            floors.raise_runner(&active.target, active.statement.number);
        }
        let keep = self.kept();
        tokio::spawn(async move {
            let result = async {
                let statement = source.runner(&wanted, &target, &root, &floors).await?;
                source.blobs(&wanted.repository, &[&wanted.module], &keep).await?;
                Ok(RunnerRecord { reference: wanted, statement: statement.into_inner(), target })
            }
            .await;
            let _ = send.send(Input::RunnerFetched { result: Box::new(result) });
        });
    }

    /// A runner that is here and verified is probed with every served model before it takes over.
    pub(super) fn runner_fetched(&mut self, result: Result<RunnerRecord, FetchError>) {
        let record = match result {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%error, "the new runner was not accepted; what runs stays");
                self.runner_busy = false;
                return self.apply();
            }
        };
        let module = record.reference.module.digest;
        let (store, denied, send) =
            (Arc::clone(&self.parts.source.store), self.parts.denied.clone(), self.parts.send.clone());
        let served: Vec<(Machine, Vec<ReleaseRef>)> = self
            .machines
            .values()
            .map(|m| {
                let copy = Machine { layers: m.layers.clone(), ..Machine::new(m.state.clone()) };
                let releases = m.state.serving().map(|s| [Some(s.primary), s.backup]).into_iter().flatten().flatten();
                (copy, releases.cloned().collect())
            })
            .collect();
        tokio::spawn(async move {
            let made = tokio::task::spawn_blocking(move || {
                let runner = Arc::new(Runner::load(&store, record, &denied)?);
                let mut all = Vec::new();
                for (machine, releases) in &served {
                    for release in releases {
                        let loaded = effects::load(machine, &store, release, None, &runner);
                        all.push(loaded.map_err(|e| format!("{}: {}", machine.state.model, e.message))?);
                    }
                }
                Ok((runner, all))
            })
            .await;
            let result = match made {
                Ok(Ok((runner, all))) => probe_all(all).await.map(|all| (runner, all)),
                Ok(Err(message)) => Err(message),
                Err(_) => Err("loading it panicked".to_owned()),
            };
            let _ = send.send(Input::RunnerProbed { result, module });
        });
    }

    pub(super) fn runner_probed(&mut self, result: Result<(Arc<Runner>, Vec<Arc<Loaded>>), String>, module: Digest) {
        self.runner_busy = false;
        let before = self.runner_file.clone();
        match result {
            Ok((runner, all)) => {
                self.runner_file.active = Some(runner.record.clone());
                if let Err(error) = self.parts.dir.write("runner.json", &self.runner_file) {
                    tracing::error!(%error, "the new runner could not be recorded; what runs stays");
                    self.runner_file = before;
                    return self.apply();
                }
                tracing::info!(%module, target = %runner.record.target, "runner in force");
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
                    self.switch_now(&name);
                }
                self.collect = true;
                self.measure();
            }
            Err(error) => {
                tracing::error!(error, %module, "the new runner is refused here; what runs stays");
                self.runner_file.rejected.push(module);
                let extra = self.runner_file.rejected.len().saturating_sub(32);
                self.runner_file.rejected.drain(..extra);
                if let Err(error) = self.parts.dir.write("runner.json", &self.runner_file) {
                    tracing::error!(%error, "the refusal could not be recorded");
                }
            }
        }
        match self.pending.as_ref().and_then(|p| p.runner.clone()) {
            Some(next) if self.needs(&next) => self.fetch_runner(next),
            Some(_) | None => self.apply(),
        }
    }

    /// The pending assignment's deployments.
    fn apply(&mut self) {
        let Some(assignment) = self.pending.take() else { return };
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
            if machine.state.deployment != assigned.deployment || machine.state.model != assigned.model {
                // Another namespace or served name under the old file name: nothing of the old one counts.
                let old = machine.state.model.clone();
                *machine = fresh();
                self.parts.router.set(&old, None);
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

async fn probe_all(all: Vec<Loaded>) -> Result<Vec<Arc<Loaded>>, String> {
    let mut probed = Vec::with_capacity(all.len());
    for loaded in all {
        let model = loaded.contract.model.clone();
        let loaded = probe::probe(loaded).await.map_err(|e| format!("{model}: {}", e.message))?;
        probed.push(Arc::new(loaded));
    }
    Ok(probed)
}
