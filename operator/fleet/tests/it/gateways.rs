//! Enrolment, renewal, sync, documents, and gateways taken out.

use std::time::Duration;

use ballast_bundle::protocol::{FailureReason, Identity, ReleaseReport, ReleaseState, RenewRequest, SyncResponse};
use ballast_bundle::{Counter, DeploymentRef, Digest, ReleaseNumber};
use ballast_fleet::Limits;
use ballast_fleet::store::{GatewayState, GatewayStore, ReleaseKey, Vote};
use hyper::StatusCode;

use crate::client::Key;
use crate::harness::{Server, assignment, enrolment, open, sync_request};

#[tokio::test]
async fn a_lost_answer_costs_no_second_use_and_names_in_the_request_are_ignored() {
    let server = Server::start().await;
    let secret = server.token("one", "ns-a", |_| {}).await;
    let key = Key::new();
    let request = enrolment(&secret, &key, Some("box"));
    let first: Identity = server.anonymous().await.post("/v1/enroll", &request).await.json();
    let again: Identity = server.anonymous().await.post("/v1/enroll", &request).await.json();
    assert_eq!(first.gateway, again.gateway);
    assert_eq!(first.namespace.as_str(), "ns-a");
    assert!(!first.certificate.contains("somebody-else"));
    let row = server.store.gateway(first.gateway).await.unwrap().unwrap();
    assert_eq!(row.labels["line"], "bottling");

    let other = server.anonymous().await.post("/v1/enroll", &enrolment(&secret, &Key::new(), None)).await;
    assert_eq!(other.status, StatusCode::FORBIDDEN);
    assert!(other.error().contains("as often as it may be"), "{}", other.error());
}

#[tokio::test]
async fn racing_enrolments_never_use_a_token_more_often_than_it_says() {
    let server = Server::start().await;
    let secret = server.token("three", "ns-a", |t| t.uses = 3).await;
    let mut racing = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let mut connection = server.anonymous().await;
        let request = enrolment(&secret, &Key::new(), None);
        racing.spawn(async move { connection.post("/v1/enroll", &request).await.status });
    }
    let statuses = racing.join_all().await;
    assert_eq!(statuses.iter().filter(|s| **s == StatusCode::OK).count(), 3, "{statuses:?}");
}

