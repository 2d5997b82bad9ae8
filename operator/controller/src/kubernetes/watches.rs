//! What the API server holds of each kind, kept here as it changes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use ballast_bundle::NamespaceUid;
use ballast_crds::{EnrollmentToken, Gateway, HardwareTarget, ModelDeployment};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::connection::KubernetesError;

/// One object that cannot be understood must not hide all others.
pub type Guarded<K> = DeserializeGuard<K>;

/// A store of each kind. The watches end with this value. Lists are the newest, never what some API server last heard: an
/// object that is missed reads as a wish to withdraw it.
pub struct Watches {
    /// In all namespaces.
    pub deployments: Store<Guarded<ModelDeployment>>,
    /// Of the cluster.
    pub targets: Store<Guarded<HardwareTarget>>,
    /// In all namespaces.
    pub tokens: Store<Guarded<EnrollmentToken>>,
    /// In all namespaces.
    pub gateways: Store<Guarded<Gateway>>,
    /// For their UIDs only.
    namespaces: Store<PartialObjectMeta<Namespace>>,
    _tasks: JoinSet<()>,
}

impl Watches {
    /// Starts them and waits until each has seen all that there is, however long that takes: what is in the way is logged.
    /// `changed` hears of everything from then on.
    pub async fn start(client: &Client, changed: &Arc<Notify>) -> Result<Self, KubernetesError> {
        let mut tasks = JoinSet::new();
        let deployments = watch(&mut tasks, client, changed);
        let targets = watch(&mut tasks, client, changed);
        let tokens = watch(&mut tasks, client, changed);
        let gateways = watch(&mut tasks, client, changed);
        let (namespaces, writer) = reflector::store();
        let stream = watcher(Api::all(client.clone()), watcher::Config::default());
        tasks.spawn(follow("namespaces", stream.default_backoff().reflect(writer), Arc::clone(changed)));
        let watches = Self { deployments, targets, tokens, gateways, namespaces, _tasks: tasks };
        let gone = |error: reflector::store::WriterDropped| KubernetesError::Unreachable {
            doing: "watching objects".into(),
            message: error.to_string(),
        };
        watches.deployments.wait_until_ready().await.map_err(gone)?;
        watches.targets.wait_until_ready().await.map_err(gone)?;
        watches.tokens.wait_until_ready().await.map_err(gone)?;
        watches.gateways.wait_until_ready().await.map_err(gone)?;
        watches.namespaces.wait_until_ready().await.map_err(gone)?;
        Ok(watches)
    }

    /// UIDs of all namespaces by their names.
    pub fn namespaces(&self) -> BTreeMap<String, NamespaceUid> {
        let state = self.namespaces.state();
        state.iter().filter_map(|n| Some((n.name_any(), n.uid()?.parse().ok()?))).collect()
    }
}

fn watch<K>(tasks: &mut JoinSet<()>, client: &Client, changed: &Arc<Notify>) -> Store<Guarded<K>>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Debug + Unpin + Send + Sync,
{
    let (store, writer) = reflector::store();
    let kind = K::plural(&K::DynamicType::default()).into_owned();
    let stream = watcher(Api::<Guarded<K>>::all(client.clone()), watcher::Config::default());
    // Nobody here asks who wrote which field, and that is half of an object.
    let stream = stream.default_backoff().modify(|object| object.meta_mut().managed_fields = None).reflect(writer);
    tasks.spawn(follow(kind, stream, Arc::clone(changed)));
    store
}

async fn follow<T>(
    kind: impl std::fmt::Display,
    stream: impl futures_util::Stream<Item = Result<watcher::Event<T>, watcher::Error>>,
    changed: Arc<Notify>,
) {
    let mut stream = std::pin::pin!(stream);
    let mut said = String::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(_) => {
                said.clear();
                changed.notify_one();
            }
            // Tried again with a growing pause; what was seen stays in force.
            Err(error) => {
                let error = error.to_string();
                if error != said {
                    tracing::warn!("{kind} cannot be watched: {error}; tried again");
                    said = error;
                }
            }
        }
    }
}
