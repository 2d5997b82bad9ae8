//! `POST /v1/sync`: facts and reports in, pointer and waiting time out.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use ballast_bundle::protocol::{SyncRequest, SyncResponse};
use ballast_bundle::{Assignment, Audience, Blob, Counter, Envelope, Pointer, TargetName, UnixMillis};

use super::{Caller, authenticate, bound_facts, bounded, read_json};
use crate::error::ApiError;
use crate::server::Fleet;
use crate::store::{GatewayRow, IssuedPointer, MAX_REPORTS, StoreError, Sync};

/// 64 reports with full messages and facts are under 100 KiB.
const MAX_BODY: usize = 256 << 10;
/// Kept of a report's sentence for people.
const MAX_MESSAGE: usize = 512;

pub(super) async fn sync(
    State(fleet): State<Arc<Fleet>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<SyncResponse>, ApiError> {
    let row = authenticate(&fleet, &caller).await?;
    let mut request: SyncRequest = read_json(body, MAX_BODY).await?;
    if request.reports.len() > MAX_REPORTS {
        let message = format!("{} reports; send at most {MAX_REPORTS}", request.reports.len());
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
    }
    if let Some(facts) = &mut request.facts {
        bound_facts(facts);
    }
    request.reports.retain_mut(|report| {
        bounded(&mut report.message, MAX_MESSAGE);
        bounded(&mut report.version, 128);
        report.deployment.namespace == row.namespace && fleet.dispatch.accepts(&row, report)
    });
    let now = crate::now();
    let sync = Sync {
        gateway: row.id,
        now,
        facts_digest: request.facts_digest,
        facts: request.facts,
        root_version: request.root_version,
        assignment: request.assignment,
        reports: request.reports,
    };
    let (row, reports) = fleet.store.sync(sync).await?;
    let need_facts = row.facts_digest.is_none();
    let decided = fleet.dispatch.dispatch(&row, &reports, now).await;
    let pointer = point(&fleet, row, decided.target.clone(), decided.assignment, now).await?;
    Ok(Json(SyncResponse {
        pointer,
        target: decided.target,
        root_version: fleet.signer.root_version(),
        wait_millis: jittered(decided.wait),
        need_facts,
    }))
}

/// Makes what was decided durable, then signs it.
async fn point(
    fleet: &Fleet,
    mut row: GatewayRow,
    target: Option<TargetName>,
    assignment: Option<Assignment>,
    now: UnixMillis,
) -> Result<Option<Envelope>, ApiError> {
    let document = match &assignment {
        Some(assignment) => Some(store_assignment(fleet, &row, assignment).await?),
        None => None,
    };
    for _ in 0..4 {
        let mut changed = row.target != target;
        row.target.clone_from(&target);
        if let Some(blob) = &document
            && !reusable(fleet, &row, blob, now)
        {
            let life = u64::try_from(fleet.limits.pointer_life.as_millis()).unwrap_or(u64::MAX);
            row.pointer = Some(IssuedPointer {
                assignment: blob.clone(),
                epoch: fleet.signer.epoch(),
                sequence: Counter::next(row.pointer.as_ref().map(|p| p.sequence), now.0),
                issued: now,
                expires: UnixMillis(now.0.saturating_add(life)),
            });
            changed = true;
        }
        if changed {
            // The sequence is durable before anybody can see it signed.
            match fleet.store.put(row.clone()).await {
                Ok(revision) => row.revision = revision,
                Err(StoreError::Conflict(id)) => {
                    row = fleet.store.gateway(id.clone()).await?.ok_or(StoreError::NoGateway(id))?;
                    continue;
                }
                Err(e) => return Err(e.into()),
            }
        }
        let issued = document.as_ref().and(row.pointer.as_ref());
        return Ok(issued.map(|issued| fleet.signer.sign(&pointer(fleet, &row, issued))));
    }
    Err(ApiError::overloaded(Duration::from_secs(1)))
}

/// The last pointer still says the right thing for at least half of its life.
fn reusable(fleet: &Fleet, row: &GatewayRow, blob: &Blob, now: UnixMillis) -> bool {
    row.pointer.as_ref().is_some_and(|p| {
        let half = p.expires.0.saturating_sub(p.issued.0) / 2;
        p.assignment == *blob && p.epoch == fleet.signer.epoch() && now.0 < p.issued.0.saturating_add(half)
    })
}

fn pointer(fleet: &Fleet, row: &GatewayRow, issued: &IssuedPointer) -> Pointer {
    Pointer {
        format: 1,
        audience: Audience {
            fleet: fleet.authority.fleet().clone(),
            namespace: row.namespace.clone(),
            gateway: row.id.clone(),
        },
        assignment: issued.assignment.clone(),
        epoch: issued.epoch,
        sequence: issued.sequence,
        issued: issued.issued,
        expires: issued.expires,
    }
}

async fn store_assignment(fleet: &Fleet, row: &GatewayRow, assignment: &Assignment) -> Result<Blob, ApiError> {
    let failed = |e: &dyn std::fmt::Display| {
        tracing::error!(error = %e, "an assignment could not be stored");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the assignment could not be stored; try again later")
    };
    let bytes = serde_json::to_vec(assignment).map_err(|e| failed(&e))?;
    let (documents, namespace) = (Arc::clone(&fleet.documents), row.namespace.clone());
    tokio::task::spawn_blocking(move || documents.put(&namespace, &bytes))
        .await
        .map_err(|e| failed(&e))?
        .map_err(|e| failed(&e))
}

/// ±10 %, so that a fleet that was told the same does not come back as one.
fn jittered(wait: Duration) -> u64 {
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX / 2).clamp(100, u64::MAX / 2);
    let mut random = [0u8; 8];
    if getrandom::fill(&mut random).is_err() {
        return millis;
    }
    let spread = millis / 5;
    millis - spread / 2 + u64::from_le_bytes(random) % (spread + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_differ_by_a_tenth_at_most() {
        for _ in 0..100 {
            assert!((900..=1100).contains(&jittered(Duration::from_secs(1))));
        }
        assert!(jittered(Duration::ZERO) >= 90, "nobody is told to spin");
    }
}
