//! Gateways as the administrator's socket shows them. Pure.

use std::collections::BTreeMap;

use ballast_bundle::NamespaceUid;
use ballast_bundle::protocol::ReleaseState;
use ballast_crds::conditions::rfc3339;
use ballast_fleet::store::{GatewayRow, StoredReport};
use serde::Serialize;
use serde_json::{Value, json};

/// Names of namespaces.
pub type Names = BTreeMap<NamespaceUid, String>;

/// Where a release is on a gateway. The protocol calls whatever was tried and is held `Active`, the fallback too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Slot {
    /// Answers requests.
    Active,
    /// Answers them when the active one fails.
    Fallback,
    /// On its way: fetched, verified, probed or tried, or waiting for memory or disk.
    Candidate,
}

/// A row, for people and programs.
pub fn row(row: &GatewayRow, names: &Names) -> Value {
    json!({
        "id": row.id,
        "namespace": name(&row.namespace, names),
        "namespaceUid": row.namespace,
        "displayName": row.display_name,
        "state": row.state,
        "labels": row.labels,
        "target": row.target,
        "facts": row.facts,
        "enrolled": rfc3339(row.enrolled),
        "lastSeen": row.last_seen.map(rfc3339),
        "certificateExpires": row.certificate_expires.map(rfc3339),
        "assignment": row.assignment,
        "token": row.token,
    })
}

/// Its reports; `row` was read before them.
pub fn reports(row: &GatewayRow, reports: &[StoredReport], names: &Names) -> Vec<Value> {
    let view = |stored: &StoredReport| {
        let report = &stored.report;
        let mut value = serde_json::to_value(report).unwrap_or_default();
        value["deployment"] = json!({
            "namespace": name(&report.deployment.namespace, names),
            "namespaceUid": report.deployment.namespace,
            "name": report.deployment.name,
        });
        value["since"] = rfc3339(stored.since).into();
        value["vote"] = json!(stored.vote);
        value["slot"] = json!(slot(row, reports, stored));
        value
    };
    reports.iter().map(view).collect()
}

/// A UID only where nobody knows its name any more.
fn name(namespace: &NamespaceUid, names: &Names) -> String {
    names.get(namespace).cloned().unwrap_or_else(|| namespace.to_string())
}

/// A sync speaks of every slot: what the newest one did not speak of is in none. A gateway takes only releases above its
/// active one, and goes back by making the fallback active: of two that it holds, the higher one answers.
fn slot(row: &GatewayRow, reports: &[StoredReport], stored: &StoredReport) -> Option<Slot> {
    let held = |other: &StoredReport| row.last_seen.is_some_and(|seen| other.received >= seen);
    let report = &stored.report;
    if !held(stored) {
        return None;
    }
    match report.state {
        ReleaseState::Active => {
            let above = |other: &StoredReport| {
                held(other)
                    && other.report.state == ReleaseState::Active
                    && other.report.deployment == report.deployment
                    && other.report.number > report.number
            };
            Some(if reports.iter().any(above) { Slot::Fallback } else { Slot::Active })
        }
        ReleaseState::Fetching
        | ReleaseState::Verified
        | ReleaseState::Probing
        | ReleaseState::Trial
        | ReleaseState::Deferred => Some(Slot::Candidate),
        ReleaseState::RolledBack => None,
    }
}

#[cfg(test)]
mod tests {
    use ballast_bundle::protocol::{Facts, ReleaseReport};
    use ballast_bundle::{Counter, DeploymentRef, Digest, ReleaseNumber, UnixMillis};
    use ballast_fleet::store::GatewayState;

    use super::*;

    fn gateway() -> GatewayRow {
        GatewayRow {
            id: "gw-a".parse().unwrap(),
            namespace: "ns-a".parse().unwrap(),
            token: String::new(),
            display_name: None,
            labels: BTreeMap::new(),
            keys: Vec::new(),
            state: GatewayState::Enrolled,
            facts: Facts::default(),
            facts_digest: None,
            enrolled: UnixMillis(1),
            last_seen: Some(UnixMillis(100)),
            certificate_expires: None,
            target: None,
            assignment: None,
            root_version: 0,
            pointer: None,
            revision: 0,
        }
    }

    fn report(deployment: &str, counter: u64, state: ReleaseState, received: u64) -> StoredReport {
        let report = ReleaseReport {
            deployment: DeploymentRef { namespace: "ns-a".parse().unwrap(), name: deployment.into() },
            number: ReleaseNumber { epoch: 1, counter: Counter(counter) },
            manifest: Digest::of(b"manifest"),
            version: counter.to_string(),
            state,
            reason: None,
            message: String::new(),
            requests: 0,
            failures: 0,
            rollback_micros: None,
            latency_p99_micros: None,
        };
        StoredReport::update(None, report, UnixMillis(received))
    }

    #[test]
    fn what_is_held_behind_the_active_release_is_the_fallback_and_what_is_not_held_is_nothing() {
        use ReleaseState::{Active, Deferred, RolledBack, Trial};
        let all = [
            report("digits", 1, Active, 60),
            report("digits", 2, Active, 100),
            report("digits", 3, Active, 100),
            report("digits", 4, Trial, 100),
            report("digits", 5, RolledBack, 100),
            report("digits", 6, Trial, 90),
            report("other", 1, Active, 100),
            report("other", 2, Deferred, 100),
        ];
        let names = Names::from([("ns-a".parse().unwrap(), "plant".to_owned())]);
        let shown = reports(&gateway(), &all, &names);
        let slots: Vec<_> = shown.iter().map(|r| r["slot"].as_str().unwrap_or("-")).collect();
        assert_eq!(slots, ["-", "Fallback", "Active", "Candidate", "-", "-", "Active", "Candidate"]);
        let deployment = json!({"namespace": "plant", "namespaceUid": "ns-a", "name": "digits"});
        assert_eq!(shown[0]["deployment"], deployment);
    }

    #[test]
    fn a_gateway_is_of_a_namespace_with_a_name() {
        let names = Names::from([("ns-a".parse().unwrap(), "plant".to_owned())]);
        let shown = row(&gateway(), &names);
        assert_eq!((&shown["namespace"], &shown["namespaceUid"]), (&json!("plant"), &json!("ns-a")));
        assert_eq!(row(&gateway(), &Names::new())["namespace"], "ns-a");
    }
}
