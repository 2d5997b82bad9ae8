//! Statuses on their way to the API server: the newest of each object, written when it differs from what is there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ballast_crds::{API_VERSION, ModelDeployment, ModelDeploymentStatus};
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::FIELD_MANAGER;
use super::connection::ask;
use super::turns::take_next;

/// For so long the watch may be behind what was written; and for so long a status that was refused is not offered again.
const LAG: Duration = Duration::from_secs(10);
/// After a refusal that may pass.
const PAUSE: Duration = Duration::from_secs(2);

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Place {
    namespace: String,
    name: String,
    uid: String,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<BTreeMap<Place, ModelDeploymentStatus>>,
    /// Or refused.
    written: Mutex<HashMap<Place, (ModelDeploymentStatus, Instant)>>,
    more: Notify,
}

/// The way out.
pub(super) struct Statuses {
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

impl Statuses {
    pub(super) fn start(client: &Client) -> Self {
        let shared = Arc::<Shared>::default();
        let mut task = JoinSet::new();
        task.spawn(work(client.clone(), Arc::clone(&shared)));
        Self { shared, _task: task }
    }

    /// `object` as it was read.
    pub(super) fn put(&self, object: &ModelDeployment, status: ModelDeploymentStatus) {
        let place = Place {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
        };
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if object.status.as_ref() == Some(&status) {
            // What waited is older than what is wanted now, which is there.
            waiting.remove(&place);
            return;
        }
        let written = self.shared.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.get(&place).is_some_and(|(last, at)| *last == status && at.elapsed() < LAG) {
            return;
        }
        drop(written);
        waiting.insert(place, status);
        drop(waiting);
        self.shared.more.notify_one();
    }
}

impl Shared {
    /// Not again for a while, unless it is another status by then.
    fn done(&self, place: Place, status: ModelDeploymentStatus) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|_, (_, at)| at.elapsed() < LAG);
        written.insert(place, (status, Instant::now()));
    }
}

async fn work(client: Client, shared: Arc<Shared>) {
    let mut last = None;
    loop {
        let next = take_next(&mut shared.waiting.lock().unwrap_or_else(PoisonError::into_inner), last.as_ref());
        let Some((place, status)) = next else {
            shared.more.notified().await;
            continue;
        };
        last = Some(place.clone());
        // Of the answer only that it came: an object that cannot be understood has a status all the same.
        let api = Api::<PartialObjectMeta<ModelDeployment>>::namespaced(client.clone(), &place.namespace);
        let patch = json!({
            "apiVersion": API_VERSION,
            "kind": "ModelDeployment",
            "metadata": {"name": place.name, "uid": place.uid},
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let doing = format!("the status of ModelDeployment {}/{}", place.namespace, place.name);
        match ask(&doing, api.patch_status(&place.name, &parameters, &Patch::Apply(patch))).await {
            Ok(_) => shared.done(place, status),
            // Another object of that name, or none: nobody wants to know.
            Err(error) if error.is_gone() || error.is_conflict() => {}
            Err(error) if !error.may_pass() => {
                tracing::error!("{error}; it is offered again in {} s", LAG.as_secs());
                shared.done(place, status);
            }
            Err(error) => {
                tracing::warn!("{error}; tried again");
                shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_insert(status);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
