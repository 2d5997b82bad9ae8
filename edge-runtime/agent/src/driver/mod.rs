//! The driver: one task that owns every deployment's state machine and carries its effects out.
//!
//! It never waits for anything long: downloads, loading and probes are tasks that send [`Input`]s back, so that a failing
//! candidate is rolled back within milliseconds whatever else goes on.

mod assign;
mod effects;
mod mend;
mod report;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ballast_bundle::protocol::{FailureReason, ReleaseReport, Speed};
use ballast_bundle::{Assignment, Digest, TargetName, UnixMillis, Verified};
use ballast_sandbox::Fault;
use ballast_slots::{Event, ReleaseId, State};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use crate::cloud::Cloud;
use crate::fetch::{FetchError, Fetched, Source, blobs_of};
use crate::identity::Roots;
use crate::installed::{Accepted, InstalledRelease, InstalledRunner};
use crate::loaded::{Loaded, Prepared, Unloadable};
use crate::metrics::Metrics;
use crate::runner::{Allowed, Runner, RunnerFile};
use crate::serve::Router;
use crate::state::{StateDir, StateError};
use crate::store::{Reservation, Store};
use crate::time::Clock;

/// `slots/NAME.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SlotFile {
    pub(crate) format: u32,
    pub(crate) state: State,
    /// Of every release in a slot whose bytes are here: what its statement was accepted for.
    pub(crate) installed: Vec<(ReleaseId, Accepted)>,
    /// Of rolled-back releases: detection to the fallback's first answer, microseconds.
    #[serde(default)]
    pub(crate) rollback_micros: Vec<(ReleaseId, u64)>,
}

/// What the driver is told.
pub(crate) enum Input {
    /// A verified assignment, the roots that are known, and when its pointer expires.
    Assignment(Box<(Verified<Assignment>, Roots, UnixMillis)>),
    /// A download ended; of a relabelled release, that of its statement.
    Fetched { name: String, id: ReleaseId, relabel: bool, result: Result<Fetched<InstalledRelease>, FetchError> },
    /// Read and checked for admission, or not.
    Prepared { name: String, id: ReleaseId, result: Box<Result<Prepared, Unloadable>> },
    /// Loaded and probed, or not.
    Probed { name: String, id: ReleaseId, result: Result<Arc<Loaded>, Unloadable> },
    /// A runner's download ended.
    RunnerFetched { result: Box<Result<Fetched<InstalledRunner>, FetchError>> },
    /// The new runner passed every active model's golden vectors, or did not.
    RunnerProbed { result: Result<(Arc<Runner>, Vec<Arc<Loaded>>), Unloadable>, module: Digest, room: Vec<Reservation> },
    /// The new runner was measured.
    Measured(Speed),
    /// What should serve cannot be loaded.
    Unloadable { name: String, event: Event },
    /// Damaged bytes of what should serve are here again.
    Mended { name: String, id: ReleaseId, result: Result<Fetched<InstalledRelease>, FetchError> },
    /// A live request failed; the time to the fallback's answer, if there was one.
    Failed { deployment: String, id: ReleaseId, fault: Fault, micros: Option<u64> },
    /// Golden replays of a trial.
    Replayed { name: String, id: ReleaseId, right: u64, result: Result<(), Unloadable> },
    /// Time passed.
    Tick,
    /// Ends the driver.
    Stop,
}

/// What others see of the driver.
#[derive(Debug, Default)]
pub(crate) struct Board {
    inner: Mutex<(Vec<ReleaseReport>, Option<Speed>)>,
    /// There is something new to tell the operator.
    pub(crate) news: Notify,
}

impl Board {
    pub(crate) fn reports(&self) -> Vec<ReleaseReport> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    pub(crate) fn speed(&self) -> Option<Speed> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn set_reports(&self, reports: Vec<ReleaseReport>) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).0 = reports;
    }

    fn set_speed(&self, speed: Speed) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(speed);
        self.news.notify_one();
    }
}

