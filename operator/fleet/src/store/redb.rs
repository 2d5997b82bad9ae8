//! The embedded store. One thread writes; whatever waits for it when it starts a transaction goes into that commit,
//! so that a thousand syncs a second cost a few disk flushes, not a thousand.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use ballast_bundle::{GatewayId, NamespaceUid, ReleaseNumber, UnixMillis};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::{
    Enroll, GatewayRow, GatewayState, GatewayStore, MAX_REPORTS, Page, ReleaseKey, StoreError, StoredReport, Sync,
    Tally,
};
use crate::BoxFuture;
use crate::labels::Labels;
use crate::token::TokenRecord;

type Bytes = TableDefinition<'static, &'static str, &'static [u8]>;
const GATEWAYS: Bytes = TableDefinition::new("gateways-v1");
/// Key digest (hex) → gateway id.
const KEYS: TableDefinition<'static, &'static str, &'static str> = TableDefinition::new("keys-v1");
/// Namespace, NUL, display name → gateway id.
const NAMES: TableDefinition<'static, &'static str, &'static str> = TableDefinition::new("names-v1");
/// Secret's hash (hex) → token.
const TOKENS: Bytes = TableDefinition::new("tokens-v1");
/// Gateway, NUL, namespace/deployment, NUL, release number → report.
const REPORTS: Bytes = TableDefinition::new("reports-v1");
/// Namespace/deployment, NUL, release number → tally.
const TALLIES: Bytes = TableDefinition::new("tallies-v1");
/// Revision → gateway id; a row has exactly one entry.
const CHANGES: TableDefinition<'static, u64, &'static str> = TableDefinition::new("changes-v1");
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta-v1");

/// Writes that may share one commit; bounds how long the first of them waits for the last.
const BATCH: usize = 512;
/// Writes that may wait; more callers wait for room.
const QUEUE: usize = 4096;

fn backend(error: impl std::fmt::Display) -> StoreError {
    StoreError::Backend(error.to_string())
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(backend)
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(backend)
}

fn number_key(number: ReleaseNumber) -> String {
    format!("{:010}.{:020}", number.epoch, number.counter.0)
}

fn tally_key(key: &ReleaseKey) -> String {
    format!("{}\0{}", key.deployment, number_key(key.number))
}

fn report_key(gateway: &GatewayId, key: &ReleaseKey) -> String {
    format!("{gateway}\0{}", tally_key(key))
}

