//! The administrator's interface: JSON over the unix socket. It shows; wishes become overlays of the objects.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ballast_bundle::{GatewayId, UnixMillis};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::controller::Controller;
use crate::gateways;
use crate::objects::{Deployment, Overlay, Retry};
use crate::records::{Phase, Record};
use crate::status;
use crate::tokens::{Asked, TokenError};
use ballast_crds::conditions::rfc3339;

/// What the handlers need.
#[derive(Clone)]
pub struct Admin {
    /// Shows, and makes tokens.
    pub controller: Arc<Controller>,
}

/// A sentence for the person, and a status for the program.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

type Answer = Result<Json<Value>, Refusal>;

/// The routes.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/v1/version", get(version))
        .route("/v1/deployments", get(deployments))
        .route("/v1/deployments/{namespace}/{name}", get(deployment))
        .route("/v1/deployments/{namespace}/{name}/events", get(events_of))
        .route("/v1/events", get(events))
        .route("/v1/deployments/{namespace}/{name}/{action}", post(act))
        .route("/v1/gateways", get(list_gateways))
        .route("/v1/gateways/{id}", get(gateway))
        .route("/v1/tokens", post(token))
        .layer(axum::extract::DefaultBodyLimit::max(64 << 10))
        .fallback(|| async { Refusal(StatusCode::NOT_FOUND, "there is no such call".into()) })
        .with_state(admin)
}

async fn version() -> Json<Value> {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "compiler": ballast_compiler::COMPILER_VERSION,
        "engine": ballast_sandbox::ENGINE_VERSION,
    }))
}

impl Admin {
    fn find(&self, namespace: &str, name: &str) -> Result<Deployment, Refusal> {
        let objects = self.controller.source.objects();
        objects
            .deployments
            .into_iter()
            .find(|d| d.namespace_name() == namespace && d.deployment().name == name)
            .ok_or_else(|| {
                let problems = self.controller.source.problems();
                let hint = if problems.is_empty() { String::new() } else { format!("; {}", problems.join("; ")) };
                Refusal(
                    StatusCode::NOT_FOUND,
                    format!("there is no ModelDeployment {name} in namespace {namespace}{hint}"),
                )
            })
    }

    fn record(&self, deployment: &Deployment) -> Option<Record> {
        self.controller.record(&deployment.deployment())
    }

    fn view(&self, deployment: &Deployment) -> Value {
        let mut value = serde_json::to_value(deployment.object.as_ref()).unwrap_or_default();
        let steps = deployment.object.spec.rollout.steps.len();
        value["releases"] = self.record(deployment).map(|r| status::releases(&r, steps)).unwrap_or_default().into();
        value["sourceProblems"] = json!(self.controller.source.problems_of(deployment));
        value
    }
}

async fn deployments(State(admin): State<Admin>) -> Answer {
    blocking(move || {
        let objects = admin.controller.source.objects();
        let items: Vec<Value> = objects.deployments.iter().map(|d| admin.view(d)).collect();
        Ok(json!({"items": items, "problems": admin.controller.source.problems()}))
    })
    .await
}

async fn deployment(State(admin): State<Admin>, Path((namespace, name)): Path<(String, String)>) -> Answer {
    blocking(move || Ok(admin.view(&admin.find(&namespace, &name)?))).await
}

/// The newest last, as `kubectl get events --sort-by` would.
async fn events(State(admin): State<Admin>) -> Answer {
    blocking(move || {
        let source = &admin.controller.source;
        let mut items: Vec<_> = source.objects().deployments.iter().flat_map(|d| source.events(d)).collect();
        items.sort_by(|a, b| a.last().cmp(b.last()));
        Ok(json!({"items": items}))
    })
    .await
}

