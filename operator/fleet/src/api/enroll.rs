//! `POST /v1/enroll` and `/v1/renew`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use ballast_bundle::GatewayId;
use ballast_bundle::protocol::{EnrollRequest, Identity, RenewRequest};

use super::{Caller, bound_facts, bounded, known, presented, read_json};
use crate::ca::Request;
use crate::error::ApiError;
use crate::server::Fleet;
use crate::store::{Enroll, GatewayRow};
use crate::token;

/// Token, request and facts are some 10 KiB.
const MAX_BODY: usize = 64 << 10;

pub(super) async fn enroll(State(fleet): State<Arc<Fleet>>, body: Body) -> Result<Json<Identity>, ApiError> {
    let mut wanted: EnrollRequest = read_json(body, MAX_BODY).await?;
    // Anybody can call this: few at a time, so that strangers cannot take the processor from the fleet. Only now, so that
    // whoever sends its body slowly keeps nobody out.
    let Ok(_permit) = fleet.enrolments.try_acquire() else {
        return Err(ApiError::overloaded(fleet.retry_after()));
    };
    if wanted.token.len() > 256 {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "send the token's secret part only"));
    }
    let request = Request::from_pem(&wanted.csr)?;
    bound_facts(&mut wanted.facts);
    let display_name = wanted.display_name.map(|mut name| {
        name.retain(|c| !c.is_control());
        bounded(&mut name, 128);
        name
    });
    let enroll = Enroll {
        token: token::hash(&wanted.token),
        key: request.key(),
        id: new_id()?,
        display_name: display_name.filter(|n| !n.is_empty()),
        facts: wanted.facts,
        now: crate::now(),
    };
    let row = fleet.store.enroll(enroll).await?;
    tracing::info!(gateway = %row.id, namespace = %row.namespace, token = row.token, "gateway enrolled");
    // A box that was replaced under its name must not go on with connections of its old key.
    fleet.connections.close(&row.id);
    issue(&fleet, row, &request).await
}

pub(super) async fn renew(
    State(fleet): State<Arc<Fleet>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<Identity>, ApiError> {
    let mut row = known(&fleet, presented(&caller)?).await?;
    let wanted: RenewRequest = read_json(body, MAX_BODY).await?;
    let request = Request::from_pem(&wanted.csr)?;
    if row.keys.first() != Some(&request.key()) {
        // Both keys may speak until the first word with the new one: the answer may be lost on the way.
        row.keys.truncate(1);
        row.keys.push(request.key());
        row.revision = fleet.store.put(row.clone()).await?;
    }
    issue(&fleet, row, &request).await
}

async fn issue(fleet: &Fleet, mut row: GatewayRow, request: &Request) -> Result<Json<Identity>, ApiError> {
    let root = fleet.signer.root(fleet.signer.root_version()).ok_or_else(|| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the fleet has no trust root yet; try again later")
    })?;
    let (certificate, expires) = fleet.authority.gateway(
        request,
        &row.id,
        &row.namespace,
        &row.labels,
        crate::now(),
        fleet.limits.certificate_life,
    )?;
    row.certificate_expires = Some(expires);
    fleet.store.put(row.clone()).await?;
    Ok(Json(Identity { gateway: row.id, namespace: row.namespace, certificate, root }))
}

/// 80 random bits: no two gateways of a fleet meet, and nobody guesses one.
fn new_id() -> Result<GatewayId, ApiError> {
    let mut random = [0u8; 10];
    let failed = || ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "no randomness for a gateway id; try again later");
    getrandom::fill(&mut random).map_err(|_| failed())?;
    let hex: String = random.iter().map(|b| format!("{b:02x}")).collect();
    format!("gw-{hex}").parse().map_err(|_| failed())
}