/// One deployment and what belongs to it in memory.
pub(crate) struct Machine {
    state: State,
    /// What the slots name and was verified since the process started.
    installed: BTreeMap<ReleaseId, InstalledRelease>,
    /// Of what could not be verified at the start: what it was accepted for. It is brought again.
    unproved: BTreeMap<ReleaseId, Accepted>,
    rollback_micros: BTreeMap<ReleaseId, u64>,
    loaded: BTreeMap<Digest, Arc<Loaded>>,
    prepared: Option<(ReleaseId, Prepared)>,
    /// A preparation, a probe or a replay is under way.
    preparing: bool,
    fetching: Option<(ReleaseId, AbortHandle)>,
    /// What should serve and cannot be loaded.
    unloaded: BTreeMap<ReleaseId, mend::Again>,
    /// How often the candidate's bytes turned out to be damaged.
    damages: Option<(ReleaseId, u32)>,
    /// What the last preparation found to be too large, and how large.
    too_large: Option<(ReleaseId, u64)>,
    replaying: bool,
    replayed: usize,
    /// Counted at the last tick, by manifest: a relabel changes the number only.
    seen: BTreeMap<Digest, u64>,
    /// Since when, or since which attempt, its state could not be written; until it can.
    unwritten: Option<Instant>,
    /// A wish could not be written, and so was not heard.
    unheard: bool,
    /// When the candidate's trial began, or it last answered a live request.
    last_live: Instant,
}

/// What the driver is made of.
pub(crate) struct Parts {
    pub(crate) dir: Arc<StateDir>,
    pub(crate) source: Source,
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) router: Arc<Router>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) board: Arc<Board>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) memory_budget: u64,
    pub(crate) allowed: Allowed,
    pub(crate) roots: Roots,
    pub(crate) target: Option<TargetName>,
    pub(crate) send: mpsc::UnboundedSender<Input>,
}

/// See the module.
pub(crate) struct Driver {
    parts: Parts,
    machines: BTreeMap<String, Machine>,
    runner: Option<Arc<Runner>>,
    runner_file: RunnerFile,
    assignment: Option<Verified<Assignment>>,
    /// After this nothing new is installed; what runs goes on.
    expires: UnixMillis,
    runner_busy: bool,
    /// When the assigned runner last failed to come here, and why.
    runner_again: Option<Instant>,
    runner_waits: (FailureReason, String),
    /// The clock and the instant at the start.
    started: (UnixMillis, Instant),
    /// Deployments whose effects ask for blobs to be deleted.
    collect: bool,
}

impl Driver {
    /// Loads whatever is in the slots, so that it serves before anybody is asked.
    pub(crate) fn boot(parts: Parts) -> Result<Self, StateError> {
        let runner_file = RunnerFile::read(&parts.dir)?.under(&parts.allowed);
        let runner = runner_file.active.clone().and_then(|record| {
            match Runner::again(&parts.source.store, &parts.roots, record, &parts.allowed) {
                Ok(runner) => Some(Arc::new(runner)),
                Err(Unloadable { message: error, .. }) => {
                    tracing::error!(error, "the runner cannot be used; it is fetched again");
                    None
                }
            }
        });
        let mut driver = Self {
            started: (parts.clock.now(), Instant::now()),
            parts,
            machines: BTreeMap::new(),
            runner,
            runner_file,
            assignment: None,
            expires: UnixMillis(0),
            runner_busy: false,
            runner_again: None,
            runner_waits: (FailureReason::InsufficientDisk, String::new()),
            collect: false,
        };
        for file in slot_files(&driver.parts.dir)? {
            let machine = Machine::of(file, &driver.parts.source.store, &driver.parts.roots);
            driver.machines.insert(machine.state.deployment.name.clone(), machine);
        }
        let names: Vec<_> = driver.machines.keys().cloned().collect();
        for name in names {
            driver.event(&name, &Event::Booted);
        }
        driver.keep();
        driver.publish();
        driver.measure();
        Ok(driver)
    }

