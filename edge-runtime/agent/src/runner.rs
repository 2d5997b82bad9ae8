//! The runner: the only native code that enters a gateway, and only under the runtime role's signature.

use std::collections::BTreeMap;
use std::fs::File;

use ballast_bundle::protocol::FailureReason;
use ballast_bundle::{Contract, Digest, Floors, MAX_STATEMENT_BYTES, ReleaseNumber, TargetName};
use ballast_sandbox::{Engine, EngineProfile, Module};
use serde::{Deserialize, Serialize};

use crate::config::{Config, EngineKind};
use crate::error::in_full;
use crate::facts;
use crate::identity::Roots;
use crate::installed::{InstalledRunner, RunnerRecord};
use crate::loaded::Unloadable;
use crate::state::{StateDir, StateError};
use crate::store::{BlobError, Store};

const FILE: &str = "runner.json";
/// Modules that are remembered as refused.
const MAX_REJECTED: usize = 32;

/// `runner.json`: the runner in force, and those that did not stand the probe.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunnerFile {
    format: u32,
    pub(crate) active: Option<RunnerRecord>,
    /// Modules that were refused here; not tried again under the same conditions.
    rejected: Vec<Digest>,
    /// The conditions that they were refused under, see [`Allowed::conditions`].
    #[serde(default)]
    rejected_under: String,
    /// Of each target that this gateway ever had: below it, a runner is a replay.
    floors: BTreeMap<TargetName, ReleaseNumber>,
}

impl RunnerFile {
    pub(crate) fn read(dir: &StateDir) -> Result<Self, StateError> {
        Ok(dir.read(FILE)?.unwrap_or_else(|| Self {
            format: crate::state::FORMAT,
            active: None,
            rejected: Vec::new(),
            rejected_under: String::new(),
            floors: BTreeMap::new(),
        }))
    }

    /// What was refused on another CPU, or while its owner denied more, is forgotten: a memory card moves from board to board,
    /// and a gateway that goes from one target to another and back needs the runner that it had.
    pub(crate) fn under(mut self, allowed: &Allowed) -> Self {
        let conditions = allowed.conditions();
        if self.rejected_under != conditions {
            self.rejected.clear();
            self.rejected_under = conditions;
        }
        self
    }

    pub(crate) fn write(&self, dir: &StateDir) -> Result<(), StateError> {
        dir.write(FILE, self)
    }

    /// The floors that a new runner is held against.
    pub(crate) fn floors(&self) -> Floors {
        Floors { runners: self.floors.clone(), ..Floors::default() }
    }

    pub(crate) fn refuses(&self, module: &Digest) -> bool {
        self.rejected.contains(module)
    }

    /// This runner from now on; nothing older of its target.
    pub(crate) fn activate(&mut self, runner: &InstalledRunner) {
        self.raise(&runner.statement.target, runner.statement.number);
        self.active = Some(runner.record.clone());
    }

    fn raise(&mut self, target: &TargetName, number: ReleaseNumber) {
        let mut floors = self.floors();
        floors.raise_runner(target, number);
        self.floors = floors.runners;
    }

    pub(crate) fn reject(&mut self, module: Digest) {
        self.rejected.push(module);
        let extra = self.rejected.len().saturating_sub(MAX_REJECTED);
        self.rejected.drain(..extra);
    }
}

/// It cannot run here, however often it is tried.
fn unfit(message: String) -> Unloadable {
    Unloadable { reason: FailureReason::InvalidBundle, message }
}

/// The disk's fault: nothing is known against the runner.
fn damaged(error: BlobError) -> Unloadable {
    Unloadable { reason: FailureReason::VerificationFailed, message: in_full(&error) }
}

/// What the owner of this gateway lets in, and what its CPU has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed {
    denied_features: Vec<String>,
    interpreter_only: bool,
    cpu_features: Vec<String>,
}

impl Allowed {
    /// As configured.
    pub(crate) fn by(config: &Config) -> Self {
        Self {
            denied_features: config.cpu_features.deny.clone(),
            interpreter_only: config.engine == EngineKind::Interpreter,
            cpu_features: facts::allowed_features(config),
        }
    }

    /// Everything that whether a module can run here depends on, the module apart.
    fn conditions(&self) -> String {
        let engine = if self.interpreter_only { "interpreter" } else { "native" };
        format!("{engine} {} {}", std::env::consts::ARCH, self.cpu_features.join(","))
    }

    /// Why code of this profile may not run here.
    fn refuses(&self, profile: &EngineProfile) -> Option<String> {
        if self.interpreter_only && !profile.is_pulley() {
            return Some("the runner is native code, and the owner of this gateway lets none in".to_owned());
        }
        let feature = profile.cpu_features.iter().find(|f| self.denied_features.contains(f))?;
        Some(format!("the runner uses {feature}, which the owner of this gateway denies"))
    }
}

/// A runner, mapped and ready.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) installed: InstalledRunner,
    pub(crate) engine: Engine,
    pub(crate) module: Module,
}