/// The open tables of one write transaction.
struct Tables<'t> {
    gateways: Table<'t, &'static str, &'static [u8]>,
    keys: Table<'t, &'static str, &'static str>,
    names: Table<'t, &'static str, &'static str>,
    tokens: Table<'t, &'static str, &'static [u8]>,
    reports: Table<'t, &'static str, &'static [u8]>,
    tallies: Table<'t, &'static str, &'static [u8]>,
    changes: Table<'t, u64, &'static str>,
    meta: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    fn open(txn: &'t redb::WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            gateways: txn.open_table(GATEWAYS).map_err(backend)?,
            keys: txn.open_table(KEYS).map_err(backend)?,
            names: txn.open_table(NAMES).map_err(backend)?,
            tokens: txn.open_table(TOKENS).map_err(backend)?,
            reports: txn.open_table(REPORTS).map_err(backend)?,
            tallies: txn.open_table(TALLIES).map_err(backend)?,
            changes: txn.open_table(CHANGES).map_err(backend)?,
            meta: txn.open_table(META).map_err(backend)?,
        })
    }

    fn gateway(&self, id: &str) -> Result<Option<GatewayRow>, StoreError> {
        self.gateways.get(id).map_err(backend)?.map(|v| read_json(v.value())).transpose()
    }

    /// Writes a row under the next revision; keeps the indexes and the change feed in step.
    fn write(&mut self, mut row: GatewayRow) -> Result<GatewayRow, StoreError> {
        let previous = self.gateway(row.id.as_str())?;
        let revision = self.meta.get("revision").map_err(backend)?.map_or(0, |v| v.value()) + 1;
        self.meta.insert("revision", revision).map_err(backend)?;
        row.revision = revision;
        if let Some(previous) = &previous {
            self.changes.remove(previous.revision).map_err(backend)?;
            for key in previous.keys.iter().filter(|k| !row.keys.contains(k)) {
                self.keys.remove(key.hex().as_str()).map_err(backend)?;
            }
        }
        for key in &row.keys {
            self.keys.insert(key.hex().as_str(), row.id.as_str()).map_err(backend)?;
        }
        if let Some(name) = &row.display_name {
            self.names.insert(format!("{}\0{name}", row.namespace).as_str(), row.id.as_str()).map_err(backend)?;
        }
        self.changes.insert(revision, row.id.as_str()).map_err(backend)?;
        self.gateways.insert(row.id.as_str(), json(&row)?.as_slice()).map_err(backend)?;
        // Only enrolled gateways are in any denominator.
        let was = previous.is_some_and(|p| p.state == GatewayState::Enrolled);
        let is = row.state == GatewayState::Enrolled;
        if was != is {
            for report in self.reports_of(&row.id)? {
                self.count(&report, if is { 1 } else { -1 })?;
            }
        }
        Ok(row)
    }

    fn count(&mut self, report: &StoredReport, sign: i64) -> Result<(), StoreError> {
        let key = tally_key(&ReleaseKey { deployment: report.report.deployment.clone(), number: report.report.number });
        let mut tally: Tally = self
            .tallies
            .get(key.as_str())
            .map_err(backend)?
            .map(|v| read_json(v.value()))
            .transpose()?
            .unwrap_or_default();
        tally.count(report, sign);
        self.tallies.insert(key.as_str(), json(&tally)?.as_slice()).map_err(backend)?;
        Ok(())
    }

    fn reports_of(&self, id: &GatewayId) -> Result<Vec<StoredReport>, StoreError> {
        reports_in(&self.reports, id)
    }

    fn enroll(&mut self, e: Enroll) -> Result<GatewayRow, StoreError> {
        let known = self.keys.get(e.key.hex().as_str()).map_err(backend)?.map(|v| v.value().to_owned());
        if let Some(row) = known.map(|id| self.gateway(&id)).transpose()?.flatten() {
            // The answer was lost on the way. The key proves that it is the same gateway; no use is counted.
            return if row.state == GatewayState::Enrolled { Ok(row) } else { Err(StoreError::NotEnrolled(row.id)) };
        }
        let hash = e.token.hex();
        let token = self.tokens.get(hash.as_str()).map_err(backend)?.map(|v| read_json::<TokenRecord>(v.value()));
        let mut token = token.transpose()?.ok_or(StoreError::TokenUnknown)?;
        if e.now >= token.expires {
            return Err(StoreError::TokenExpired(token.name));
        }
        if token.used >= token.uses {
            return Err(StoreError::TokenUsedUp(token.name));
        }
        let replaced = match (&e.display_name, token.allow_replace) {
            (Some(name), true) => {
                let key = format!("{}\0{name}", token.namespace);
                let id = self.names.get(key.as_str()).map_err(backend)?.map(|v| v.value().to_owned());
                id.map(|id| self.gateway(&id)).transpose()?.flatten().filter(|r| r.state == GatewayState::Enrolled)
            }
            _ => None,
        };
        token.used += 1;
        self.tokens.insert(hash.as_str(), json(&token)?.as_slice()).map_err(backend)?;
        self.write(GatewayRow {
            id: replaced.as_ref().map_or(e.id, |r| r.id.clone()),
            namespace: token.namespace,
            token: token.name,
            display_name: e.display_name,
            labels: token.labels,
            keys: vec![e.key],
            state: GatewayState::Enrolled,
            facts: e.facts,
            facts_digest: None,
            enrolled: e.now,
            last_seen: None,
            certificate_expires: None,
            target: None,
            assignment: None,
            root_version: 0,
            // The sequence floor of a replaced box is gone with its disk, ours is kept: it only ever grows.
            pointer: replaced.and_then(|r| r.pointer),
            revision: 0,
        })
    }

    fn sync(&mut self, s: Sync) -> Result<(GatewayRow, Vec<StoredReport>), StoreError> {
        let mut row = self.gateway(s.gateway.as_str())?.ok_or_else(|| StoreError::NoGateway(s.gateway.clone()))?;
        if row.state != GatewayState::Enrolled {
            return Err(StoreError::NotEnrolled(s.gateway));
        }
        row.last_seen = Some(s.now);
        row.root_version = s.root_version;
        row.assignment = s.assignment;
        if let Some(facts) = s.facts {
            row.facts = facts;
            row.facts_digest = Some(s.facts_digest);
        } else if row.facts_digest != Some(s.facts_digest) {
            row.facts_digest = None;
        }
        for report in s.reports {
            let key = ReleaseKey { deployment: report.deployment.clone(), number: report.number };
            let key = report_key(&row.id, &key);
            let previous = self.reports.get(key.as_str()).map_err(backend)?.map(|v| read_json(v.value()));
            let previous: Option<StoredReport> = previous.transpose()?;
            if let Some(previous) = &previous {
                self.count(previous, -1)?;
            }
            let stored = StoredReport::update(previous, report, s.now);
            self.count(&stored, 1)?;
            self.reports.insert(key.as_str(), json(&stored)?.as_slice()).map_err(backend)?;
        }
        let mut reports = self.reports_of(&row.id)?;
        if reports.len() > MAX_REPORTS {
            reports.sort_by_key(|r| std::cmp::Reverse(r.received));
            for old in reports.split_off(MAX_REPORTS) {
                let key = ReleaseKey { deployment: old.report.deployment.clone(), number: old.report.number };
                self.reports.remove(report_key(&row.id, &key).as_str()).map_err(backend)?;
                self.count(&old, -1)?;
            }
        }
        Ok((self.write(row)?, reports))
    }

    fn put_token(&mut self, mut token: TokenRecord) -> Result<(), StoreError> {
        let known = self.tokens.get(token.hash.hex().as_str()).map_err(backend)?.map(|v| read_json(v.value()));
        let known: Option<TokenRecord> = known.transpose()?;
        token.used = known.map_or(0, |k| k.used);
        self.remove_token(&token.namespace, &token.name)?;
        self.tokens.insert(token.hash.hex().as_str(), json(&token)?.as_slice()).map_err(backend)?;
        Ok(())
    }

    fn remove_token(&mut self, namespace: &NamespaceUid, name: &str) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for entry in self.tokens.iter().map_err(backend)? {
            let (key, value) = entry.map_err(backend)?;
            let token: TokenRecord = read_json(value.value())?;
            if &token.namespace == namespace && token.name == name {
                gone.push(key.value().to_owned());
            }
        }
        for key in gone {
            self.tokens.remove(key.as_str()).map_err(backend)?;
        }
        Ok(())
    }
}