#[tokio::test]
async fn expired_and_unknown_tokens_say_so() {
    let server = Server::start().await;
    let secret = server.token("old", "ns-a", |t| t.expires = ballast_fleet::now()).await;
    let expired = server.anonymous().await.post("/v1/enroll", &enrolment(&secret, &Key::new(), None)).await;
    assert_eq!(expired.status, StatusCode::FORBIDDEN);
    assert_eq!(expired.error(), "token old has expired; ask the administrator for a new one");
    let unknown = server.anonymous().await.post("/v1/enroll", &enrolment("guess", &Key::new(), None)).await;
    assert_eq!(unknown.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn only_a_token_that_allows_it_replaces_a_box_of_the_same_name() {
    let server = Server::start().await;
    let plain = server.token("plain", "ns-a", |t| t.uses = 2).await;
    let old = Key::new();
    let mut open = server.anonymous().await;
    let first: Identity = open.post("/v1/enroll", &enrolment(&plain, &old, Some("box"))).await.json();
    let second: Identity = open.post("/v1/enroll", &enrolment(&plain, &Key::new(), Some("box"))).await.json();
    assert_ne!(first.gateway, second.gateway);

    let replacing = server.token("replacing", "ns-a", |t| t.allow_replace = true).await;
    let third: Identity = open.post("/v1/enroll", &enrolment(&replacing, &Key::new(), Some("box"))).await.json();
    assert_eq!(third.gateway, second.gateway);
    let elsewhere = server.token("elsewhere", "ns-b", |t| t.allow_replace = true).await;
    let fourth: Identity = open.post("/v1/enroll", &enrolment(&elsewhere, &Key::new(), Some("box"))).await.json();
    assert_ne!(fourth.gateway, third.gateway, "names of other namespaces are other names");
}

#[tokio::test]
async fn sync_gives_a_pointer_to_an_assignment_that_only_its_namespace_can_read() {
    let server = Server::start().await;
    let (identity, key) = server.enrolled("ns-a").await;
    let (stranger, strangers_key) = server.enrolled("ns-b").await;
    let wanted = assignment("ns-a");
    server.decisions.assignments.lock().unwrap().insert("ns-a".parse().unwrap(), wanted.clone());

    let mut connection = server.connect(&identity, &key).await;
    let first: SyncResponse = connection.post("/v1/sync", &sync_request()).await.json();
    assert!((900..=1100).contains(&first.wait_millis));
    assert!(!first.need_facts);
    let pointer = open(&first.pointer.unwrap());
    assert_eq!(pointer.audience.gateway, identity.gateway);
    let path = format!("/v1/assignments/{}", pointer.assignment.digest);
    let bytes = connection.get(&path).await;
    assert_eq!(Digest::of(&bytes.body), pointer.assignment.digest);
    assert_eq!(bytes.json::<ballast_bundle::Assignment>(), wanted);
    assert_eq!(server.connect(&stranger, &strangers_key).await.get(&path).await.status, StatusCode::NOT_FOUND);

    // Unchanged: the same pointer. Changed: a higher sequence.
    let same: SyncResponse = connection.post("/v1/sync", &sync_request()).await.json();
    assert_eq!(open(&same.pointer.unwrap()), pointer);
    let changed = ballast_bundle::Assignment { target: "x86-64-v3".parse().unwrap(), ..wanted };
    server.decisions.assignments.lock().unwrap().insert("ns-a".parse().unwrap(), changed);
    let next: SyncResponse = connection.post("/v1/sync", &sync_request()).await.json();
    assert!(open(&next.pointer.unwrap()).sequence > pointer.sequence);
    assert_eq!(connection.get("/v1/roots/1").await.status, StatusCode::OK);
    assert_eq!(connection.get("/v1/roots/2").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn facts_travel_once() {
    let server = Server::start().await;
    let (identity, key) = server.enrolled("ns-a").await;
    let mut connection = server.connect(&identity, &key).await;
    let mut request = sync_request();
    request.facts = None;
    let answer: SyncResponse = connection.post("/v1/sync", &request).await.json();
    assert!(answer.need_facts);
    let answer: SyncResponse = connection.post("/v1/sync", &sync_request()).await.json();
    assert!(!answer.need_facts);
    let answer: SyncResponse = connection.post("/v1/sync", &request).await.json();
    assert!(!answer.need_facts, "the digest says that nothing changed");
    request.facts_digest = Digest::of(b"other");
    let answer: SyncResponse = connection.post("/v1/sync", &request).await.json();
    assert!(answer.need_facts);
}

pub fn report(state: ReleaseState, reason: Option<FailureReason>) -> ReleaseReport {
    ReleaseReport {
        deployment: DeploymentRef { namespace: "ns-a".parse().unwrap(), name: "digits".into() },
        number: ReleaseNumber { epoch: 1, counter: Counter(7) },
        manifest: Digest::of(b"manifest"),
        version: "2.0.0".into(),
        state,
        reason,
        message: "x".repeat(2000),
        requests: 1,
        failures: 0,
        rollback_micros: None,
        latency_p99_micros: None,
    }
}

#[tokio::test]
async fn a_gateway_votes_once_and_leaves_every_count_when_it_is_revoked() {
    let server = Server::start().await;
    let (identity, key) = server.enrolled("ns-a").await;
    let mut connection = server.connect(&identity, &key).await;
    let key_of = ReleaseKey {
        deployment: report(ReleaseState::Trial, None).deployment,
        number: report(ReleaseState::Trial, None).number,
    };
    for (state, reason) in [
        (ReleaseState::Trial, None),
        (ReleaseState::Active, None),
        (ReleaseState::Active, None),
        (ReleaseState::RolledBack, Some(FailureReason::Trap)),
    ] {
        let mut request = sync_request();
        request.reports = vec![report(state, reason)];
        let _: SyncResponse = connection.post("/v1/sync", &request).await.json();
    }
    let tally = server.store.tally(key_of.clone()).await.unwrap();
    assert_eq!((tally.reported, tally.passed, tally.failed, tally.rolled_back), (1, 1, 0, 1));
    let kept = server.store.reports(identity.gateway.clone()).await.unwrap();
    assert_eq!((kept.len(), kept[0].vote, kept[0].report.message.len()), (1, Some(Vote::Passed), 512));

    // Reports on what does not exist, or on another namespace's releases, never reach the store.
    let mut request = sync_request();
    let mut foreign = report(ReleaseState::Active, None);
    foreign.deployment.namespace = "ns-b".parse().unwrap();
    let mut invented = report(ReleaseState::Active, None);
    invented.deployment.name = "invented".into();
    request.reports = vec![foreign, invented];
    let _: SyncResponse = connection.post("/v1/sync", &request).await.json();
    assert_eq!(server.store.reports(identity.gateway.clone()).await.unwrap().len(), 1);

    server.store.wish(identity.gateway.clone(), GatewayState::Revoked, None).await.unwrap();
    assert_eq!(server.store.tally(key_of).await.unwrap(), ballast_fleet::store::Tally::default());
}

#[tokio::test]
async fn who_is_revoked_loses_its_connection_at_once_and_is_told_why_on_the_next() {
    let server = Server::start().await;
    let (identity, key) = server.enrolled("ns-a").await;
    let mut connection = server.connect(&identity, &key).await;
    let _: SyncResponse = connection.post("/v1/sync", &sync_request()).await.json();
    for state in [GatewayState::Retired, GatewayState::Revoked] {
        server.store.wish(identity.gateway.clone(), state, None).await.unwrap();
        server.fleet.connections().close(&identity.gateway);
        let closed = connection.send(hyper::Method::GET, "/v1/roots/1", &[], "").await;
        assert!(closed.is_err());
        connection = server.connect(&identity, &key).await;
        let refused = connection.post("/v1/sync", &sync_request()).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert!(refused.error().contains("taken out of the fleet"));
        let renewal = connection.post("/v1/renew", &RenewRequest { csr: key.csr() }).await;
        assert_eq!(renewal.status, StatusCode::FORBIDDEN);
    }
    let again = server.store.wish(identity.gateway.clone(), GatewayState::Enrolled, None).await;
    assert!(again.unwrap_err().to_string().contains("stays so"));
    let enrolment = enrolment("whatever", &key, None);
    assert_eq!(server.anonymous().await.post("/v1/enroll", &enrolment).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_expired_certificate_renews_and_does_nothing_else() {
    // Lives shorter than the whole seconds of X.509 times: expired when it arrives.
    let server = Server::with(Limits { certificate_life: Duration::ZERO, ..Limits::default() }).await;
    let (identity, key) = server.enrolled("ns-a").await;
    let mut connection = server.connect(&identity, &key).await;
    let refused = connection.post("/v1/sync", &sync_request()).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.error().contains("/v1/renew"));
    let digest = Digest::of(b"x");
    assert_eq!(connection.get(&format!("/v1/assignments/{digest}")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(connection.get(&format!("/v2/ns-a/digits/blobs/{digest}")).await.status, StatusCode::UNAUTHORIZED);
    let renewed: Identity = connection.post("/v1/renew", &RenewRequest { csr: key.csr() }).await.json();
    assert_eq!(renewed.gateway, identity.gateway);
    assert_ne!(renewed.certificate, identity.certificate);
}

#[tokio::test]
async fn a_renewal_with_a_new_key_retires_the_old_one_only_when_the_new_one_speaks() {
    let server = Server::start().await;
    let (identity, old) = server.enrolled("ns-a").await;
    let new = Key::new();
    let mut connection = server.connect(&identity, &old).await;
    let renewed: Identity = connection.post("/v1/renew", &RenewRequest { csr: new.csr() }).await.json();
    // The answer could have been lost: the old key still works.
    let _: SyncResponse = connection.post("/v1/sync", &sync_request()).await.json();
    let _: SyncResponse = server.connect(&renewed, &new).await.post("/v1/sync", &sync_request()).await.json();
    let refused = connection.post("/v1/sync", &sync_request()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.error().contains("key was replaced"));
}

#[tokio::test]
async fn when_the_store_is_lost_a_certificate_brings_the_row_back() {
    let server = Server::start().await;
    let (identity, key) = server.enrolled("ns-a").await;
    server.stop.send(true).unwrap();
    let fresh = Server::again(tempfile::tempdir().unwrap(), server.authority.clone(), Limits::default()).await;
    let answer: SyncResponse = fresh.connect(&identity, &key).await.post("/v1/sync", &sync_request()).await.json();
    assert!(answer.pointer.is_none());
    let row = fresh.store.gateway(identity.gateway.clone()).await.unwrap().unwrap();
    assert_eq!((row.namespace.as_str(), row.labels["line"].as_str()), ("ns-a", "bottling"));

    // An administrator's word outlives the store.
    let other = Server::again(tempfile::tempdir().unwrap(), server.authority.clone(), Limits::default()).await;
    let revoked = ballast_fleet::Wish { state: GatewayState::Revoked, labels: None };
    other.decisions.wishes.lock().unwrap().insert(identity.gateway.clone(), revoked);
    let refused = other.connect(&identity, &key).await.post("/v1/sync", &sync_request()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
}