impl Runner {
    /// The runner that was in force before a start, its statement proved again.
    pub(crate) fn again(
        store: &Store,
        roots: &Roots,
        record: RunnerRecord,
        allowed: &Allowed,
    ) -> Result<Self, Unloadable> {
        let bytes = store.read(&record.reference.statement, MAX_STATEMENT_BYTES).map_err(damaged)?;
        let installed = InstalledRunner::verify(&bytes, roots, record).map_err(unfit)?;
        Self::load(store, installed, allowed)
    }

    /// Maps the module. Its bytes are verified through the very file that is mapped.
    pub(crate) fn load(store: &Store, installed: InstalledRunner, allowed: &Allowed) -> Result<Self, Unloadable> {
        let statement = &installed.statement;
        if statement.engine != EngineProfile::engine_version() {
            let has = EngineProfile::engine_version();
            return Err(unfit(format!("the runner was made for {}, and this is {has}", statement.engine)));
        }
        let profile = EngineProfile::new(&statement.triple, statement.cpu_features.clone());
        if let Some(message) = allowed.refuses(&profile) {
            return Err(unfit(message));
        }
        if profile.hash() != statement.profile {
            return Err(unfit("the runner was made for other settings of the engine".to_owned()));
        }
        let engine = Engine::new(&profile).map_err(|e| unfit(e.to_string()))?;
        let file: File = store.open(&statement.module).map_err(damaged)?;
        // SAFETY: the statement is the runtime role's, the store has just compared this open file with the digest that it names,
        // and blobs are written once.
        #[allow(unsafe_code)]
        let module = unsafe { engine.load(&file) }.map_err(|e| unfit(e.to_string()))?;
        Ok(Self { installed, engine, module })
    }

    /// Whether it speaks what a bundle needs.
    pub(crate) fn runs(&self, contract: &Contract) -> Result<(), String> {
        let statement = &self.installed.statement;
        let (has, needs) = (statement.abi, contract.abi);
        if has >> 16 != needs >> 16 || has & 0xffff < needs & 0xffff {
            return Err(format!(
                "it needs runner ABI {}.{}, the runner speaks {}.{}",
                needs >> 16,
                needs & 0xffff,
                has >> 16,
                has & 0xffff
            ));
        }
        if !statement.plan_majors.contains(&contract.plan_major) {
            return Err(format!("it has format {}, the runner runs {:?}", contract.plan_major, statement.plan_majors));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ballast_bundle::Counter;

    use super::*;

    #[test]
    fn what_the_owner_denies_is_refused() {
        let refused = |sets: &[&str], triple: &str| {
            let sets: Vec<_> = sets.iter().map(|s| (*s).to_owned()).collect();
            let empty = tempfile::NamedTempFile::new().unwrap();
            let config = Config::load(Some(empty.path()), [], &sets).unwrap();
            Allowed::by(&config).refuses(&EngineProfile::new(triple, ["avx2"]))
        };
        const X86: &str = "x86_64-unknown-linux-musl";
        assert_eq!(refused(&[], X86), None);
        assert!(refused(&["cpu_features.deny=avx,avx2"], X86).unwrap().contains("uses avx2"));
        assert!(refused(&["engine=interpreter"], X86).unwrap().contains("native code"));
        assert_eq!(refused(&["engine=interpreter"], "pulley64"), None);
        assert_eq!(refused(&["engine=interpreter"], "pulley32"), None);
    }

    #[test]
    fn a_refusal_holds_as_long_as_what_it_was_for() {
        let dir = tempfile::tempdir().unwrap();
        let dir = StateDir::lock(dir.path()).unwrap();
        let read = |allowed: &Allowed| RunnerFile::read(&dir).unwrap().under(allowed);
        let module = Digest::of(b"module");
        let (new, old) = (Allowed { cpu_features: vec!["lse".into()], ..Allowed::default() }, Allowed::default());
        let mut file = read(&old);
        file.reject(module);
        file.write(&dir).unwrap();
        assert!(read(&old).refuses(&module), "the same CPU");
        assert!(!read(&new).refuses(&module), "a newer one");
        assert!(!read(&Allowed { interpreter_only: true, ..old.clone() }).refuses(&module), "another engine");
    }

    /// A gateway that goes from one target to another and back does not forget what the first had.
    #[test]
    fn every_target_keeps_its_floor() {
        let dir = tempfile::tempdir().unwrap();
        let dir = StateDir::lock(dir.path()).unwrap();
        let mut file = RunnerFile::read(&dir).unwrap();
        let target = |name: &str| name.parse::<TargetName>().unwrap();
        let number = |counter| ReleaseNumber { epoch: 1, counter: Counter(counter) };
        for (name, counter) in [("x86-64-v3", 7), ("x86-64", 2), ("x86-64-v3", 5)] {
            file.raise(&target(name), number(counter));
            file.write(&dir).unwrap();
            file = RunnerFile::read(&dir).unwrap();
        }
        assert_eq!(file.floors().runner(&target("x86-64-v3")), number(7));
        assert_eq!(file.floors().runner(&target("x86-64")), number(2));
    }
}
