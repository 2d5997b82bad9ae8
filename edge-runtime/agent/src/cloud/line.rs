//! One deployment's line to the cloud.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ballast_bundle::{Confidence, Contract, DataType, Escalation, Privacy};
use ballast_escalation::{Decision, Ended, Judged, Keep, Outgoing, Permit, Settings, Tensors, judge};
use bytes::Bytes;

use super::client::Server;
use super::keeping::Keeping;
use super::wire;
use crate::time::Clock;

/// Behind a client's back there is time.
const LABEL_DEADLINE: Duration = Duration::from_secs(10);
/// Of a client's own timeout so much is left to give it the edge's answer in time.
const TO_ANSWER: Duration = Duration::from_millis(20);
/// Who has less than this part of the deadline left is in a hurry.
const HURRY: u64 = 4;
/// Handshake and heads, beside bodies: what a request is charged for before it is known.
const OVERHEAD: u64 = 16 << 10;

/// How often what happened.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) answered: AtomicU64,
    pub(super) agreed: AtomicU64,
    pub(super) disagreed: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// Answers whose confidence cannot be told.
    pub(super) unreadable: AtomicU64,
    kept: Mutex<BTreeMap<Keep, u64>>,
}

impl Tally {
    fn keep(&self, keep: Keep) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let count = kept.entry(keep).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) fn kept(&self, keep: Keep) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&keep).copied().unwrap_or_default()
    }
}

/// What is added to an answer.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    /// Of the edge's own answer; of its least sure row.
    pub(crate) confidence: Confidence,
    /// Who answered instead.
    pub(crate) cloud: Option<CloudModel>,
}

/// What the cloud calls its model.
#[derive(Debug, Clone)]
pub(crate) struct CloudModel {
    pub(crate) model: String,
    pub(crate) version: String,
}

/// A line that is in use.
pub(super) struct Line {
    pub(super) deployment: String,
    pub(super) escalation: Escalation,
    pub(super) server: Server,
    pub(super) keeping: Arc<Keeping>,
    pub(super) tally: Arc<Tally>,
    /// What the gateway's owner and the deployment both let out.
    pub(super) privacy: Privacy,
    pub(super) clock: Arc<Clock>,
}

/// A request that is under way. One that is dropped half-way gives its place back.
struct Pending<'a> {
    keeping: &'a Keeping,
    permit: Option<Permit>,
}

impl Pending<'_> {
    fn ended(mut self, ended: Ended) {
        self.end(ended);
    }

    fn end(&mut self, ended: Ended) {
        if let Some(permit) = self.permit.take() {
            self.keeping.with(|escalator, tick| escalator.ended(permit, ended, tick));
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.end(Ended::GivenUp);
    }
}

/// An answer of the edge, as far as it matters here.
pub(super) struct Own<'a> {
    pub(super) contract: &'a Contract,
    pub(super) outputs: &'a [Vec<u8>],
    pub(super) rows: u64,
    /// Its client does not wait for longer.
    pub(super) expires: Option<Instant>,
}

