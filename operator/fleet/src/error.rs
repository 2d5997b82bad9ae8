//! What a gateway reads when a call fails: always the protocol's `{"error": …}`.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ballast_bundle::protocol::ErrorBody;

use crate::ca::CaError;
use crate::store::StoreError;

/// An answer that is not the wanted one.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// `message` says what is wrong, where, and what to do.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }

    /// The server has enough to do; come back later.
    pub fn overloaded(retry_after: Duration) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "the fleet's server is busy; try again after Retry-After".into(),
            retry_after: Some(retry_after),
        }
    }

    /// This gateway has as many pulls open as one may have; others are served.
    pub fn too_many(most: usize, retry_after: Duration) -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            message: format!("this gateway has {most} pulls open, and may have no more; try again after Retry-After"),
            retry_after: Some(retry_after),
        }
    }

    /// HTTP status of the answer.
    pub const fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorBody { error: self.message })).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::TokenUnknown
            | StoreError::TokenExpired(_)
            | StoreError::TokenUsedUp(_)
            | StoreError::NotEnrolled(_)
            | StoreError::Revoked(_) => StatusCode::FORBIDDEN,
            StoreError::NoGateway(_) => StatusCode::NOT_FOUND,
            StoreError::Conflict(_) => return Self::overloaded(Duration::from_secs(1)),
            StoreError::Backend(message) => {
                tracing::error!(error = message, "the gateway store failed");
                return Self {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    message: "the gateway store cannot answer now; try again later".into(),
                    retry_after: Some(Duration::from_secs(30)),
                };
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<CaError> for ApiError {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Csr(_) => Self::new(StatusCode::BAD_REQUEST, error.to_string()),
            CaError::Peer(_) => Self::new(StatusCode::UNAUTHORIZED, error.to_string()),
            CaError::Broken { .. } | CaError::Sign(_) => {
                tracing::error!(error = %error, "the certificate authority failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the certificate could not be made; the operator's log says why",
                )
            }
        }
    }
}
