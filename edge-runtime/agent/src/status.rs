//! `ballast-edge status`: what the state directory says, beside a running process or without one.

use std::path::Path;

use ballast_slots::{Held, ReleaseId, State};
use serde_json::{Value, json};

use crate::driver::slot_files;
use crate::error::in_full;
use crate::identity::{Enrolled, IdentityError, Roots};
use crate::installed::{InstalledRunner, RunnerRecord};
use crate::runner::RunnerFile;
use crate::state::{BLOBS, StateDir, StateError};
use crate::{store, sync};

/// Everything, as JSON.
pub(crate) fn gather(dir: &StateDir) -> Result<Value, StateError> {
    let enrolled = Enrolled::load(dir);
    let gateway = match &enrolled {
        Ok(enrolled) => json!({
            "id": enrolled.gateway(),
            "namespace": enrolled.audience().namespace,
            "fleet": enrolled.audience().fleet,
            "endpoints": enrolled.endpoints(),
            "rootVersion": enrolled.root().version,
        }),
        Err(IdentityError::NotEnrolled(_)) => Value::Null,
        Err(error) => json!({"error": in_full(error)}),
    };
    let pointer = sync::pointer(dir)?.map(|p| {
        json!({
            "sequence": p.sequence,
            "issued": p.issued,
            "expires": p.expires,
            "assignment": p.assignment.digest,
            "target": p.target,
        })
    });
    let runner = match (RunnerFile::read(dir)?.active, &enrolled) {
        (Some(record), Ok(enrolled)) => Some(runner(dir, record, enrolled.roots())),
        (Some(_), Err(_)) | (None, _) => None,
    };
    let http = dir.read_bytes("http")?.and_then(|b| String::from_utf8(b).ok()).map(|t| t.trim().to_owned());
    let slots = slot_files(dir)?;
    let deployments: Vec<Value> = slots.iter().map(|file| deployment(&file.state, &file.rollback_micros)).collect();
    Ok(json!({
        "state": dir.root(),
        "http": http,
        "gateway": gateway,
        "pointer": pointer,
        "runner": runner,
        "deployments": deployments,
    }))
}

/// Verified as `run` does it, and without touching the store: that is the running process's.
fn runner(dir: &StateDir, record: RunnerRecord, roots: &Roots) -> Value {
    let module = record.reference.module.digest;
    let path = store::path(Path::new(BLOBS), &record.reference.statement.digest);
    let bytes = dir.read_bytes(&path.to_string_lossy()).map_err(|e| in_full(&e));
    let verified = bytes
        .and_then(|bytes| bytes.ok_or_else(|| "its statement is not in the store".to_owned()))
        .and_then(|bytes| InstalledRunner::verify(&bytes, roots, record));
    match verified {
        Ok(InstalledRunner { statement, .. }) => {
            json!({"module": module, "engine": statement.engine, "cpuFeatures": statement.cpu_features})
        }
        Err(error) => json!({"module": module, "error": error}),
    }
}

fn deployment(state: &State, micros: &[(ReleaseId, u64)]) -> Value {
    let held =
        |h: &Held| json!({"version": h.release.version, "number": h.release.number.to_string(), "since": h.since});
    json!({
        "name": state.deployment.name,
        "model": state.model,
        "floor": state.floor.to_string(),
        "active": state.active.as_ref().map(held),
        "fallback": state.fallback.as_ref().map(held),
        "candidate": state.candidate.as_ref().map(|c| json!({
            "version": c.release.version,
            "number": c.release.number.to_string(),
            "state": state.reported(&ReleaseId::from(&c.release)),
            "since": c.since,
            "reason": c.deferred.as_ref().map(|(reason, _)| reason),
            "message": c.deferred.as_ref().map(|(_, message)| message),
        })),
        "rejected": state.rejected.iter().map(|r| json!({
            "version": r.version,
            "number": r.id.number.to_string(),
            "reason": r.reason,
            "message": r.message,
            "at": r.at,
            "rollbackMicros": micros.iter().find(|(id, _)| *id == r.id).map(|(_, n)| n),
        })).collect::<Vec<_>>(),
    })
}

/// What stands at a JSON pointer; null where there is nothing.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// For people.
pub(crate) fn table(status: &Value) -> String {
    let text = |v: &Value| match v {
        Value::Null => "-".to_owned(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    let mut out = String::new();
    let mut line = |name: &str, value: &Value| out.push_str(&format!("{name:<10} {}\n", text(value)));
    if status["gateway"].is_null() {
        line("gateway", &json!("not enrolled; run ballast-edge enroll"));
    } else if let Some(error) = status.pointer("/gateway/error") {
        line("gateway", error);
    } else {
        line("gateway", at(status, "/gateway/id"));
    }
    line("serving", &status["http"]);
    line("target", at(status, "/pointer/target"));
    line("engine", status.pointer("/runner/error").unwrap_or_else(|| at(status, "/runner/engine")));
    let empty = Vec::new();
    let deployments = status["deployments"].as_array().unwrap_or(&empty);
    out.push_str(&format!(
        "\n{:<20} {:<12} {:<12} {:<12} {}\n",
        "MODEL", "ACTIVE", "FALLBACK", "CANDIDATE", "REJECTED"
    ));
    for d in deployments {
        let candidate = match &d["candidate"] {
            Value::Null => "-".to_owned(),
            c => format!("{} ({})", text(&c["version"]), text(&c["state"])),
        };
        let rejected: Vec<String> = d["rejected"]
            .as_array()
            .unwrap_or(&empty)
            .iter()
            .map(|r| format!("{} ({})", text(&r["version"]), text(&r["reason"])))
            .collect();
        let rejected = if rejected.is_empty() { "-".to_owned() } else { rejected.join(", ") };
        out.push_str(&format!(
            "{:<20} {:<12} {:<12} {candidate:<12} {rejected}\n",
            text(&d["model"]),
            text(at(d, "/active/version")),
            text(at(d, "/fallback/version")),
        ));
    }
    out
}
