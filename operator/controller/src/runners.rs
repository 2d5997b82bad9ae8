//! Runners: the one native module that runs every plan, prepared per target and signed under the runtime role.
//!
//! A runner is made when the first gateway of a target appears, and again only when the Wasm module, the engine or the
//! target's engine profile changes: its record names all three.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ballast_aot::{precompile, runner_for};
use ballast_bundle::manifest::{MANIFEST_TYPE, runner_manifest, statement_manifest};
use ballast_bundle::{
    Blob, Counter, Digest, NamespaceUid, RUNNER_PREDICATE, ReleaseNumber, RunnerRef, RunnerStatement, SigningKey,
    TargetName, UnixMillis, sign_runner,
};
use ballast_fleet::registry::{Registry, RegistryError, Repository};
use ballast_sandbox::EngineProfile;
use serde::{Deserialize, Serialize};

use crate::state::{self, StateDir, StateError};
use crate::targets::Target;

/// A runner could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Cranelift.
    #[error("the runner for target {target} could not be compiled: {message}")]
    Compile {
        /// Which.
        target: TargetName,
        /// Why.
        message: String,
    },
    /// Registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Files.
    #[error(transparent)]
    State(#[from] StateError),
}

/// `runners/<target>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    format: u32,
    wasm: Digest,
    profile: Digest,
    engine: String,
    number: ReleaseNumber,
    module: Blob,
    statement: Blob,
}

/// The runner's native code for an engine profile.
pub type Precompile = fn(&EngineProfile) -> Result<Vec<u8>, String>;

fn real(profile: &EngineProfile) -> Result<Vec<u8>, String> {
    precompile(runner_for(profile), profile).map_err(|e| e.to_string())
}

/// Prepared runners.
pub struct Runners {
    state: Arc<StateDir>,
    registry: Arc<Registry>,
    key: Arc<SigningKey>,
    epoch: u32,
    precompile: Precompile,
    ready: Mutex<HashMap<TargetName, Record>>,
}

impl Runners {
    /// Nothing is prepared before it is asked for.
    pub fn new(state: Arc<StateDir>, registry: Arc<Registry>, key: Arc<SigningKey>, epoch: u32) -> Self {
        Self { state, registry, key, epoch, precompile: real, ready: Mutex::default() }
    }

    /// With something else instead of Cranelift.
    #[must_use]
    pub fn with_precompile(mut self, precompile: Precompile) -> Self {
        self.precompile = precompile;
        self
    }

    /// The runner for gateways of a namespace, if it is prepared. Cheap.
    pub fn get(&self, namespace: &NamespaceUid, target: &TargetName) -> Option<RunnerRef> {
        let record = self.ready.lock().unwrap_or_else(PoisonError::into_inner).get(target).cloned()?;
        let repository = Repository::runners(namespace, target);
        (self.registry.has(&repository, &record.module) && self.registry.has(&repository, &record.statement)).then(
            || RunnerRef { repository: repository.to_string(), module: record.module, statement: record.statement },
        )
    }

    /// Prepares the runner for a target and lets a namespace have it. Blocking, for seconds when it is compiled.
    pub fn prepare(&self, namespace: &NamespaceUid, target: &Target, now: UnixMillis) -> Result<(), RunnerError> {
        let profile = EngineProfile::new(&target.triple, &target.cpu_features);
        let path = self.state.path(format!("runners/{}.json", target.name));
        let repository = Repository::runners(namespace, &target.name);
        let known: Option<Record> = state::read_json(&path)?;
        let fits = |r: &Record| {
            r.wasm == Digest::of(runner_for(&profile))
                && r.profile == profile.hash()
                && r.engine == EngineProfile::engine_version()
                && r.number.epoch == self.epoch
        };
        let stored =
            |r: &Record| [&r.module, &r.statement].into_iter().all(|b| self.registry.blob_path(&b.digest).exists());
        let record = match known {
            Some(record) if fits(&record) && stored(&record) => {
                self.registry.link_blob(&repository, &record.module.digest)?;
                self.registry.link_blob(&repository, &record.statement.digest)?;
                record
            }
            known => {
                let last = known.filter(|r| r.number.epoch == self.epoch).map(|r| r.number.counter);
                let record = self.make(&repository, target, &profile, last, now)?;
                state::write_json(&path, &record)?;
                record
            }
        };
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(target.name.clone(), record);
        Ok(())
    }