fn reports_in(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    id: &GatewayId,
) -> Result<Vec<StoredReport>, StoreError> {
    let (from, to) = (format!("{id}\0"), format!("{id}\u{1}"));
    let mut reports = Vec::new();
    for entry in table.range(from.as_str()..to.as_str()).map_err(backend)? {
        let (_, value) = entry.map_err(backend)?;
        reports.push(read_json(value.value())?);
    }
    Ok(reports)
}

/// Called after the commit, with its outcome.
type Reply = Box<dyn FnOnce(Result<(), String>) + Send>;
/// Runs inside the transaction. `Err` = the transaction must not be committed.
type Job = Box<dyn FnOnce(&mut Tables<'_>) -> (Reply, Result<(), String>) + Send>;

/// [`GatewayStore`] in one redb file.
pub struct RedbStore {
    db: Arc<Database>,
    jobs: mpsc::SyncSender<Job>,
    born: UnixMillis,
}

impl RedbStore {
    /// Opens the file, or makes it. Fails when another process holds it.
    pub fn open(path: &Path, now: UnixMillis) -> Result<Self, StoreError> {
        let db = Arc::new(Database::create(path).map_err(backend)?);
        let txn = db.begin_write().map_err(backend)?;
        let born = {
            let mut tables = Tables::open(&txn)?;
            let born = tables.meta.get("born").map_err(backend)?.map(|v| v.value());
            if born.is_none() {
                tables.meta.insert("born", now.0).map_err(backend)?;
            }
            UnixMillis(born.unwrap_or(now.0))
        };
        txn.commit().map_err(backend)?;
        let (jobs, queue) = mpsc::sync_channel::<Job>(QUEUE);
        let writer = Arc::clone(&db);
        std::thread::Builder::new()
            .name("gateway-store".into())
            .spawn(move || {
                while let Ok(first) = queue.recv() {
                    let mut batch = vec![first];
                    while batch.len() < BATCH
                        && let Ok(next) = queue.try_recv()
                    {
                        batch.push(next);
                    }
                    commit(&writer, batch);
                }
            })
            .map_err(backend)?;
        Ok(Self { db, jobs, born })
    }

    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let (sender, answer) = oneshot::channel();
        let job: Job = Box::new(move |tables| {
            let result = work(tables);
            // A refusal changed nothing; a failure may have left half a change behind.
            let verdict = match &result {
                Err(StoreError::Backend(message)) => Err(message.clone()),
                _ => Ok(()),
            };
            let reply: Reply = Box::new(move |committed| {
                let result = committed.map_err(StoreError::Backend).and(result);
                drop(sender.send(result)); // whoever asked may have gone away
            });
            (reply, verdict)
        });
        let jobs = self.jobs.clone();
        Box::pin(async move {
            if let Err(mpsc::TrySendError::Full(job) | mpsc::TrySendError::Disconnected(job)) = jobs.try_send(job) {
                tokio::task::spawn_blocking(move || jobs.send(job))
                    .await
                    .map_err(backend)?
                    .map_err(|_| backend("its thread has ended"))?;
            }
            answer.await.map_err(|_| backend("its thread has ended"))?
        })
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&redb::ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let db = Arc::clone(&self.db);
        Box::pin(async move {
            tokio::task::spawn_blocking(move || work(&db.begin_read().map_err(backend)?)).await.map_err(backend)?
        })
    }
}

