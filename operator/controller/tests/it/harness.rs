//! A controller with everything real but the clock, the compiler's workers, the runner's native code, and where objects
//! come from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ballast_bundle::protocol::{Facts, FailureReason, ReleaseReport, ReleaseState};
use ballast_bundle::{
    AssignedDeployment, Contract, DeploymentRef, Digest, GatewayId, Limits, NamespaceUid, SigningKey, TensorSpec,
    UnixMillis,
};
use ballast_compiler::{Artifacts, CompileOutcome, CompileRequest, Verdict, VerdictReason, WorkerError};
use ballast_controller::builder::Builder;
use ballast_controller::compilation::Compiler;
use ballast_controller::controller::{Controller, Settings};
use ballast_controller::events::{self, Event};
use ballast_controller::fetch::Fetcher;
use ballast_controller::objects::{Deployment, Objects, Overlay, Source, SourceProblem};
use ballast_controller::records::{Phase, Record, Release};
use ballast_controller::runners::Runners;
use ballast_controller::state::StateDir;
use ballast_controller::tokens::Tokens;
use ballast_controller::workers::Workers;
use ballast_crds::{ModelDeployment, ModelDeploymentStatus};
use ballast_fleet::registry::Registry;
use ballast_fleet::store::{GatewayRow, GatewayState, GatewayStore, RedbStore, Sync};
use ballast_fleet::{BoxFuture, Dispatch as _, Dispatched, Documents};
use serde_json::{Value, json};

/// Objects that a test sets.
#[derive(Default)]
pub struct Wishes {
    pub objects: Mutex<Objects>,
    pub statuses: Mutex<BTreeMap<String, ModelDeploymentStatus>>,
    pub events: Mutex<BTreeMap<String, Vec<Event>>>,
}

pub fn namespace() -> NamespaceUid {
    "ns-a".parse().unwrap()
}

impl Source for Wishes {
    fn namespace(&self, _: &str) -> Result<NamespaceUid, String> {
        Ok(namespace())
    }

    fn namespaces(&self) -> BTreeMap<NamespaceUid, String> {
        BTreeMap::from([(namespace(), "default".into())])
    }

