//! What is written into a ModelDeployment itself: its counter and its finalizer, in one write, before anything is signed;
//! and the finalizer's end, once no gateway is told of it any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_bundle::Counter;
use ballast_crds::{API_VERSION, ModelDeployment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::connection::{KubernetesError, ask};
use super::{COUNTER_ANNOTATION, FIELD_MANAGER, FINALIZER};

/// After a refusal that may pass.
const PAUSE: Duration = Duration::from_secs(2);

/// Whether an object waits for us.
pub(super) fn is_held(meta: &ObjectMeta) -> bool {
    meta.finalizers.as_ref().is_some_and(|list| list.iter().any(|name| name == FINALIZER))
}

fn api(client: &Client, meta: &ObjectMeta) -> Api<ModelDeployment> {
    Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default())
}

/// Writes a counter, unless the object holds it or a higher one already. The precondition is the object as it was read: of
/// two operators that both believe in themselves, one is refused.
pub(super) async fn reserve(client: &Client, meta: &ObjectMeta, counter: Counter) -> Result<(), KubernetesError> {
    let known =
        meta.annotations.as_ref().and_then(|all| all.get(COUNTER_ANNOTATION)).and_then(|text| text.parse().ok());
    if is_held(meta) && known.is_some_and(|known: u64| known >= counter.0) {
        return Ok(());
    }
    let name = meta.name.as_deref().unwrap_or_default();
    let patch = json!({
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {
            "name": name,
            // Applying would make what is gone.
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
            "finalizers": [FINALIZER],
            "annotations": {COUNTER_ANNOTATION: counter.0.to_string()},
        },
    });
    let (api, parameters) = (api(client, meta), PatchParams::apply(FIELD_MANAGER).force());
    let doing = format!("keeping the counter {} of {name}", counter.0);
    ask(&doing, api.patch(name, &parameters, &Patch::Apply(patch))).await.map(drop)
}

/// Lets go of objects that nobody is told of any more.
pub(super) struct Finalizers {
    waiting: Arc<Waiting>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Waiting {
    /// By UID, as last seen.
    objects: Mutex<BTreeMap<String, ObjectMeta>>,
    more: Notify,
}

impl Finalizers {
    pub(super) fn start(client: &Client) -> Self {
        let waiting = Arc::<Waiting>::default();
        let mut task = JoinSet::new();
        task.spawn(work(client.clone(), Arc::clone(&waiting)));
        Self { waiting, _task: task }
    }

    /// Soon; asked again by every pass until it is done.
    pub(super) fn release(&self, meta: ObjectMeta) {
        let mut objects = self.waiting.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.insert(meta.uid.clone().unwrap_or_default(), meta);
        drop(objects);
        self.waiting.more.notify_one();
    }
}

async fn work(client: Client, waiting: Arc<Waiting>) {
    loop {
        let next = waiting.objects.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
        let Some((_, meta)) = next else {
            waiting.more.notified().await;
            continue;
        };
        let name = meta.name.clone().unwrap_or_default();
        let others = meta.finalizers.iter().flatten().filter(|name| *name != FINALIZER);
        let patch = json!({"metadata": {
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
            "finalizers": others.collect::<Vec<_>>(),
        }});
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let api = api(&client, &meta);
        match ask(&format!("letting go of {name}"), api.patch(&name, &parameters, &Patch::Merge(patch))).await {
            Ok(_) => tracing::info!("ModelDeployment {name}: no gateway is told of it any more"),
            // Gone, or not as it was read: the next pass asks again, with what it is by then.
            Err(error) if error.is_gone() || error.is_conflict() => {}
            Err(error) => {
                tracing::warn!("{error}; tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
