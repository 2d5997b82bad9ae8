//! The API server as the controller's [`Source`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use ballast_bundle::{Counter, DeploymentRef, GatewayId, NamespaceUid};
use ballast_crds::{EnrollmentToken, ModelDeployment, ModelDeploymentStatus, RETRY_ANNOTATION};
use ballast_fleet::BoxFuture;
use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt as _};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::connection::{Connection, KubernetesError};
use super::events::Events;
use super::finalizer::{self, Finalizers};
use super::statuses::Statuses;
use super::watches::Watches;
use super::{COUNTER_ANNOTATION, secrets};
use crate::events::{self, Event};
use crate::objects::{Deployment, Objects, Overlay, Source, SourceProblem, StandingToken, wish};

struct Kubernetes {
    connection: Connection,
    watches: Watches,
    statuses: Statuses,
    finalizers: Finalizers,
    events: Events,
    changed: Arc<Notify>,
    runtime: Handle,
    /// Of each object by its UID: what is in force while what is there now cannot be understood.
    understood: Mutex<HashMap<String, Deployment>>,
    /// Since this start; the API server keeps them for people.
    said: Mutex<HashMap<DeploymentRef, Vec<Event>>>,
}

/// Watches everything, and returns when all that there is was seen.
pub async fn open(connection: Connection) -> Result<Arc<dyn Source>, KubernetesError> {
    let changed = Arc::new(Notify::new());
    let watches = Watches::start(&connection.client, &changed).await?;
    Ok(Arc::new(Kubernetes {
        statuses: Statuses::start(&connection.client),
        finalizers: Finalizers::start(&connection.client),
        events: Events::start(&connection.client),
        watches,
        connection,
        changed,
        runtime: Handle::current(),
        understood: Mutex::default(),
        said: Mutex::default(),
    }))
}

/// Milliseconds since 1970; 0 for what was never created.
fn created<K: Resource>(object: &K) -> u64 {
    let time = object.meta().creation_timestamp.as_ref();
    time.and_then(|time| u64::try_from(time.0.as_millisecond()).ok()).unwrap_or(0)
}

impl Kubernetes {
    fn deployments(&self, namespaces: &BTreeMap<String, NamespaceUid>, objects: &mut Objects) {
        let mut understood = self.understood.lock().unwrap_or_else(PoisonError::into_inner);
        let mut there = HashSet::new();
        for guarded in self.watches.deployments.state() {
            let meta = guarded.meta();
            // Whoever is being deleted is wished for no more; the finalizer waits until gateways are told so.
            if meta.deletion_timestamp.is_some() {
                continue;
            }
            let (name, namespace_name) = (guarded.name_any(), guarded.namespace().unwrap_or_default());
            let Some(namespace) = namespaces.get(&namespace_name).cloned() else {
                // Its namespace is so new that the other watch has not seen it.
                objects.complete = false;
                continue;
            };
            let uid = guarded.uid().unwrap_or_default();
            there.insert(uid.clone());
            match &guarded.0 {
                Ok(object) => {
                    let known = understood
                        .get(&uid)
                        .filter(|known| known.object.metadata.resource_version == object.metadata.resource_version);
                    let deployment = known.cloned().unwrap_or_else(|| Deployment {
                        namespace,
                        object: Arc::new(object.clone()),
                        created: created(object),
                    });
                    understood.insert(uid, deployment.clone());
                    objects.deployments.push(deployment);
                }
                Err(error) => match understood.get(&uid) {
                    Some(known) => objects.deployments.push(known.clone()),
                    None => {
                        tracing::error!("ModelDeployment {namespace_name}/{name} cannot be understood: {error}");
                        objects.standing.push(DeploymentRef { namespace, name });
                    }
                },
            }
        }
        understood.retain(|uid, _| there.contains(uid));
    }

    /// What of a kind there is, with its namespace's UID.
    fn of_namespaces<K: Resource<DynamicType = ()> + Clone>(
        namespaces: &BTreeMap<String, NamespaceUid>,
        state: Vec<Arc<DeserializeGuard<K>>>,
        complete: &mut bool,
    ) -> Vec<(NamespaceUid, Arc<DeserializeGuard<K>>)> {
        let mut found = Vec::new();
        for guarded in state {
            let namespace_name = guarded.namespace().unwrap_or_default();
            if let Err(error) = &guarded.0 {
                let name = guarded.name_any();
                tracing::error!("{} {namespace_name}/{name} cannot be understood: {error}", K::kind(&()));
            }
            match namespaces.get(&namespace_name) {
                Some(namespace) => found.push((namespace.clone(), guarded)),
                // Its namespace is so new that the other watch has not seen it.
                None => *complete = false,
            }
        }
        found
    }

    fn tokens(&self, namespaces: &BTreeMap<String, NamespaceUid>, objects: &mut Objects) {
        let found = Self::of_namespaces(namespaces, self.watches.tokens.state(), &mut objects.complete);
        for (namespace, guarded) in found {
            // One that is being deleted lets nobody in any more.
            if guarded.meta().deletion_timestamp.is_some() {
                continue;
            }
            match &guarded.0 {
                Ok(token) => objects.tokens.push((namespace, Arc::new(token.clone()), created(token))),
                // Not understood is not gone, and nobody else waits for it.
                Err(_) => objects.standing_tokens.push(StandingToken {
                    namespace,
                    namespace_name: guarded.namespace().unwrap_or_default(),
                    name: guarded.name_any(),
                    uid: guarded.uid(),
                }),
            }
        }
    }

