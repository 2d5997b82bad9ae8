//! The gateway protocol's handlers.

mod documents;
mod enroll;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use ballast_bundle::protocol::Facts;
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;

use crate::ca::Peer;
use crate::error::ApiError;
use crate::server::Fleet;
use crate::store::{GatewayRow, GatewayState};

/// A gateway sends its few KiB at once; who takes longer is stuck or means harm.
const BODY_TIME: Duration = Duration::from_secs(10);
/// What the TLS layer knows of the caller.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Option<Arc<Peer>>);

pub(crate) fn router(fleet: Arc<Fleet>) -> Router {
    Router::new()
        .route("/v1/enroll", post(enroll::enroll))
        .route("/v1/renew", post(enroll::renew))
        .route("/v1/sync", post(sync::sync))
        .route("/v1/assignments/{digest}", get(documents::assignment))
        .route("/v1/roots/{version}", get(documents::root))
        .route("/v2/", any(documents::registry))
        .route("/v2/{*path}", any(documents::registry))
        .fallback(|| async {
            ApiError::new(StatusCode::NOT_FOUND, "there is no such call; this is a Ballast fleet server")
        })
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&fleet), shed))
        .with_state(fleet)
}

/// Refuses at once what would only wait: a short honest "later" keeps the server quick for those inside.
async fn shed(State(fleet): State<Arc<Fleet>>, request: Request, next: Next) -> Response {
    let Ok(permit) = Arc::clone(&fleet.requests).try_acquire_owned() else {
        return ApiError::overloaded(fleet.retry_after()).into_response();
    };
    let response = next.run(request).await;
    drop(permit);
    response
}

/// Reads a JSON body within a size and a time.
async fn read_json<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, ApiError> {
    let collected = tokio::time::timeout(BODY_TIME, Limited::new(body, limit).collect()).await;
    let bytes = match collected {
        Err(_) => {
            return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time; send it at once"));
        }
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
            let message = format!("the body is longer than {limit} bytes; send less");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Ok(Err(e)) => return Err(ApiError::new(StatusCode::BAD_REQUEST, format!("the body was cut off: {e}"))),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    serde_json::from_slice(&bytes)
        .map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, format!("the body is not what this call takes: {e}")))
}

/// The caller's certificate, or 401.
fn presented(caller: &Caller) -> Result<&Arc<Peer>, ApiError> {
    caller.0.as_ref().ok_or_else(|| {
        ApiError::new(StatusCode::UNAUTHORIZED, "present the certificate that the gateway got when it enrolled")
    })
}

/// The caller's row, if its certificate is valid now and its row allows it to speak.
async fn authenticate(fleet: &Fleet, caller: &Caller) -> Result<GatewayRow, ApiError> {
    let peer = presented(caller)?;
    if peer.expires <= crate::now() {
        let message = "the gateway's certificate has expired; POST /v1/renew with the same key";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, message));
    }
    known(fleet, peer).await
}

/// The row for a certificate of our CA, whatever its date. Made again when the store was lost.
async fn known(fleet: &Fleet, peer: &Peer) -> Result<GatewayRow, ApiError> {
    if peer.fleet != *fleet.authority.fleet() {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "this certificate is of another fleet"));
    }
    let mut row = match fleet.store.gateway(peer.gateway.clone()).await? {
        Some(row) => row,
        None => adopt(fleet, peer).await?,
    };
    if row.state != GatewayState::Enrolled {
        let message = format!("gateway {} was taken out of the fleet by the administrator", row.id);
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    if row.namespace != peer.namespace {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "this certificate is of another namespace"));
    }
    match row.keys.iter().position(|k| *k == peer.key) {
        Some(0) => Ok(row),
        // The first word with a renewed key: the gateway has it safe, the old one is not needed any more.
        Some(at) => {
            row.keys = row.keys.split_off(at);
            row.revision = fleet.store.put(row.clone()).await?;
            Ok(row)
        }
        None => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "this certificate's key was replaced; use the newest certificate, or enrol again",
        )),
    }
}

async fn adopt(fleet: &Fleet, peer: &Peer) -> Result<GatewayRow, ApiError> {
    let wish = fleet.dispatch.wish(&peer.namespace, &peer.gateway).unwrap_or_default();
    tracing::info!(gateway = %peer.gateway, namespace = %peer.namespace, "row made again from the gateway's certificate");
    let row = GatewayRow {
        id: peer.gateway.clone(),
        namespace: peer.namespace.clone(),
        token: String::new(),
        display_name: None,
        labels: wish.labels.unwrap_or_else(|| peer.labels.clone()),
        keys: vec![peer.key],
        state: wish.state,
        facts: Facts::default(),
        facts_digest: None,
        enrolled: crate::now(),
        last_seen: None,
        certificate_expires: Some(peer.expires),
        target: None,
        assignment: None,
        root_version: 0,
        pointer: None,
        revision: 0,
    };
    Ok(fleet.store.adopt(row).await?)
}

/// Cuts a text at a character's edge.
fn bounded(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
}

/// Bounds what a gateway says of itself before it is stored.
fn bound_facts(facts: &mut Facts) {
    for text in [&mut facts.arch, &mut facts.os, &mut facts.agent, &mut facts.engine] {
        bounded(text, 128);
    }
    // The longest list of features that Rust names for one architecture has under 200.
    facts.cpu_features.truncate(512);
    facts.cpu_features.iter_mut().for_each(|f| bounded(f, 64));
    let extra = std::mem::take(&mut facts.extra);
    facts.extra = extra
        .into_iter()
        .take(64)
        .map(|(mut key, mut value)| {
            bounded(&mut key, 128);
            bounded(&mut value, 256);
            (key, value)
        })
        .collect();
    if facts.speed.is_some_and(|s| !(s.gflops.is_finite() && s.memory_bandwidth.is_finite())) {
        facts.speed = None;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_are_cut_between_characters() {
        let mut text = "aé".to_owned();
        super::bounded(&mut text, 2);
        assert_eq!(text, "a");
    }
}
