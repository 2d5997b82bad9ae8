//! What the controller must remember of a deployment: counters, releases, `stable`. One file each, whole or absent:
//! `deployments/<namespace UID>/<name>.json`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use ballast_bundle::{
    Counter, DeploymentRef, Digest, Escalation, ReleaseNumber, ReleaseRef, TargetName, TrialPolicy, UnixMillis,
};
use ballast_crds::GoldenOrigin;
use ballast_crds::conditions::Reason;
use serde::{Deserialize, Serialize};

use crate::rollout::{Counts, RolloutState};
use crate::state::{self, StateDir, StateError};
use crate::wanted::Selector;

/// Where a release is, or what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Sources are fetched and compiled.
    Compiling,
    /// Signed; gateways take it step by step.
    RollingOut,
    /// It passed its last step.
    Active,
    /// It failed on gateways and was withdrawn.
    RolledBack,
    /// Nothing was signed.
    Refused,
    /// A newer one took its place.
    Superseded,
    /// It failed and waits for a person (`onFailure: Pause`), or a person stopped it.
    Paused,
}

impl Phase {
    /// No longer tried.
    pub const fn is_over(self) -> bool {
        match self {
            Self::RolledBack | Self::Refused | Self::Superseded => true,
            Self::Compiling | Self::RollingOut | Self::Active | Self::Paused => false,
        }
    }
}

/// A release for one target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetBuild {
    /// `Fits`, or why not.
    pub verdict: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The variant that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Of the whole bundle.
    #[serde(default)]
    pub size_bytes: u64,
    /// Of one instance.
    #[serde(default)]
    pub peak_memory_bytes: u64,
    /// Per inference.
    #[serde(default)]
    pub gflop: f64,
    /// On this target's figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_latency_millis: Option<f64>,
    /// Of each of several shapes, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shapes: Vec<String>,
    /// With every instance and the spare.
    #[serde(default)]
    pub serving_memory_bytes: u64,
    /// As given or derived.
    #[serde(default)]
    pub deadline_millis: u64,
    /// Of the user's golden vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<String>,
    /// For `spec.model.inputs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// Whose golden outputs it was proved against; absent when nothing was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<GoldenOrigin>,
    /// `operator (node)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsupported_operators: Vec<String>,
    /// Set once it is signed and in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseRef>,
}

/// One publication of a deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Hash of model, runtime, verification and targets.
    pub identity: Digest,
    /// `spec.model.version`.
    pub version: String,
    /// Durable before anything is signed under it; a refused release never got one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<ReleaseNumber>,
    /// Where it is.
    pub phase: Phase,
    /// A condition's reason.
    pub reason: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// When it was begun.
    pub created: UnixMillis,
    /// Since when it is in its phase.
    pub since: UnixMillis,
    /// What was built.
    #[serde(default)]
    pub targets: BTreeMap<TargetName, TargetBuild>,
    /// For the gateways.
    pub trial: TrialPolicy,
    /// The planner's memory of the rollout.
    #[serde(default)]
    pub rollout: RolloutState,
    /// Newest counts; the last word on a release that is over.
    #[serde(default)]
    pub counts: Counts,
    /// What the first gateway said that failed on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How often a person let it go on after a halt.
    #[serde(default)]
    pub resumes: u32,
    /// Gateways that ran it on live requests.
    #[serde(default)]
    pub reached: u64,
    /// Slowest way back on any gateway, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_micros: Option<u64>,
    /// `spec.model`, for an undo.
    pub model: serde_json::Value,
}

impl Release {
    /// Moves to another phase; the time of the move is kept only when it is one.
    pub fn enter(&mut self, phase: Phase, reason: Reason, message: impl Into<String>, now: UnixMillis) {
        if self.phase != phase {
            self.phase = phase;
            self.since = now;
        }
        self.reason = reason.as_str().to_owned();
        self.message = message.into();
    }

    /// It finished its steps once and was not found bad: a release to go back to.
    pub fn is_proven(&self) -> bool {
        matches!(self.phase, Phase::Active | Phase::Superseded)
            && self.number.is_some()
            && self.rollout.is_complete()
            && self.rollout.halted().is_none()
    }

    /// It failed, and waits for a person.
    pub const fn is_halted(&self) -> bool {
        matches!(self.phase, Phase::Paused) && self.rollout.halted().is_some()
    }

    /// Why it is where it is.
    pub fn reason(&self) -> Reason {
        Reason::ALL.iter().copied().find(|r| r.as_str() == self.reason).unwrap_or(Reason::Accepted)
    }

    /// What a gateway of this target would run.
    pub fn for_target(&self, target: &TargetName) -> Option<&ReleaseRef> {
        self.targets.get(target)?.release.as_ref()
    }
}