    fn objects(&self) -> Objects {
        self.objects.lock().unwrap().clone()
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn put_status(&self, deployment: &Deployment, status: ModelDeploymentStatus) {
        self.statuses.lock().unwrap().insert(deployment.deployment().name, status);
    }

    fn put_event(&self, deployment: &Deployment, event: Event) {
        events::record(self.events.lock().unwrap().entry(deployment.deployment().name).or_default(), event);
    }

    fn events(&self, deployment: &Deployment) -> Vec<Event> {
        self.events.lock().unwrap().get(&deployment.deployment().name).cloned().unwrap_or_default()
    }

    fn overlay(&self, _: &Deployment, _: Overlay) -> Result<(), String> {
        Err("the test sets objects itself".into())
    }

    fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    fn problems_of(&self, _: &Deployment) -> Vec<SourceProblem> {
        Vec::new()
    }
}

/// Takes any model, unless told otherwise.
#[derive(Default)]
pub struct Fake {
    /// Given out, first one first, before anything is built.
    pub failures: Mutex<Vec<WorkerError>>,
    /// Of every model from now on, instead of building it.
    pub refuses: Mutex<Option<Verdict>>,
    /// Of every model from now on.
    pub outputs: Mutex<Vec<TensorSpec>>,
    /// The last one it was given.
    pub model: Mutex<Vec<u8>>,
}

impl Compiler for Fake {
    fn compile(&self, request: &CompileRequest) -> Result<CompileOutcome, WorkerError> {
        if let Some(failure) = self.failures.lock().unwrap().pop() {
            return Err(failure);
        }
        self.model.lock().unwrap().clone_from(&request.model);
        if let Some(verdict) = self.refuses.lock().unwrap().clone() {
            return Ok(CompileOutcome::Refused(verdict));
        }
        let contract = Contract {
            format: 1,
            model: request.model_name.clone(),
            version: request.version.clone(),
            variant: request.variant.clone(),
            target: request.target.name.clone(),
            abi: 1 << 16,
            batch: None,
            state: None,
            buckets: None,
            plan_major: 1,
            inputs: Vec::new(),
            outputs: self.outputs.lock().unwrap().clone(),
            counted: vec![],
            limits: Limits { memory_bytes: 1 << 20, deadline_millis: 100, instances: 1, max_queue: 1 },
            verification: request.verification.clone(),
        };
        Ok(CompileOutcome::Built(Box::new(Artifacts {
            weights: [b"weights of ", request.version.as_bytes()].concat(),
            plan: [b"plan of ", request.version.as_bytes()].concat(),
            contract: serde_json::to_vec(&contract).unwrap(),
            golden: b"golden".to_vec(),
            verdict: Verdict {
                peak_memory_bytes: 1 << 20,
                size_bytes: 100,
                gflop: 0.1,
                predicted_latency_millis: 1.0,
                ..Verdict::new(VerdictReason::Fits, String::new())
            },
        })))
    }
}

pub struct World {
    pub controller: Arc<Controller>,
    pub source: Arc<Wishes>,
    pub compiler: Arc<Fake>,
    pub store: Arc<dyn GatewayStore>,
    pub registry: Arc<Registry>,
    pub now: u64,
    pub directory: tempfile::TempDir,
}

pub const SYNC: u64 = 10_000;

impl World {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("fleet")).unwrap();
        Self::open(directory, ballast_fleet::now().0, Arc::default()).await
    }

    /// The operator ends and starts again at another time.
    pub async fn restarted(self, later: u64) -> Self {
        let Self { controller, source, store, registry, directory, now, compiler } = self;
        drop((controller, store, registry, compiler));
        Self::open(directory, now + later, source).await
    }

    async fn open(directory: tempfile::TempDir, now: u64, source: Arc<Wishes>) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let root = directory.path().join("state");
        // Threads of the operator before may still be about to let go.
        let state = retry(|| StateDir::open(&root, UnixMillis(now))).await;
        let state = Arc::new(state);
        let store = retry(|| RedbStore::open(&state.path("gateways.redb"), UnixMillis(now))).await;
        let store: Arc<dyn GatewayStore> = Arc::new(store);
        let registry = Arc::new(Registry::open(&state.path("registry")).unwrap());
        let documents = Arc::new(Documents::open(&state.path("assignments")).unwrap());
        let key = Arc::new(SigningKey::generate([7; 32]).unwrap());
        let compiler = Arc::new(Fake::default());
        let fetcher = Fetcher::new(&directory.path().join("fleet"), false, None).unwrap();
        let workers = Workers::new(&state, compiler.clone(), 2);
        let runners = Runners::new(Arc::clone(&state), Arc::clone(&registry), Arc::clone(&key), 1)
            .with_precompile(|_| Ok(b"native".to_vec()));
        let tokens = Tokens::new(Arc::clone(&state), store.clone(), "https://localhost:1".into(), Digest::of(b"ca"));
        let settings = Settings { sync: Duration::from_millis(SYNC), sync_rollout: Duration::from_secs(1) };
        let controller = Controller::new(
            settings,
            state,
            store.clone(),
            Arc::clone(&registry),
            documents,
            source.clone(),
            Arc::new(Builder { fetcher, workers }),
            Arc::new(runners),
            Arc::new(tokens),
            key,
            1,
        )
        .unwrap();
        controller.fill().await.unwrap();
        Self { controller, source, compiler, store, registry, now, directory }
    }

    /// Sets a deployment's wish; `change` edits the YAML's JSON.
    pub fn wish(&self, name: &str, version: &str, change: impl FnOnce(&mut Value)) {
        let model = format!("model {version}");
        std::fs::write(self.directory.path().join(format!("fleet/{version}.onnx")), &model).unwrap();
        let mut object = json!({
            "apiVersion": "ballast.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": "default", "generation": 1},
            "spec": {
                "model": {
                    "version": version,
                    "source": {
                        "uri": format!("file:///{version}.onnx"),
                        "digest": Digest::of(model.as_bytes()).to_string(),
                    },
                },
                "gatewaySelector": {"matchLabels": {"line": "a"}},
                "rollout": {"steps": [{"gateways": "100%"}], "soak": "1s", "silenceDeadline": "60s"},
                "revisionHistoryLimit": 2,
            },
        });
        change(&mut object);
        let object: ModelDeployment = serde_json::from_value(object).unwrap();
        let mut objects = self.source.objects.lock().unwrap();
        objects.complete = true;
        objects.deployments.retain(|d| d.deployment().name != name);
        let created = objects.deployments.len() as u64;
        objects.deployments.push(Deployment { namespace: namespace(), object: Arc::new(object), created });
    }

    pub async fn gateway(&self, id: &str, labels: &[(&str, &str)]) {
        let row = GatewayRow {
            id: id.parse().unwrap(),
            namespace: namespace(),
            token: String::new(),
            display_name: None,
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            keys: vec![Digest::of(id.as_bytes())],
            state: GatewayState::Enrolled,
            facts: facts(),
            facts_digest: None,
            enrolled: UnixMillis(self.now),
            last_seen: None,
            certificate_expires: None,
            target: None,
            assignment: None,
            root_version: 0,
            pointer: None,
            revision: 0,
        };
        self.store.adopt(row).await.unwrap();
    }

    pub async fn pass(&self) {
        let (controller, source, now) = (Arc::clone(&self.controller), Arc::clone(&self.source), self.now);
        tokio::task::spawn_blocking(move || controller.pass(&source.objects(), UnixMillis(now))).await.unwrap();
    }

    /// A gateway's sync with what it says of a release.
    pub async fn sync(&self, id: &str, reports: Vec<ReleaseReport>) -> Dispatched {
        let gateway: GatewayId = id.parse().unwrap();
        let sync = Sync {
            gateway,
            now: UnixMillis(self.now),
            facts_digest: Digest::of(b"facts"),
            facts: Some(facts()),
            root_version: 1,
            assignment: None,
            reports,
        };
        let (mut row, reports) = self.store.sync(sync).await.unwrap();
        let told = self.controller.dispatch(&row, &reports, UnixMillis(self.now)).await;
        if row.target != told.target {
            row.target = told.target.clone(); // as the fleet's server does
            self.store.put(row).await.unwrap();
        }
        told
    }

    /// What the gateway is told of a deployment.
    pub async fn told(&self, id: &str, deployment: &str) -> Option<AssignedDeployment> {
        let assignment = self.sync(id, Vec::new()).await.assignment?;
        assignment.deployments.into_iter().find(|d| d.deployment.name == deployment)
    }

    pub fn record(&self, name: &str) -> Record {
        self.controller.record(&deployment(name)).unwrap()
    }

    pub fn newest(&self, name: &str) -> Release {
        self.record(name).releases.last().unwrap().clone()
    }

    /// Passes, and lets `gateways` do what they are told and vote `state`, until the newest release is in `phase`.
    pub async fn until(&mut self, name: &str, phase: Phase, gateways: &[&str], state: ReleaseState) {
        for _ in 0..400 {
            self.pass().await;
            if self.newest(name).phase == phase {
                return;
            }
            for id in gateways {
                let want = self.told(id, name).await.and_then(|d| d.want);
                let newest = self.newest(name);
                if want.as_ref().is_some_and(|w| Some(w.number) == newest.number) {
                    self.sync(id, vec![report(name, &newest, state)]).await;
                }
            }
            self.now += 100;
            tokio::time::sleep(Duration::from_millis(2)).await; // builds and runners are made beside the passes
        }
        panic!("{:?} of {}: {}", self.newest(name).phase, name, self.newest(name).message);
    }

    /// Rolls a version out everywhere.
    pub async fn rolled_out(&mut self, name: &str, version: &str, gateways: &[&str]) {
        self.wish(name, version, |_| {});
        self.until(name, Phase::Active, gateways, ReleaseState::Active).await;
        assert_eq!(self.newest(name).version, version);
    }

    /// Time goes by with a pass every five seconds.
    pub async fn wait(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now = (self.now + 5_000).min(end);
            self.pass().await;
        }
    }
}

async fn retry<T, E: std::fmt::Debug>(mut open: impl FnMut() -> Result<T, E>) -> T {
    for _ in 0..1000 {
        if let Ok(opened) = open() {
            return opened;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    open().unwrap()
}

pub fn deployment(name: &str) -> DeploymentRef {
    DeploymentRef { namespace: namespace(), name: name.into() }
}

fn facts() -> Facts {
    Facts { arch: "x86_64".into(), os: "linux".into(), memory_bytes: 1 << 30, ..Facts::default() }
}

pub fn report(name: &str, release: &Release, state: ReleaseState) -> ReleaseReport {
    ReleaseReport {
        deployment: deployment(name),
        number: release.number.unwrap(),
        manifest: Digest::of(b"manifest"),
        version: release.version.clone(),
        state,
        reason: (state == ReleaseState::RolledBack).then_some(FailureReason::Trap),
        message: String::new(),
        requests: 1,
        failures: 0,
        rollback_micros: None,
        latency_p99_micros: None,
    }
}
