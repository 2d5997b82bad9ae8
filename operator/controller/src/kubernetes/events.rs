//! Events on their way to the API server (`events.k8s.io/v1`). The same again is the same object, whose series counts up.

use std::sync::Arc;

use ballast_bundle::Digest;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event as Written, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connection::{KubernetesError, ask};
use crate::events::{Event, EventType};

/// That wait. More at once means that the API server is away: then the newest are dropped, and the log has them.
const WAITING: usize = 256;

/// The way out.
pub(super) struct Events {
    queue: mpsc::Sender<Event>,
    _task: JoinSet<()>,
}

impl Events {
    pub(super) fn start(client: &Client) -> Self {
        let (queue, events) = mpsc::channel(WAITING);
        let mut task = JoinSet::new();
        task.spawn(work(client.clone(), events));
        Self { queue, _task: task }
    }

    pub(super) fn put(&self, event: Event) {
        if let Err(mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event)) =
            self.queue.try_send(event)
        {
            tracing::warn!("an event was dropped: {} {}: {}", event.regarding.name, event.reason, event.note);
        }
    }
}

async fn work(client: Client, mut events: mpsc::Receiver<Event>) {
    let reporter: Arc<str> = std::env::var("POD_NAME").unwrap_or_else(|_| super::FIELD_MANAGER.into()).into();
    while let Some(event) = events.recv().await {
        if let Err(error) = write(&client, &event, &reporter).await {
            tracing::warn!("{error}");
        }
    }
}

/// One name for one thing that is said of one object.
fn name(event: &Event) -> String {
    let kind = match event.kind {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    let said = [kind, &event.reason, &event.action, &event.note, &event.regarding.uid].join("\0");
    let digest = Digest::of(said.as_bytes()).hex();
    format!("{}.{}", event.regarding.name, digest.get(..16).unwrap_or_default())
}

async fn write(client: &Client, event: &Event, reporter: &str) -> Result<(), KubernetesError> {
    let (now, name) = (MicroTime(Timestamp::now()), name(event));
    let regarding = &event.regarding;
    let api = Api::<Written>::namespaced(client.clone(), &regarding.namespace);
    let written = Written {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(regarding.namespace.clone()),
            ..ObjectMeta::default()
        },
        action: Some(event.action.clone()),
        event_time: Some(now.clone()),
        note: Some(event.note.clone()),
        reason: Some(event.reason.clone()),
        regarding: Some(ObjectReference {
            api_version: Some(regarding.api_version.clone()),
            kind: Some(regarding.kind.clone()),
            namespace: Some(regarding.namespace.clone()),
            name: Some(regarding.name.clone()),
            uid: Some(regarding.uid.clone()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(event.reporting_controller.clone()),
        reporting_instance: Some(reporter.to_owned()),
        type_: Some(match event.kind {
            EventType::Normal => "Normal".into(),
            EventType::Warning => "Warning".into(),
        }),
        ..Written::default()
    };
    let doing = format!("an event of {} {}/{}", regarding.kind, regarding.namespace, regarding.name);
    match ask(&doing, api.create(&PostParams::default(), &written)).await {
        Err(error) if error.is_conflict() => {
            let known = ask(&doing, api.get(&name)).await?;
            let count = known.series.map_or(1, |series| series.count).saturating_add(1);
            let series = EventSeries { count, last_observed_time: now };
            let patch = Patch::Merge(json!({"series": series}));
            ask(&doing, api.patch(&name, &PatchParams::default(), &patch)).await.map(drop)
        }
        other => other.map(drop),
    }
}
