//! What is written into a ModelDeployment itself: its counter and its finalizer, in one write, before anything is signed;
//! and the finalizer's end, once no gateway is told of it any more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ballast_bundle::Counter;
use ballast_crds::{API_VERSION, ModelDeployment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::connection::{KubernetesError, ask};
use super::turns::take_next;
use super::{COUNTER_ANNOTATION, FIELD_MANAGER, FINALIZER};

/// After a refusal that may pass.
const PAUSE: Duration = Duration::from_secs(2);
/// After any other refusal, for that object.
const HELD_BACK: Duration = Duration::from_secs(10);

/// Whether an object waits for us.
pub(super) fn is_held(meta: &ObjectMeta) -> bool {
    meta.finalizers.as_ref().is_some_and(|list| list.iter().any(|name| name == FINALIZER))
}

/// Of answers nobody needs more than that they came: what they hold may not be understood.
fn api(client: &Client, meta: &ObjectMeta) -> Api<PartialObjectMeta<ModelDeployment>> {
    Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default())
}

/// Whether an object as it was read holds this very counter, and waits for us. A higher one is not ours: whoever gave it out
/// believes that it operates.
fn is_kept(meta: &ObjectMeta, counter: Counter) -> bool {
    let annotation = meta.annotations.as_ref().and_then(|all| all.get(COUNTER_ANNOTATION));
    is_held(meta) && annotation.and_then(|text| text.parse().ok()) == Some(counter.0)
}

/// Writes a counter, unless the object holds it already. The precondition is the object as it was read: of
/// two operators that both believe in themselves, one is refused.
pub(super) async fn reserve(client: &Client, meta: &ObjectMeta, counter: Counter) -> Result<(), KubernetesError> {
    if is_kept(meta, counter) {
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
    /// By UID, since when.
    refused: Mutex<HashMap<String, Instant>>,
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
        let uid = meta.uid.clone().unwrap_or_default();
        let refused = self.waiting.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.get(&uid).is_some_and(|since| since.elapsed() < HELD_BACK) {
            return;
        }
        drop(refused);
        let mut objects = self.waiting.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.insert(uid, meta);
        drop(objects);
        self.waiting.more.notify_one();
    }
}

async fn work(client: Client, waiting: Arc<Waiting>) {
    let mut last = None;
    loop {
        let next = take_next(&mut waiting.objects.lock().unwrap_or_else(PoisonError::into_inner), last.as_ref());
        let Some((uid, meta)) = next else {
            waiting.more.notified().await;
            continue;
        };
        last = Some(uid.clone());
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
            Err(error) if !error.may_pass() => {
                tracing::error!("{error}; tried again in {} s", HELD_BACK.as_secs());
                let mut refused = waiting.refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.retain(|_, since| since.elapsed() < HELD_BACK);
                refused.insert(uid, Instant::now());
            }
            Err(error) => {
                tracing::warn!("{error}; tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_counter_on_an_object_that_waits_is_kept() {
        let meta = |finalizer: &str, counter: &str| ObjectMeta {
            finalizers: Some(vec![finalizer.to_owned()]),
            annotations: Some(BTreeMap::from([(COUNTER_ANNOTATION.to_owned(), counter.to_owned())])),
            ..ObjectMeta::default()
        };
        assert!(is_kept(&meta(FINALIZER, "7"), Counter(7)));
        for (finalizer, counter) in
            [("another/finalizer", "7"), (FINALIZER, "6"), (FINALIZER, "8"), (FINALIZER, "seven")]
        {
            assert!(!is_kept(&meta(finalizer, counter), Counter(7)), "{finalizer} {counter}");
        }
        assert!(!is_kept(&ObjectMeta::default(), Counter(7)));
    }
}
