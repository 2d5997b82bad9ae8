//! Immutable documents, and the registry behind the same door.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ballast_bundle::Digest;

use super::{Caller, authenticate};
use crate::error::ApiError;
use crate::pulls::Full;
use crate::registry;
use crate::server::Fleet;

pub(super) async fn assignment(
    State(fleet): State<Arc<Fleet>>,
    Extension(caller): Extension<Caller>,
    Path(digest): Path<String>,
) -> Result<Response, ApiError> {
    let row = authenticate(&fleet, &caller).await?;
    let digest: Digest = digest.parse().map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, format!("{e}")))?;
    let documents = Arc::clone(&fleet.documents);
    let read = tokio::task::spawn_blocking(move || documents.get(&row.namespace, &digest)).await;
    match read {
        Ok(Ok(Some(bytes))) => Ok(immutable(bytes)),
        Ok(Ok(None)) => Err(ApiError::new(StatusCode::NOT_FOUND, "there is no such assignment; sync again")),
        Ok(Err(e)) => {
            tracing::error!(error = %e, "an assignment could not be read");
            Err(ApiError::overloaded(fleet.retry_after()))
        }
        Err(_) => Err(ApiError::overloaded(fleet.retry_after())),
    }
}

/// Roots are public keys: every caller may read them, so that a gateway whose certificate was lost can catch up.
pub(super) async fn root(State(fleet): State<Arc<Fleet>>, Path(version): Path<u64>) -> Result<Response, ApiError> {
    let root = fleet.signer.root(version);
    let root = root.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, format!("there is no trust root {version}")))?;
    serde_json::to_vec(&root)
        .map(immutable)
        .map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

pub(super) async fn registry(
    State(fleet): State<Arc<Fleet>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let row = authenticate(&fleet, &caller).await?;
    let method = request.method();
    if method != Method::GET && method != Method::HEAD {
        return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this registry is read-only for gateways"));
    }
    let place = fleet.pulls.take(&row.id).map_err(|full| match full {
        Full::All => ApiError::overloaded(fleet.retry_after()),
        Full::Gateway(most) => ApiError::too_many(most, fleet.retry_after()),
    })?;
    let path = request.uri().path().strip_prefix("/v2/").unwrap_or_default();
    let query = request.uri().query().unwrap_or_default();
    let registry = Arc::clone(&fleet.registry);
    Ok(registry::pull(registry, &row.namespace, method, path, query, request.headers(), place).await)
}

fn immutable(bytes: Vec<u8>) -> Response {
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
    response
}