    /// What was carried out stays without its object: one that cannot be understood keeps nobody waiting.
    fn gateways(&self, namespaces: &BTreeMap<String, NamespaceUid>, objects: &mut Objects) {
        let found = Self::of_namespaces(namespaces, self.watches.gateways.state(), &mut objects.complete);
        objects.gateways.extend(found.into_iter().filter_map(|(namespace, guarded)| {
            let gateway = guarded.0.as_ref().ok()?.clone();
            let id: GatewayId = gateway.name_any().parse().ok()?;
            Some((namespace, id, wish(gateway)))
        }));
    }

    fn find(&self, deployment: &DeploymentRef) -> Option<Arc<DeserializeGuard<ModelDeployment>>> {
        let namespaces = self.watches.namespaces();
        let is = |object: &DeserializeGuard<ModelDeployment>| {
            object.name_any() == deployment.name
                && object.namespace().and_then(|name| namespaces.get(&name)) == Some(&deployment.namespace)
        };
        self.watches.deployments.find(is)
    }
}

impl Source for Kubernetes {
    fn namespace(&self, name: &str) -> Result<NamespaceUid, String> {
        let found = self.watches.namespaces().remove(name);
        found.ok_or_else(|| format!("there is no namespace {name}: kubectl create namespace {name}"))
    }

    fn namespaces(&self) -> BTreeMap<NamespaceUid, String> {
        self.watches.namespaces().into_iter().map(|(name, uid)| (uid, name)).collect()
    }

    fn objects(&self) -> Objects {
        let namespaces = self.watches.namespaces();
        let mut objects = Objects { complete: true, ..Objects::default() };
        self.deployments(&namespaces, &mut objects);
        for target in self.watches.targets.state() {
            match &target.0 {
                Ok(target) => objects.targets.push(target.clone()),
                Err(error) => tracing::error!("HardwareTarget {} cannot be understood: {error}", target.name_any()),
            }
        }
        self.tokens(&namespaces, &mut objects);
        self.gateways(&namespaces, &mut objects);
        objects
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.changed.notified())
    }

    fn counter(&self, deployment: &DeploymentRef) -> Option<Counter> {
        let object = self.find(deployment)?;
        object.annotations().get(COUNTER_ANNOTATION)?.parse().ok().map(Counter)
    }

    fn reserve(&self, deployment: &DeploymentRef, counter: Counter) -> Result<(), String> {
        let object = self.find(deployment).ok_or_else(|| format!("ModelDeployment {deployment} is gone"))?;
        let reserve = finalizer::reserve(&self.connection.client, object.meta(), counter);
        // Called by a pass, which has a thread of its own.
        self.runtime.block_on(reserve).map_err(|error| error.to_string())
    }

    fn settled(&self, remembered: &dyn Fn(&DeploymentRef) -> bool) {
        let namespaces = self.watches.namespaces();
        for guarded in self.watches.deployments.state() {
            let meta = guarded.meta();
            if meta.deletion_timestamp.is_none() || !finalizer::is_held(meta) {
                continue;
            }
            let uid = guarded.namespace().and_then(|name| namespaces.get(&name).cloned());
            let Some(namespace) = uid else { continue };
            if !remembered(&DeploymentRef { namespace, name: guarded.name_any() }) {
                self.finalizers.release(meta.clone());
            }
        }
    }

    fn put_status(&self, deployment: &Deployment, status: ModelDeploymentStatus) {
        self.statuses.put(&deployment.object, status);
    }

    fn put_event(&self, deployment: &Deployment, event: Event) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        events::record(said.entry(deployment.deployment()).or_default(), event.clone());
        drop(said);
        self.events.put(event);
    }

    fn events(&self, deployment: &Deployment) -> Vec<Event> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.get(&deployment.deployment()).cloned().unwrap_or_default()
    }

    fn hand_over<'a>(
        &'a self,
        token: &'a EnrollmentToken,
        text: &'a str,
        fresh: bool,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let handed = secrets::hand_over(&self.connection.client, token, text, fresh).await;
            handed.map_err(|error| error.to_string())
        })
    }

    fn overlay(&self, deployment: &Deployment, overlay: Overlay) -> Result<(), String> {
        let object = format!("mdep {} --namespace {}", deployment.object.name_any(), deployment.namespace_name());
        let patch = |spec: serde_json::Value| format!("kubectl patch {object} --type merge --patch '{spec}'");
        let paused = |paused: bool| patch(serde_json::json!({"spec": {"rollout": {"paused": paused}}}));
        let annotate = |retry| format!("kubectl annotate {object} --overwrite {RETRY_ANNOTATION}={retry}");
        let command = match overlay {
            Overlay::Paused(value) => paused(value),
            Overlay::Resume(retry) => format!("{} && {}", paused(false), annotate(retry)),
            Overlay::Retry(retry) => annotate(retry),
            Overlay::Model(model) => patch(serde_json::json!({"spec": {"model": model}})),
        };
        Err(format!("wishes go through the objects, with your own rights: {command}"))
    }

    fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    fn problems_of(&self, deployment: &Deployment) -> Vec<SourceProblem> {
        let Some(guarded) = self.find(&deployment.deployment()) else { return Vec::new() };
        let problem = |message: String| SourceProblem { file: String::new(), line: None, message };
        guarded.0.as_ref().err().map(|error| problem(format!("it cannot be understood: {error}"))).into_iter().collect()
    }
}