impl Line {
    /// What is to be added to the edge's answer, and the outputs that take its place, if any. Takes no longer than the
    /// deadline.
    pub(super) async fn finish(
        self: Arc<Self>,
        own: Own<'_>,
        inputs: &[Bytes],
    ) -> Option<(Said, Option<Vec<Vec<u8>>>)> {
        let rows = match self.judge(own.contract, own.outputs, own.rows) {
            Ok(rows) => rows,
            Err(error) => {
                // Of every answer the same is wrong: once is enough.
                if self.tally.unreadable.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(
                        error,
                        deployment = self.deployment,
                        "confidence cannot be told; the cloud is not asked"
                    );
                }
                return None;
            }
        };
        let confidence = rows.iter().map(|row| row.confidence).min().unwrap_or(Confidence::CERTAIN);
        let alone = Some((Said { confidence, cloud: None }, None));
        let sent: u64 = inputs.iter().map(|bytes| bytes.len() as u64).sum();
        let bytes = sent.saturating_add(wire::longest(own.contract, own.rows)).saturating_add(OVERHEAD);
        let most = Duration::from_millis(self.escalation.cloud.deadline_millis);
        let left = own.expires.map(|at| at.saturating_duration_since(Instant::now()).saturating_sub(TO_ANSWER));
        let deadline = left.map_or(most, |left| left.min(most));
        if deadline.is_zero() {
            return alone; // nothing is paid for what could not even be sent
        }
        let settings = Settings {
            thresholds: &self.escalation.confidence.thresholds,
            limits: self.escalation.limits,
            privacy: self.privacy,
            sends: Privacy::Any,
        };
        let coin = getrandom::u64().unwrap_or(u64::MAX);
        let decision =
            self.keeping.with(|escalator, tick| escalator.decide(&rows, bytes, coin, settings, self.clock.now(), tick));
        match decision {
            Decision::Keep(keep) => {
                self.tally.keep(keep);
                alone
            }
            Decision::Label(permit) => {
                let (contract, inputs) = (own.contract.clone(), inputs.to_vec());
                let rows_asked = own.rows;
                let deadline = LABEL_DEADLINE.max(most);
                tokio::spawn(async move {
                    let _ = self.ask(permit, &contract, &inputs, rows_asked, &rows, deadline).await;
                });
                alone
            }
            Decision::Ask(permit) => {
                let line = Arc::clone(&self);
                match line.ask(permit, own.contract, inputs, own.rows, &rows, deadline).await {
                    Some(said) => {
                        self.tally.answered.fetch_add(1, Ordering::Relaxed);
                        let cloud = Some(CloudModel { model: said.model, version: said.version });
                        Some((Said { confidence, cloud }, Some(said.outputs)))
                    }
                    None => alone,
                }
            }
        }
    }

    /// Asks, and counts what came of it.
    async fn ask(
        &self,
        permit: Permit,
        contract: &Contract,
        inputs: &[Bytes],
        rows: u64,
        judged: &[Judged],
        deadline: Duration,
    ) -> Option<wire::Said> {
        let keep_first = permit.keep_first;
        let pending = Pending { keeping: &self.keeping, permit: Some(permit) };
        let until = Instant::now() + deadline;
        let (said, ended) = match !keep_first || self.kept(deadline).await {
            true => self.exchange(contract, inputs, rows, deadline, until).await,
            false => (Err("the budget could not be written; nothing was sent".to_owned()), Ended::NotSent),
        };
        let said = said.and_then(|said| {
            let theirs = self.judge(contract, &said.outputs, rows)?;
            let agrees = theirs.iter().map(|row| row.class).eq(judged.iter().map(|row| row.class));
            let tally = if agrees { &self.tally.agreed } else { &self.tally.disagreed };
            tally.fetch_add(1, Ordering::Relaxed);
            Ok(said)
        });
        pending.ended(ended);
        match said {
            Ok(said) => Some(said),
            Err(error) => {
                self.tally.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error, deployment = self.deployment, "the cloud gave no answer that can be used");
                None
            }
        }
    }

    /// Whether the budget is on disk in time. A write that takes longer goes on by itself.
    async fn kept(&self, most: Duration) -> bool {
        let keeping = Arc::clone(&self.keeping);
        let written = tokio::spawn(async move { keeping.keep().await });
        matches!(tokio::time::timeout(most, written).await, Ok(Ok(true)))
    }

    async fn exchange(
        &self,
        contract: &Contract,
        inputs: &[Bytes],
        rows: u64,
        deadline: Duration,
        until: Instant,
    ) -> (Result<wire::Said, String>, Ended) {
        // Nothing leaves but through here.
        let body = Tensors::Input(wire::request(contract, inputs, rows));
        let outgoing = match Outgoing::gate(body, self.privacy) {
            Ok(outgoing) => outgoing,
            Err(error) => return (Err(error.to_string()), Ended::NotSent),
        };
        let limit = usize::try_from(wire::longest(contract, rows)).unwrap_or(usize::MAX);
        match tokio::time::timeout_at(until.into(), self.server.ask(outgoing, limit)).await {
            Ok(Ok(reply)) => {
                let bytes = reply.metered;
                self.tally.bytes.fetch_add(bytes, Ordering::Relaxed);
                match wire::answer(&reply, contract, rows) {
                    Ok(said) => (Ok(said), Ended::Answered { bytes }),
                    Err(error) => (Err(error), Ended::Useless { bytes }),
                }
            }
            Ok(Err(error)) => (Err(error.to_string()), Ended::Failed),
            // A client in a great hurry says nothing of the cloud. Others do: else a dead cloud would be asked for ever.
            Err(_) if deadline.as_millis() < u128::from(self.escalation.cloud.deadline_millis / HURRY) => {
                (Err("its client could not wait for the cloud".to_owned()), Ended::GivenUp)
            }
            Err(_) => (Err(format!("no answer within {} ms", deadline.as_millis())), Ended::Failed),
        }
    }

    /// Classes and confidences by row.
    fn judge(&self, contract: &Contract, outputs: &[Vec<u8>], rows: u64) -> Result<Vec<Judged>, String> {
        let confidence = &self.escalation.confidence;
        if contract.buckets.is_some() {
            return Err("a model of several shapes is not asked for elsewhere yet".to_owned());
        }
        if contract.state.is_some() {
            return Err("a model that carries state answers its own sequences".to_owned());
        }
        if !contract.counted.is_empty() {
            return Err("a model whose answers have counted rows has no confidence".to_owned());
        }
        let n = contract.outputs.iter().position(|spec| spec.name == confidence.output);
        let found = n.and_then(|n| Some((n, contract.outputs.get(n)?, outputs.get(n)?)));
        let Some((n, spec, bytes)) = found else {
            return Err(format!("there is no output {:?}", confidence.output));
        };
        let spec = wire::output(spec, n, contract.batch.as_ref(), rows);
        let classes = spec.shape.last().and_then(|classes| usize::try_from(*classes).ok()).unwrap_or(0);
        if spec.datatype != DataType::Fp32 {
            return Err(format!("output {:?} is not FP32", spec.name));
        }
        let scores: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap_or_default())).collect();
        judge(&scores, classes, confidence.rule, confidence.scores).map_err(|e| e.to_string())
    }
}