async fn events_of(State(admin): State<Admin>, Path((namespace, name)): Path<(String, String)>) -> Answer {
    blocking(move || Ok(json!({"items": admin.controller.source.events(&admin.find(&namespace, &name)?)}))).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Undo {
    /// Counter of the revision to go back to; the one before the newest when absent.
    to: Option<u64>,
}

async fn act(
    State(admin): State<Admin>,
    Path((namespace, name, action)): Path<(String, String, String)>,
    body: axum::body::Bytes,
) -> Answer {
    blocking(move || {
        let deployment = admin.find(&namespace, &name)?;
        let record = admin.record(&deployment);
        let overlay = match action.as_str() {
            "pause" => Overlay::Paused(true),
            // One that halted by itself goes on as well: that is what whoever resumes means.
            "resume" => match record.as_ref().and_then(halted) {
                Some(retry) => Overlay::Resume(retry),
                None => Overlay::Paused(false),
            },
            "retry" => Overlay::Retry(retryable(record.as_ref())?),
            "undo" => {
                let undo: Undo = if body.is_empty() {
                    Undo::default()
                } else {
                    serde_json::from_slice(&body)
                        .map_err(|e| Refusal(StatusCode::BAD_REQUEST, format!("the body: {e}")))?
                };
                Overlay::Model(revision(record.as_ref(), undo.to)?)
            }
            other => {
                return Err(Refusal(StatusCode::NOT_FOUND, format!("{other} is not pause, resume, retry or undo")));
            }
        };
        admin.controller.source.overlay(&deployment, overlay).map_err(|e| Refusal(StatusCode::CONFLICT, e))?;
        admin.controller.roster.wake();
        Ok(admin.view(&admin.find(&namespace, &name)?))
    })
    .await
}

fn nothing_yet() -> Refusal {
    Refusal(StatusCode::CONFLICT, "there is no release yet".into())
}

/// The next attempt of a release that halted.
fn halted(record: &Record) -> Option<Retry> {
    let newest = record.releases.last().filter(|r| r.is_halted())?;
    Some(Retry { counter: newest.number?.counter.0, attempt: newest.resumes.saturating_add(1) })
}

fn retryable(record: Option<&Record>) -> Result<Retry, Refusal> {
    let newest = record.and_then(|r| r.releases.last()).ok_or_else(nothing_yet)?;
    let first = |counter| Ok(Retry { counter, attempt: 1 });
    match (newest.phase, newest.number) {
        (Phase::Paused, _) if newest.is_halted() => record.and_then(halted).ok_or_else(nothing_yet),
        (Phase::RolledBack, Some(number)) => first(number.counter.0),
        (Phase::Refused, _) => first(newest.created.0),
        (phase, _) => {
            let message = format!(
                "the newest release ({}) is {phase:?}: only one that was rolled back, refused or halted is tried again",
                newest.version
            );
            Err(Refusal(StatusCode::CONFLICT, message))
        }
    }
}

fn revision(record: Option<&Record>, to: Option<u64>) -> Result<Value, Refusal> {
    let record = record.ok_or_else(nothing_yet)?;
    let newest = record.releases.last().ok_or_else(nothing_yet)?;
    let good = |r: &&crate::records::Release| r.identity != newest.identity && r.is_proven();
    let found = match to {
        Some(counter) => {
            record.releases.iter().find(|r| r.is_proven() && r.number.is_some_and(|n| n.counter.0 == counter))
        }
        None => record.releases.iter().rev().find(good),
    };
    found.map(|r| r.model.clone()).ok_or_else(|| {
        let proven = record.releases.iter().filter(good);
        let known: Vec<String> =
            proven.filter_map(|r| Some(format!("{} ({})", r.number?.counter, r.version))).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Refusal(
            StatusCode::CONFLICT,
            format!("there is no such release to go back to; those that finished their rollout are: {known}"),
        )
    })
}

#[derive(Debug, Deserialize)]
struct Paging {
    limit: Option<usize>,
    after: Option<String>,
}

async fn list_gateways(State(admin): State<Admin>, Query(paging): Query<Paging>) -> Answer {
    let after = match paging.after.filter(|a| !a.is_empty()).map(|a| a.parse::<GatewayId>()) {
        Some(Err(e)) => return Err(Refusal(StatusCode::BAD_REQUEST, format!("after: {e}"))),
        Some(Ok(id)) => Some(id),
        None => None,
    };
    let limit = paging.limit.unwrap_or(100).clamp(1, 1000);
    let page = admin.controller.store.list(None, after, limit).await.map_err(failed)?;
    let names = admin.controller.source.namespaces();
    let items: Vec<Value> = page.rows.iter().map(|row| gateways::row(row, &names)).collect();
    Ok(Json(json!({"items": items, "next": page.next})))
}

async fn gateway(State(admin): State<Admin>, Path(id): Path<String>) -> Answer {
    let missing = || Refusal(StatusCode::NOT_FOUND, format!("there is no gateway {id}"));
    let id: GatewayId = id.parse().map_err(|_| missing())?;
    let row = admin.controller.store.gateway(id.clone()).await.map_err(failed)?.ok_or_else(missing)?;
    let reports = admin.controller.store.reports(id.clone()).await.map_err(failed)?;
    let names = admin.controller.source.namespaces();
    let mut view = gateways::row(&row, &names);
    view["reports"] = gateways::reports(&row, &reports, &names).into();
    Ok(Json(view))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TokenRequest {
    name: String,
    #[serde(default)]
    labels: ballast_fleet::labels::Labels,
    #[serde(default = "one")]
    uses: u32,
    #[serde(default = "a_day")]
    expires_seconds: u64,
    #[serde(default)]
    allow_replace: bool,
    #[serde(default)]
    namespace: Option<String>,
}

const fn one() -> u32 {
    1
}

const fn a_day() -> u64 {
    86_400
}

async fn token(State(admin): State<Admin>, body: axum::body::Bytes) -> Answer {
    let bad = |e: String| Refusal(StatusCode::BAD_REQUEST, e);
    let wanted: TokenRequest = serde_json::from_slice(&body).map_err(|e| bad(format!("the body: {e}")))?;
    ballast_fleet::labels::check(&wanted.labels).map_err(|e| bad(e.to_string()))?;
    let life = Duration::from_secs(wanted.expires_seconds.clamp(1, 10 * 365 * 86_400));
    let expires =
        UnixMillis(ballast_fleet::now().0.saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX)));
    let namespace = wanted.namespace.as_deref().unwrap_or("default");
    let uid = admin.controller.source.namespace(namespace).map_err(bad)?;
    let asked = Asked {
        namespace: uid,
        namespace_name: namespace.to_owned(),
        name: wanted.name,
        labels: wanted.labels,
        uses: wanted.uses,
        expires,
        allow_replace: wanted.allow_replace,
    };
    let made = admin.controller.new_token(&asked).await.map_err(|e| match e {
        TokenError::Taken(message) => Refusal(StatusCode::CONFLICT, message),
        TokenError::Store(e) => failed(e),
        other => bad(other.to_string()),
    })?;
    Ok(Json(json!({"token": made, "name": asked.name, "expires": rfc3339(expires)})))
}

fn failed(error: ballast_fleet::store::StoreError) -> Refusal {
    Refusal(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

async fn blocking(work: impl FnOnce() -> Result<Value, Refusal> + Send + 'static) -> Answer {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map(Json),
        Err(e) => Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())),
    }
}