fn commit(db: &Database, batch: Vec<Job>) {
    let mut replies = Vec::with_capacity(batch.len());
    let outcome = (|| -> Result<(), String> {
        let txn = db.begin_write().map_err(|e| e.to_string())?;
        {
            let mut tables = Tables::open(&txn).map_err(|e| e.to_string())?;
            for job in batch {
                let (reply, verdict) = job(&mut tables);
                replies.push(reply);
                verdict?;
            }
        }
        txn.commit().map_err(|e| e.to_string())
    })();
    for reply in replies {
        reply(outcome.clone());
    }
}

impl GatewayStore for RedbStore {
    fn born(&self) -> UnixMillis {
        self.born
    }

    fn gateway(&self, id: GatewayId) -> BoxFuture<'_, Result<Option<GatewayRow>, StoreError>> {
        self.read(move |txn| {
            let table = txn.open_table(GATEWAYS).map_err(backend)?;
            table.get(id.as_str()).map_err(backend)?.map(|v| read_json(v.value())).transpose()
        })
    }

    fn put(&self, row: GatewayRow) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.write(move |tables| {
            let stored = tables.gateway(row.id.as_str())?.map_or(0, |r| r.revision);
            if stored != row.revision {
                return Err(StoreError::Conflict(row.id));
            }
            tables.write(row).map(|r| r.revision)
        })
    }

    fn enroll(&self, enroll: Enroll) -> BoxFuture<'_, Result<GatewayRow, StoreError>> {
        self.write(move |tables| tables.enroll(enroll))
    }

    fn adopt(&self, row: GatewayRow) -> BoxFuture<'_, Result<GatewayRow, StoreError>> {
        self.write(move |tables| match tables.gateway(row.id.as_str())? {
            Some(known) => Ok(known),
            None => tables.write(row),
        })
    }

    fn sync(&self, sync: Sync) -> BoxFuture<'_, Result<(GatewayRow, Vec<StoredReport>), StoreError>> {
        self.write(move |tables| tables.sync(sync))
    }

    fn list(
        &self,
        namespace: Option<NamespaceUid>,
        after: Option<GatewayId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.read(move |txn| {
            let table = txn.open_table(GATEWAYS).map_err(backend)?;
            let from = after.map_or(String::new(), |id| format!("{id}\0"));
            let mut page = Page::default();
            for entry in table.range(from.as_str()..).map_err(backend)? {
                let row: GatewayRow = read_json(entry.map_err(backend)?.1.value())?;
                if namespace.as_ref().is_some_and(|n| *n != row.namespace) {
                    continue;
                }
                if page.rows.len() == limit {
                    page.next = page.rows.last().map(|r| r.id.clone());
                    break;
                }
                page.rows.push(row);
            }
            Ok(page)
        })
    }

    fn changes(&self, since: u64, limit: usize) -> BoxFuture<'_, Result<Vec<GatewayRow>, StoreError>> {
        self.read(move |txn| {
            let changes = txn.open_table(CHANGES).map_err(backend)?;
            let gateways = txn.open_table(GATEWAYS).map_err(backend)?;
            let mut rows = Vec::new();
            for entry in changes.range(since.saturating_add(1)..).map_err(backend)?.take(limit) {
                let (_, id) = entry.map_err(backend)?;
                if let Some(row) = gateways.get(id.value()).map_err(backend)? {
                    rows.push(read_json(row.value())?);
                }
            }
            Ok(rows)
        })
    }

    fn reports(&self, id: GatewayId) -> BoxFuture<'_, Result<Vec<StoredReport>, StoreError>> {
        self.read(move |txn| reports_in(&txn.open_table(REPORTS).map_err(backend)?, &id))
    }

    fn tally(&self, key: ReleaseKey) -> BoxFuture<'_, Result<Tally, StoreError>> {
        self.read(move |txn| {
            let table = txn.open_table(TALLIES).map_err(backend)?;
            let value = table.get(tally_key(&key).as_str()).map_err(backend)?;
            value.map(|v| read_json(v.value())).transpose().map(Option::unwrap_or_default)
        })
    }

    fn put_token(&self, token: TokenRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(move |tables| tables.put_token(token))
    }

    fn remove_token(&self, namespace: NamespaceUid, name: String) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(move |tables| tables.remove_token(&namespace, &name))
    }

    fn tokens(&self) -> BoxFuture<'_, Result<Vec<TokenRecord>, StoreError>> {
        self.read(|txn| {
            let table = txn.open_table(TOKENS).map_err(backend)?;
            let mut tokens = Vec::new();
            for entry in table.iter().map_err(backend)? {
                tokens.push(read_json(entry.map_err(backend)?.1.value())?);
            }
            Ok(tokens)
        })
    }

    fn wish(
        &self,
        id: GatewayId,
        state: GatewayState,
        labels: Option<Labels>,
    ) -> BoxFuture<'_, Result<GatewayRow, StoreError>> {
        self.write(move |tables| {
            let mut row = tables.gateway(id.as_str())?.ok_or(StoreError::NoGateway(id))?;
            let labels = labels.unwrap_or_else(|| row.labels.clone());
            if row.state == state && row.labels == labels {
                return Ok(row);
            }
            // Whatever happens to the object that said so.
            if row.state == GatewayState::Revoked && state != GatewayState::Revoked {
                return Err(StoreError::Revoked(row.id));
            }
            row.state = state;
            row.labels = labels;
            tables.write(row)
        })
    }
}
