//! The runner: the only native code that enters a gateway, and only under the runtime role's signature.

use std::fs::File;

use ballast_bundle::{Contract, Digest, RunnerRef, RunnerStatement, TargetName};
use ballast_sandbox::{Engine, EngineProfile, Module};
use serde::{Deserialize, Serialize};

use crate::blobs::Store;

/// `runner.json`: the runner in force, and those that did not stand the probe.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunnerFile {
    pub(crate) format: u32,
    pub(crate) active: Option<RunnerRecord>,
    /// Modules that were refused here; never tried again.
    pub(crate) rejected: Vec<Digest>,
}

/// A runner that was verified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunnerRecord {
    pub(crate) reference: RunnerRef,
    pub(crate) statement: RunnerStatement,
    pub(crate) target: TargetName,
}

/// A runner, mapped and ready.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) record: RunnerRecord,
    pub(crate) engine: Engine,
    pub(crate) module: Module,
}

impl Runner {
    /// Maps the module. Its bytes are verified through the very file that is mapped.
    pub(crate) fn load(store: &Store, record: RunnerRecord, denied: &[String]) -> Result<Self, String> {
        let statement = &record.statement;
        if statement.engine != EngineProfile::engine_version() {
            let has = EngineProfile::engine_version();
            return Err(format!("the runner was made for {}, and this is {has}", statement.engine));
        }
        if let Some(feature) = statement.cpu_features.iter().find(|f| denied.contains(f)) {
            return Err(format!("the runner uses {feature}, which the owner of this gateway denies"));
        }
        let profile = EngineProfile::new(&statement.triple, statement.cpu_features.clone());
        if profile.hash() != statement.profile {
            return Err("the runner was made for other settings of the engine".to_owned());
        }
        let engine = Engine::new(&profile).map_err(|e| e.to_string())?;
        let file: File = store.open(&statement.module).map_err(|e| e.to_string())?;
        // SAFETY: the statement is the runtime role's, the store has just compared this open file with the digest that it names,
        // and blobs are written once.
        #[allow(unsafe_code)]
        let module = unsafe { engine.load(&file) }.map_err(|e| e.to_string())?;
        Ok(Self { record, engine, module })
    }

    /// Whether it speaks what a bundle needs.
    pub(crate) fn runs(&self, contract: &Contract) -> Result<(), String> {
        let statement = &self.record.statement;
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
