//! The embedded store through its trait.

use std::sync::Arc;

use ballast_bundle::UnixMillis;
use ballast_bundle::protocol::{Facts, ReleaseState};
use ballast_bundle::{Counter, Digest};
use ballast_fleet::store::{Enroll, GatewayRow, GatewayState, GatewayStore, MAX_REPORTS, RedbStore, StoreError, Sync};
use ballast_fleet::token::TokenRecord;

fn row(id: &str, namespace: &str) -> GatewayRow {
    GatewayRow {
        id: id.parse().unwrap(),
        namespace: namespace.parse().unwrap(),
        token: String::new(),
        display_name: None,
        labels: [].into(),
        keys: vec![Digest::of(id.as_bytes())],
        state: GatewayState::Enrolled,
        facts: Facts::default(),
        facts_digest: None,
        enrolled: UnixMillis(1),
        last_seen: None,
        certificate_expires: None,
        target: None,
        assignment: None,
        root_version: 0,
        pointer: None,
        revision: 0,
    }
}

fn open() -> (tempfile::TempDir, Arc<RedbStore>) {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&directory.path().join("s.redb"), UnixMillis(5)).unwrap();
    (directory, Arc::new(store))
}

#[tokio::test]
async fn a_stale_writer_is_told() {
    let (_directory, store) = open();
    let first = row("gw-a", "ns");
    let revision = store.put(first.clone()).await.unwrap();
    assert!(matches!(store.put(first).await, Err(StoreError::Conflict(_))));
    let mut newer = row("gw-a", "ns");
    newer.revision = revision;
    assert!(store.put(newer).await.unwrap() > revision);
}

#[tokio::test]
async fn the_change_feed_is_each_changed_row_once_in_order() {
    let (_directory, store) = open();
    let mut a = row("gw-a", "ns");
    a.revision = store.put(a.clone()).await.unwrap();
    let at = store.put(row("gw-b", "ns")).await.unwrap();
    a.revision = store.put(a.clone()).await.unwrap();
    let ids = |rows: Vec<GatewayRow>| rows.into_iter().map(|r| r.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(store.changes(0, 10).await.unwrap()), ["gw-b", "gw-a"]);
    assert_eq!(ids(store.changes(at, 10).await.unwrap()), ["gw-a"]);
    assert_eq!(ids(store.changes(0, 1).await.unwrap()), ["gw-b"]);
    assert!(store.changes(a.revision, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn pages_cover_a_namespace_without_gaps() {
    let (_directory, store) = open();
    for i in 0..7 {
        store.put(row(&format!("gw-{i}"), if i % 2 == 0 { "even" } else { "odd" })).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.list(Some("even".parse().unwrap()), after, 3).await.unwrap();
        seen.extend(page.rows.into_iter().map(|r| r.id.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["gw-0", "gw-2", "gw-4", "gw-6"]);
}

#[tokio::test]
async fn everything_is_there_after_a_restart_and_one_process_holds_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.redb");
    let store = RedbStore::open(&path, UnixMillis(5)).unwrap();
    let token = TokenRecord {
        hash: Digest::of(b"secret"),
        name: "t".into(),
        namespace: "ns".parse().unwrap(),
        labels: [].into(),
        uses: 2,
        used: 0,
        expires: UnixMillis(100),
        allow_replace: false,
    };
    store.put_token(token.clone()).await.unwrap();
    let enroll = Enroll {
        token: token.hash,
        key: Digest::of(b"key"),
        id: "gw-a".parse().unwrap(),
        display_name: None,
        facts: Facts::default(),
        now: UnixMillis(6),
    };
    store.enroll(enroll.clone()).await.unwrap();
    assert!(matches!(RedbStore::open(&path, UnixMillis(9)), Err(StoreError::Backend(_))));
    drop(store);
    // The writer's thread ends on its own time.
    let store = loop {
        match RedbStore::open(&path, UnixMillis(9)) {
            Ok(store) => break store,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(store.born(), UnixMillis(5));
    assert_eq!(store.tokens().await.unwrap()[0].used, 1);
    store.put_token(TokenRecord { uses: 5, ..token }).await.unwrap();
    let changed = store.tokens().await.unwrap();
    assert_eq!((changed.len(), changed[0].uses, changed[0].used), (1, 5, 1), "a changed token forgets no use");
    assert_eq!(store.enroll(Enroll { id: "gw-b".parse().unwrap(), ..enroll }).await.unwrap().id.as_str(), "gw-a");
}

#[tokio::test]
async fn a_chatty_gateway_keeps_its_newest_reports_only() {
    let (_directory, store) = open();
    store.put(row("gw-a", "ns-a")).await.unwrap();
    for round in 0..3u64 {
        let reports = (0..MAX_REPORTS as u64)
            .map(|i| {
                let mut report = crate::gateways::report(ReleaseState::Active, None);
                report.number.counter = Counter(round * 1000 + i);
                report
            })
            .collect();
        let sync = Sync {
            gateway: "gw-a".parse().unwrap(),
            now: UnixMillis(10 + round),
            facts_digest: Digest::of(b""),
            facts: None,
            root_version: 1,
            assignment: None,
            reports,
        };
        store.sync(sync).await.unwrap();
    }
    let kept = store.reports("gw-a".parse().unwrap()).await.unwrap();
    assert_eq!(kept.len(), MAX_REPORTS);
    assert!(kept.iter().all(|r| r.report.number.counter.0 >= 2000));
}

#[tokio::test]
async fn concurrent_syncs_all_land() {
    let (_directory, store) = open();
    for i in 0..50 {
        store.put(row(&format!("gw-{i}"), "ns-a")).await.unwrap();
    }
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let sync = Sync {
                gateway: format!("gw-{i}").parse().unwrap(),
                now: UnixMillis(10),
                facts_digest: Digest::of(b""),
                facts: None,
                root_version: 1,
                assignment: None,
                reports: vec![crate::gateways::report(ReleaseState::Active, None)],
            };
            store.sync(sync).await.unwrap();
        });
    }
    tasks.join_all().await;
    let report = crate::gateways::report(ReleaseState::Active, None);
    let key = ballast_fleet::store::ReleaseKey { deployment: report.deployment, number: report.number };
    assert_eq!(store.tally(key).await.unwrap().passed, 50);
}