/// A failure on a gateway, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Where.
    pub gateway: String,
    /// Of which release (version).
    pub release: String,
    /// Of the gateway's report.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// When the report came.
    pub time: UnixMillis,
}

/// All that is remembered of one deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// 1.
    pub format: u32,
    /// Whose.
    pub deployment: DeploymentRef,
    /// The namespace's name, for people.
    pub namespace_name: String,
    /// The highest counter that was ever given out.
    #[serde(default)]
    pub last_counter: Option<Counter>,
    /// Oldest first, newest last.
    #[serde(default)]
    pub releases: Vec<Release>,
    /// The last release that finished its steps.
    #[serde(default)]
    pub stable: Option<ReleaseNumber>,
    /// Newest first, at most 10.
    #[serde(default)]
    pub failures: Vec<Failure>,
    /// As it was served last: what goes on when the object cannot be acted on any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<Served>,
}

/// What is needed besides its releases to go on serving a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// The name it is served under.
    pub model: String,
    /// Which gateways.
    pub selector: Selector,
    /// The release that gateways take step by step, or took.
    pub update: Option<ReleaseNumber>,
    /// For gateways that try it.
    pub trial: TrialPolicy,
    /// Which answers the cloud is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalation: Option<Escalation>,
}

impl Record {
    /// Of a deployment that was never seen.
    pub fn new(deployment: DeploymentRef, namespace_name: String) -> Self {
        Self {
            format: 1,
            deployment,
            namespace_name,
            last_counter: None,
            releases: Vec::new(),
            stable: None,
            failures: Vec::new(),
            served: None,
        }
    }

    /// The release that finished its steps last.
    pub fn stable(&self) -> Option<&Release> {
        let stable = self.stable?;
        self.releases.iter().find(|r| r.number == Some(stable))
    }

    /// The newest release, other than the stable one, that once finished its steps and was not found bad.
    pub fn previous_stable(&self) -> Option<ReleaseNumber> {
        self.releases.iter().rev().find(|r| r.number != self.stable && r.is_proven()).and_then(|r| r.number)
    }

    /// Drops releases that are over and neither among the newest (`keep` besides the last one), nor stable, nor what a fleet
    /// would go back to from there, nor what is wanted now (a rolled back one that was forgotten would be tried again), nor
    /// `held` by a gateway, which may have to fetch damaged bytes again.
    pub fn prune(&mut self, keep: usize, wanted: &Digest, held: impl Fn(ReleaseNumber) -> bool) {
        let mut older = self.releases.len().saturating_sub(keep.max(1) + 1);
        let (stable, previous) = (self.stable, self.previous_stable());
        self.releases.retain(|release| {
            let old = older > 0;
            older = older.saturating_sub(1);
            !old || !release.phase.is_over()
                || release.identity == *wanted
                || release.number.is_some_and(|n| Some(n) == stable || Some(n) == previous || held(n))
        });
    }

    /// Manifests and statements of every release that is kept.
    pub fn named(&self) -> HashSet<Digest> {
        let references = self.releases.iter().flat_map(|r| r.targets.values()).filter_map(|t| t.release.as_ref());
        references.flat_map(|r| [r.manifest.digest, r.statement.digest]).collect()
    }
}

fn path(state: &StateDir, deployment: &DeploymentRef) -> PathBuf {
    state.path(format!("deployments/{}/{}.json", deployment.namespace, deployment.name))
}

/// Makes a record durable. Blocking.
pub fn save(state: &StateDir, record: &Record) -> Result<(), StateError> {
    state::write_json(&path(state, &record.deployment), record)
}

/// Forgets a deployment. Blocking.
pub fn remove(state: &StateDir, deployment: &DeploymentRef) -> Result<(), StateError> {
    let path = path(state, deployment);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StateError::File { doing: "removed", path, source })
        }
        _ => Ok(()),
    }
}

/// All records. Blocking.
pub fn load_all(state: &StateDir) -> Result<Vec<Record>, StateError> {
    let root = state.path("deployments");
    let mut records = Vec::new();
    for namespace in entries(&root)? {
        for file in entries(&namespace)? {
            if file.extension().is_some_and(|e| e == "json")
                && let Some(record) = state::read_json::<Record>(&file)?
            {
                if record.format != 1 {
                    return Err(StateError::Damaged { path: file, message: format!("format {}", record.format) });
                }
                records.push(record);
            }
        }
    }
    Ok(records)
}

fn entries(directory: &std::path::Path) -> Result<Vec<PathBuf>, StateError> {
    let fail = |source| StateError::File { doing: "listed", path: directory.into(), source };
    match std::fs::read_dir(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(fail(e)),
        Ok(list) => list.map(|e| e.map(|e| e.path()).map_err(fail)).collect(),
    }
}
