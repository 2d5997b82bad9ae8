//! From a wish to artifacts: fetch the variants' sources, compile for each target, take the first variant that fits.
//! No keys here; nothing is signed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use ballast_bundle::TargetName;
use ballast_compiler::{Artifacts, CompileOutcome, CompileRequest, Verdict, VerdictReason, archive};

use crate::compilation::Compilation;
use crate::fetch::{FetchError, Fetcher, MAX_GOLDEN, MAX_MODEL};
use crate::targets::Target;
use crate::wanted::{SourceRef, Wanted};
use crate::workers::{BuildError, Workers};

/// No build, for a reason that is not a verdict.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BuilderError {
    /// A source.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A worker.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// What was built could not be brought into the registry, or not be held against what is there.
    #[error("{0}; it is tried again")]
    Registry(String),
}

/// One target's outcome.
#[derive(Debug, Clone)]
pub struct Built {
    /// The variant that was taken, or the first one when none fits.
    pub variant: String,
    /// Of that variant.
    pub verdict: Verdict,
    /// `None` = does not fit.
    pub artifacts: Option<Arc<Artifacts>>,
}

/// All targets' outcomes.
pub type Builds = BTreeMap<TargetName, Built>;

/// For people who wait: how far it is.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<String>>);

impl Progress {
    /// What is being done now.
    pub fn say(&self, text: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text.into();
    }

    /// The last word.
    pub fn last(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Builds a release's artifacts.
pub struct Builder {
    /// Reads sources.
    pub fetcher: Fetcher,
    /// Compile.
    pub workers: Workers,
}

impl Builder {
    /// Compiles `wanted` for all of `targets`, several at a time as the pool allows.
    pub async fn build(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        targets: Vec<Target>,
        progress: &Progress,
    ) -> Result<Builds, BuilderError> {
        progress.say("fetching sources");
        let golden = match &wanted.golden {
            Some(source) => Some(Arc::new(self.read(source, MAX_GOLDEN).await?)),
            None => None,
        };
        // Each source once, though many targets compile it.
        let mut models = BTreeMap::<SourceRef, Arc<Vec<u8>>>::new();
        for variant in &wanted.variants {
            if let Entry::Vacant(place) = models.entry(variant.source.clone()) {
                place.insert(Arc::new(self.read_model(&variant.source).await?));
            }
        }
        let (models, count) = (Arc::new(models), targets.len());
        let mut running = tokio::task::JoinSet::new();
        progress.say(format!("compiling for {count} targets"));
        for target in targets {
            let (builder, wanted, models, golden) =
                (Arc::clone(self), Arc::clone(wanted), Arc::clone(&models), golden.clone());
            running.spawn(async move {
                let name = target.name.clone();
                builder.for_target(&wanted, &target, &models, golden).await.map(|built| (name, built))
            });
        }
        let mut builds = Builds::new();
        while let Some(finished) = running.join_next().await {
            let (name, built) = finished.map_err(|e| BuildError::Failed(e.to_string()))??;
            builds.insert(name, built);
            progress.say(format!("compiled for {} of {count} targets", builds.len()));
        }
        Ok(builds)
    }

    async fn read(&self, source: &SourceRef, limit: u64) -> Result<Vec<u8>, FetchError> {
        self.fetcher.fetch(&source.uri, source.digest, limit).await
    }

    /// A model, with the files beside it as one piece.
    async fn read_model(&self, source: &SourceRef) -> Result<Vec<u8>, BuilderError> {
        let model = self.read(source, MAX_MODEL).await?;
        let mut left = MAX_MODEL.saturating_sub(model.len() as u64);
        let mut files = BTreeMap::new();
        for (path, digest) in &source.files {
            let content = self.fetcher.fetch(&source.beside(path), *digest, left).await?;
            left = left.saturating_sub(content.len() as u64);
            files.insert(path.clone(), content);
        }
        archive::pack(model, &files)
            .map_err(|e| FetchError::Uri { uri: source.uri.clone(), message: e.to_string() }.into())
    }

    async fn for_target(
        &self,
        wanted: &Wanted,
        target: &Target,
        models: &BTreeMap<SourceRef, Arc<Vec<u8>>>,
        golden: Option<Arc<Vec<u8>>>,
    ) -> Result<Built, BuilderError> {
        let mut first = None;
        for variant in &wanted.variants {
            let Some(model) = models.get(&variant.source) else { continue };
            let request = CompileRequest {
                model: Vec::new(),
                model_name: wanted.model.clone(),
                version: wanted.version.clone(),
                variant: variant.name.clone(),
                target: target.spec.clone(),
                inputs: wanted.inputs.clone(),
                runtime: wanted.runtime_for(&target.name),
                verification: wanted.verification.clone(),
                golden: None,
            };
            let compilation = Compilation { request, model: Arc::clone(model), golden: golden.clone() };
            let started = std::time::Instant::now();
            let outcome = self.workers.compile(&wanted.deployment.namespace, compilation).await?;
            let millis = started.elapsed().as_millis();
            match outcome {
                CompileOutcome::Built(artifacts) => {
                    tracing::info!(deployment = %wanted.deployment, version = wanted.version, target_name = %target.name, variant = variant.name, millis, "compiled");
                    let verdict = artifacts.verdict.clone();
                    return Ok(Built { variant: variant.name.clone(), verdict, artifacts: Some(Arc::from(artifacts)) });
                }
                CompileOutcome::Refused(verdict) => {
                    tracing::info!(deployment = %wanted.deployment, version = wanted.version, target_name = %target.name, variant = variant.name, reason = ?verdict.reason, millis, "does not fit");
                    // A model that gives wrong answers is not cured by taking its next form.
                    let wrong = verdict.reason == VerdictReason::GoldenMismatch;
                    let built = Built { variant: variant.name.clone(), verdict, artifacts: None };
                    if wrong {
                        return Ok(built);
                    }
                    first.get_or_insert(built);
                }
            }
        }
        first.ok_or_else(|| BuildError::Failed("the model has no variants".into()).into())
    }
}