    fn make(
        &self,
        repository: &Repository,
        target: &Target,
        profile: &EngineProfile,
        last: Option<Counter>,
        now: UnixMillis,
    ) -> Result<Record, RunnerError> {
        let started = std::time::Instant::now();
        let native = (self.precompile)(profile)
            .map_err(|message| RunnerError::Compile { target: target.name.clone(), message })?;
        let module = self.registry.put_blob(repository, &native)?;
        let statement = RunnerStatement {
            number: ReleaseNumber { epoch: self.epoch, counter: Counter::next(last, now.0) },
            target: target.name.clone(),
            triple: profile.triple.clone(),
            cpu_features: profile.cpu_features.clone(),
            profile: profile.hash(),
            engine: EngineProfile::engine_version().to_owned(),
            abi: crate::RUNNER_ABI,
            plan_majors: vec![ballast_plan::MAJOR],
            wasm: Digest::of(runner_for(profile)),
            module: module.clone(),
        };
        let signed = self.registry.put_blob(repository, &sign_runner(&statement, &self.key))?;
        let manifest = runner_manifest(&module, &target.name);
        self.registry.put_blob(repository, &manifest.config)?;
        let subject = self.registry.put_manifest(repository, MANIFEST_TYPE, &manifest.manifest, &["latest"])?;
        let referrer = statement_manifest(&signed, &subject, RUNNER_PREDICATE);
        self.registry.put_manifest(repository, MANIFEST_TYPE, &referrer.manifest, &[])?;
        tracing::info!(target_name = %target.name, bytes = module.size, millis = started.elapsed().as_millis(), "prepared a runner");
        Ok(Record {
            format: 1,
            wasm: statement.wasm,
            profile: statement.profile,
            engine: statement.engine,
            number: statement.number,
            module,
            statement: signed,
        })
    }
}

#[cfg(test)]
mod tests {
    use ballast_aot::{RUNNER_WASM, RUNNER_WASM_MULADD};

    use super::*;
    use crate::targets::Targets;

    /// Of the runner that is made for a built-in target, the digest of its Wasm.
    fn wasm_of(target: &str) -> Digest {
        let directory = tempfile::tempdir().unwrap();
        let now = UnixMillis(1_700_000_000_000);
        let state = Arc::new(StateDir::open(directory.path(), now).unwrap());
        let registry = Arc::new(Registry::open(&directory.path().join("registry")).unwrap());
        let key = Arc::new(SigningKey::generate([7; 32]).unwrap());
        let runners = Runners::new(Arc::clone(&state), registry, key, 1);
        let name: TargetName = target.parse().unwrap();
        let targets = Targets::new(&[]);
        let namespace: NamespaceUid = "a".parse().unwrap();
        runners.prepare(&namespace, targets.get(&name).unwrap(), now).unwrap();
        assert!(runners.get(&namespace, &name).is_some());
        let record: Record = state::read_json(&state.path(format!("runners/{target}.json"))).unwrap().unwrap();
        record.wasm
    }

    #[test]
    fn targets_without_fast_relaxed_simd_get_the_flavour_without_it() {
        assert_eq!(wasm_of("x86-64-v3"), Digest::of(RUNNER_WASM));
        assert_eq!(wasm_of("x86-64"), Digest::of(RUNNER_WASM_MULADD));
        assert_eq!(wasm_of("pulley64"), Digest::of(RUNNER_WASM_MULADD));
    }
}
