//! [`DirectorySource`] as the controller's [`Source`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ballast_bundle::{GatewayId, NamespaceUid};
use ballast_crds::{EnrollmentToken, Gateway, HardwareTarget, ModelDeployment, ModelDeploymentStatus};
use ballast_fleet::BoxFuture;
use kube::ResourceExt as _;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::directory::{Change, DirectorySource};
use super::store::{Identity, Stored};
use crate::events::Event;
use crate::objects::{Deployment, Objects, Overlay, Source, SourceProblem, wish};
use crate::state::StateDir;

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_millis(400);

/// The source, and the state directory that holds its store for as long as it is used.
struct Directory {
    source: Mutex<DirectorySource>,
    changed: Notify,
    _state: Arc<StateDir>,
}

/// Opens a directory; its first look is done, and it is looked at from now on for as long as somebody uses the source.
/// Call it within a tokio runtime.
pub fn open(directory: &Path, state: Arc<StateDir>) -> anyhow::Result<Arc<dyn Source>> {
    let mut source = DirectorySource::open(directory, &state.path(""))?;
    source.poll(ballast_fleet::now())?;
    for problem in source.problems() {
        tracing::warn!("{problem}");
    }
    let opened = Arc::new(Directory { source: Mutex::new(source), changed: Notify::new(), _state: state });
    tokio::spawn(watch(Arc::downgrade(&opened)));
    Ok(opened)
}

/// A task of its own: the controller waits for several things at once and gives each wait up when another one ends.
async fn watch(directory: Weak<Directory>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(directory) = directory.upgrade() else { return };
        // A look is a few stat calls; it reads and writes only when something changed.
        let looked = tokio::task::spawn_blocking(move || {
            if directory.look() {
                directory.changed.notify_one();
            }
        });
        if let Err(error) = looked.await {
            tracing::error!("a look at the directory was cut off; the next one goes on: {error}");
        }
    }
}

impl Directory {
    /// Every change of the source is one call, whole or not done: a panic in the middle leaves nothing half done.
    fn source(&self) -> MutexGuard<'_, DirectorySource> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks once; whether anything that the controller sees changed.
    fn look(&self) -> bool {
        let mut source = self.source();
        let (problems, whole) = (source.problems().to_vec(), source.is_whole());
        let changes = source.poll(ballast_fleet::now()).unwrap_or_else(|error| {
            tracing::error!("objects cannot be kept: {error}");
            Vec::new()
        });
        for change in &changes {
            match change {
                Change::Put(identity) => tracing::info!("{identity} accepted"),
                Change::Removed(identity) => tracing::info!("{identity} removed"),
            }
        }
        let known: BTreeSet<_> = problems.iter().collect();
        for problem in source.problems().iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!("{problem}");
        }
        !changes.is_empty() || source.problems() != problems || source.is_whole() != whole
    }
}

fn typed<T: DeserializeOwned>(stored: &Stored) -> Option<T> {
    serde_json::from_value(stored.complete())
        .inspect_err(|error| tracing::error!("{} was admitted and cannot be understood: {error}", stored.identity))
        .ok()
}

impl Source for Directory {
    fn namespace(&self, name: &str) -> Result<NamespaceUid, String> {
        self.source().namespace(name).map_err(|error| error.to_string())
    }

    fn namespaces(&self) -> BTreeMap<NamespaceUid, String> {
        self.source().namespaces()
    }

    fn objects(&self) -> Objects {
        let mut source = self.source();
        let stored: Vec<Stored> = source.objects().cloned().collect();
        let mut objects = Objects { complete: source.is_whole(), ..Objects::default() };
        for stored in &stored {
            let kind = stored.identity.kind.as_str();
            if kind == "HardwareTarget" {
                objects.targets.extend(typed::<HardwareTarget>(stored));
                continue;
            }
            let namespace = match source.namespace(&stored.identity.namespace) {
                Ok(namespace) => namespace,
                Err(error) => {
                    tracing::error!("namespace {}: {error}", stored.identity.namespace);
                    objects.complete = false;
                    continue;
                }
            };
            let created = stored.created.0;
            match kind {
                "ModelDeployment" => {
                    objects.deployments.extend(typed::<ModelDeployment>(stored).map(|object| Deployment {
                        namespace,
                        object: Arc::new(object),
                        created,
                    }))
                }
                "EnrollmentToken" => {
                    objects
                        .tokens
                        .extend(typed::<EnrollmentToken>(stored).map(|token| (namespace, Arc::new(token), created)));
                }
                "Gateway" => objects.gateways.extend(typed::<Gateway>(stored).and_then(|gateway| {
                    let id: GatewayId = gateway.name_any().parse().ok()?;
                    Some((namespace, id, wish(gateway)))
                })),
                _ => {}
            }
        }
        objects
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.changed.notified())
    }

    fn put_status(&self, deployment: &Deployment, status: ModelDeploymentStatus) {
        let written = serde_json::to_value(status).map_err(|error| error.to_string()).and_then(|status| {
            self.source().put_status(&identity(deployment), status).map_err(|error| error.to_string())
        });
        if let Err(error) = written {
            tracing::error!("status of {} cannot be kept: {error}", deployment.deployment());
        }
    }

    fn put_event(&self, deployment: &Deployment, event: Event) {
        if let Err(error) = self.source().put_event(&identity(deployment), event) {
            tracing::error!("an event of {} cannot be kept: {error}", deployment.deployment());
        }
    }

    fn events(&self, deployment: &Deployment) -> Vec<Event> {
        self.source().events(&identity(deployment)).unwrap_or_else(|error| {
            tracing::error!("events of {} cannot be read: {error}", deployment.deployment());
            Vec::new()
        })
    }

    fn overlay(&self, deployment: &Deployment, overlay: Overlay) -> Result<(), String> {
        self.source().overlay(&identity(deployment), |fields, own| match overlay {
            Overlay::Paused(paused) => fields.with_paused(own, Some(paused)),
            Overlay::Resume(retry) => fields.with_paused(own, Some(false)).with_retry(retry),
            Overlay::Retry(retry) => fields.with_retry(retry),
            Overlay::Model(model) => fields.with_model(own, model),
        })?;
        // Whoever asks next sees the object's new generation: what status says of the old one is no answer to this wish.
        if self.look() {
            self.changed.notify_one();
        }
        Ok(())
    }

    fn problems(&self) -> Vec<String> {
        self.source().problems().iter().map(ToString::to_string).collect()
    }

    fn problems_of(&self, deployment: &Deployment) -> Vec<SourceProblem> {
        let source = self.source();
        let found = source.get(&identity(deployment)).into_iter().flat_map(|stored| source.problems_of(stored));
        found
            .map(|problem| SourceProblem {
                file: problem.file.display().to_string(),
                line: problem.line,
                message: problem.message.clone(),
            })
            .collect()
    }
}

fn identity(deployment: &Deployment) -> Identity {
    Identity {
        kind: "ModelDeployment".into(),
        namespace: deployment.namespace_name(),
        name: deployment.object.name_any(),
    }
}