    /// Runs until [`Input::Stop`].
    pub(crate) async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        while let Some(input) = inputs.recv().await {
            if matches!(input, Input::Stop) {
                return;
            }
            self.take(input);
            self.publish();
        }
    }

    fn take(&mut self, input: Input) {
        // Room is held until what came is named by a slot.
        let mut room = Vec::new();
        match input {
            Input::Assignment(boxed) => {
                let (assignment, roots, expires) = *boxed;
                self.expires = expires;
                self.parts.roots = roots;
                self.assigned(assignment);
            }
            Input::Fetched { name, id, relabel, result } => {
                let Some(machine) = self.machines.get_mut(&name) else { return };
                machine.fetching.take_if(|(of, _)| *of == id);
                let event = match result {
                    Ok(fetched) => {
                        room = fetched.room;
                        machine.unproved.remove(&id);
                        machine.installed.insert(id, fetched.installed);
                        if relabel { Event::Relabelled(id) } else { Event::Fetched(id) }
                    }
                    Err(error) => set_aside(id, error.reason(), error.to_string()),
                };
                self.event(&name, &event);
            }
            Input::Prepared { name, id, result } => self.prepared(&name, id, *result),
            Input::Probed { name, id, result } => self.probed(&name, id, result),
            Input::RunnerFetched { result } => self.runner_fetched(*result),
            Input::RunnerProbed { result, module, room: held } => {
                room = held;
                self.runner_probed(result, module);
            }
            Input::Measured(speed) => self.parts.board.set_speed(speed),
            Input::Unloadable { name, event } => self.event(&name, &event),
            Input::Mended { name, id, result } => room = self.mended(&name, id, result),
            Input::Failed { deployment, id, fault, micros } => self.request_failed(&deployment, id, &fault, micros),
            Input::Replayed { name, id, right, result } => self.replayed(&name, id, right, result),
            Input::Tick => self.tick(),
            Input::Stop => {}
        }
        self.keep();
        drop(room);
        // What a damaged statement named is not known until that is here again.
        let unproved = self.machines.values().any(|m| !m.unproved.is_empty());
        if !unproved && std::mem::take(&mut self.collect) {
            self.parts.source.store.collect();
        }
    }

    /// Tells the store what must stay: what slots, runner and assignment name.
    fn keep(&self) {
        let mut keep = BTreeSet::new();
        for machine in self.machines.values() {
            for release in machine.state.releases() {
                keep.extend([release.statement.digest, release.manifest.digest]);
                if let Some(installed) = machine.installed.get(&ReleaseId::from(release)) {
                    keep.extend(blobs_of(&installed.statement.layers).map(|b| b.digest));
                }
            }
        }
        let assigned = self.assignment.as_ref().and_then(|a| a.runner.as_ref());
        for runner in self.runner_file.active.iter().map(|r| &r.reference).chain(assigned) {
            keep.extend([runner.module.digest, runner.statement.digest]);
        }
        self.parts.source.store.keep(keep);
    }
}

/// What becomes of a candidate: a failure of its own ends it, a lack of this machine's puts it off.
fn set_aside(of: ReleaseId, reason: FailureReason, message: String) -> Event {
    if reason.is_failure() { Event::Rejected { of, reason, message } } else { Event::Deferred { of, reason, message } }
}

/// Every slot file there is.
pub(crate) fn slot_files(dir: &StateDir) -> Result<Vec<SlotFile>, StateError> {
    let path = dir.path("slots");
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StateError::Io { path, action: "listed", source }),
    };
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|n| is_slot(n)).collect();
    names.sort();
    names.iter().filter_map(|name| dir.read(&format!("slots/{name}")).transpose()).collect()
}

fn is_slot(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(is_name)
}

/// Kubernetes names; nothing that could leave the directory.
pub(crate) fn is_name(name: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 240
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && edge(name.bytes().next())
        && edge(name.bytes().last())
}

impl Machine {
    fn new(state: State) -> Self {
        Self {
            state,
            installed: BTreeMap::new(),
            unproved: BTreeMap::new(),
            rollback_micros: BTreeMap::new(),
            loaded: BTreeMap::new(),
            prepared: None,
            preparing: false,
            fetching: None,
            unloaded: BTreeMap::new(),
            damages: None,
            too_large: None,
            replaying: false,
            replayed: 0,
            seen: BTreeMap::new(),
            unwritten: None,
            unheard: false,
            last_live: Instant::now(),
        }
    }

    /// After a start. What cannot be proved again does not run.
    fn of(file: SlotFile, store: &Store, roots: &Roots) -> Self {
        let mut machine = Self { rollback_micros: file.rollback_micros.into_iter().collect(), ..Self::new(file.state) };
        for (id, accepted) in file.installed {
            let release = machine.state.releases().find(|r| ReleaseId::from(*r) == id);
            let Some(release) = release.cloned() else { continue };
            let deployment = &machine.state.deployment;
            match InstalledRelease::load(store, roots, &release, deployment, accepted.clone()) {
                Ok(installed) => drop(machine.installed.insert(id, installed)),
                Err(error) => {
                    tracing::error!(
                        deployment = deployment.name,
                        version = release.version,
                        error,
                        "a release cannot be verified again"
                    );
                    machine.unproved.insert(id, accepted);
                }
            }
        }
        machine
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn slot_names_stay_in_their_directory() {
        assert!(super::is_slot("digits.json") && super::is_slot("a-1.b.json"));
        for bad in ["../a.json", ".json", "..json", "a/b.json", "A.json", ".digits.json.new", "digits"] {
            assert!(!super::is_slot(bad), "{bad}");
        }
    }
}
