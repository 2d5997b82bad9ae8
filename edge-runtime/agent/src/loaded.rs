//! A release in memory: its contract, its golden vectors, and the pool of instances that answers.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ballast_bundle::golden::MAX_GOLDEN_BYTES;
use ballast_bundle::protocol::FailureReason;
use ballast_bundle::{Contract, MAX_CONTRACT_BYTES, ReleaseRef, ReleaseStatement, Unverified, Verified, VerifyError};
use ballast_sandbox::{Answer, Fault, Pool, Program, ProgramSpec, Request, SubmitError, Weights};
use ballast_slots::ReleaseId;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::in_full;
use crate::metrics::Stats;
use crate::runner::Runner;
use crate::store::{BlobError, Store};
use crate::vectors::Vectors;

const MAX_PLAN: usize = 64 << 20;

/// Why a release cannot be loaded.
#[derive(Debug, Clone)]
pub(crate) struct Unloadable {
    pub(crate) reason: FailureReason,
    pub(crate) message: String,
}

fn unloadable(reason: FailureReason, message: impl std::fmt::Display) -> Unloadable {
    Unloadable { reason, message: message.to_string() }
}

/// Read, checked and compiled into a program, not yet in memory.
pub(crate) struct Prepared {
    deployment: String,
    release: ReleaseRef,
    contract: Verified<Contract>,
    golden: Vectors,
    program: Program,
}

/// A release that can answer.
pub(crate) struct Loaded {
    /// Whose release it is: the state machine's name.
    pub(crate) deployment: String,
    pub(crate) release: ReleaseRef,
    pub(crate) contract: Verified<Contract>,
    pub(crate) golden: Vectors,
    pub(crate) stats: Stats,
    /// Golden vectors that were wrong when it was probed, within what the contract allows.
    pub(crate) known_wrong: BTreeSet<usize>,
    pool: Arc<Pool>,
    memory: u64,
    /// Requests were given back that no thread had begun.
    gave_back: Arc<AtomicBool>,
}

/// Reads the layers that a statement names out of the store, verifying each again through the file that is used.
pub(crate) fn prepare(
    store: &Store,
    release: &ReleaseRef,
    statement: &Verified<ReleaseStatement>,
    model: &str,
    runner: &Runner,
) -> Result<Prepared, Unloadable> {
    let damaged = |e: BlobError| unloadable(FailureReason::VerificationFailed, in_full(&e));
    let invalid = |what: &str, e: &dyn std::fmt::Display| {
        unloadable(FailureReason::InvalidBundle, format!("the bundle's {what} cannot be used: {e}"))
    };
    let layers = &statement.layers;
    let contract = store.read(&layers.contract, MAX_CONTRACT_BYTES).map_err(damaged)?;
    let contract = Unverified::new(&contract[..]).contract(statement);
    let contract = contract.map_err(|e: VerifyError| invalid("contract", &e))?;
    if contract.model != model {
        return Err(invalid("contract", &format!("it is of model {}, the assignment serves {model}", contract.model)));
    }
    runner.runs(&contract).map_err(|e| invalid("plan", &e))?;
    let golden = store.read(&layers.golden, MAX_GOLDEN_BYTES).map_err(damaged)?;
    let golden = Vectors::read(&golden, &contract).map_err(|e| invalid("golden vectors", &e))?;
    let plan: Arc<[u8]> = store.read(&layers.plan, MAX_PLAN).map_err(damaged)?.into();
    let weights: File = store.open(&layers.weights).map_err(damaged)?;
    let spec = ProgramSpec {
        plan,
        weights: Weights::File(Arc::new(weights)),
        inputs: contract.inputs.clone(),
        outputs: contract.outputs.clone(),
        limits: contract.limits.clone(),
        finite_outputs: contract.verification.finite_outputs,
    };
    let program = Program::new(&runner.engine, &runner.module, spec).map_err(|e| unloadable(e.reason(), e))?;
    let more: Vec<_> = (1..contract.entries()).map(|n| contract.entry(n)).collect();
    program.has_entries(&more).map_err(|e| unloadable(e.reason(), e))?;
    let deployment = statement.deployment.name.clone();
    Ok(Prepared { deployment, release: release.clone(), contract, golden, program })
}

impl Prepared {
    /// Bytes of all its instances and the warm spare, and of the state of as many sequences as there may be.
    pub(crate) fn memory(&self) -> u64 {
        let instances = u64::from(self.contract.limits.instances.max(1)).saturating_add(1);
        self.program.memory_needed().saturating_mul(instances).saturating_add(self.contract.state_memory())
    }

    /// Makes the instances. Takes as long as copying the weights.
    pub(crate) fn start(self) -> Result<Loaded, Unloadable> {
        let memory = self.memory();
        let pool = Pool::start(self.program, self.contract.limits.instances).map_err(|e| unloadable(e.reason(), e))?;
        Ok(Loaded {
            deployment: self.deployment,
            release: self.release,
            contract: self.contract,
            golden: self.golden,
            stats: Stats::default(),
            known_wrong: BTreeSet::new(),
            pool: Arc::new(pool),
            memory,
            gave_back: Arc::default(),
        })
    }
}

/// What is asked of a release: one of its plan's entries, with its inputs in the contract's order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    pub(crate) entry: usize,
    pub(crate) inputs: Vec<Bytes>,
}

/// A request that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    /// `maxQueue` requests wait.
    QueueFull,
    /// The release failed or was replaced before the request's turn came.
    Closed,
    /// Its client's own deadline passed before its turn came.
    Expired,
}

impl Loaded {
    pub(crate) fn id(&self) -> ReleaseId {
        ReleaseId::from(&self.release)
    }

    pub(crate) const fn memory(&self) -> u64 {
        self.memory
    }

    /// Requests that wait.
    pub(crate) fn queued(&self) -> usize {
        self.pool.queued()
    }

    /// Answers one request on the pool's threads. With `stand_in` there is another release that can answer: when this one
    /// fails, whatever waits behind the failure is given back for it ([`Busy::Closed`]). What has not begun when it expires is
    /// not run.
    pub(crate) async fn infer(
        &self,
        question: Question,
        stand_in: bool,
        expires: Option<Instant>,
    ) -> Result<Result<Answer, Fault>, Busy> {
        let (send, receive) = oneshot::channel();
        let deadline = Duration::from_millis(self.contract.limits.deadline_millis);
        let (pool, gave_back) = (Arc::downgrade(&self.pool), Arc::clone(&self.gave_back));
        let done = Box::new(move |result: Result<Answer, Fault>| {
            // Here, on the pool's own thread, the next request has not begun yet.
            if stand_in && result.as_ref().is_err_and(Fault::is_guests) {
                give_back(&pool, &gave_back);
            }
            let _ = send.send(result); // a client that went away needs no answer
        });
        let Question { entry, inputs } = question;
        match self.pool.submit(Request { entry, inputs, deadline, expires, done }) {
            Ok(()) => match receive.await {
                Ok(result) => Ok(result),
                Err(_) if expires.is_some_and(|expires| expires <= Instant::now()) => Err(Busy::Expired),
                Err(_) if self.gave_back.load(Ordering::Acquire) => Err(Busy::Closed),
                Err(_) => {
                    Ok(Err(Fault::Unavailable { message: "its thread ended".to_owned(), reason: FailureReason::Trap }))
                }
            },
            Err(SubmitError::QueueFull(_)) => Err(Busy::QueueFull),
            Err(SubmitError::Closed(_)) => Err(Busy::Closed),
        }
    }

    /// It serves no more: requests that still wait here find [`Busy::Closed`]; the one that runs ends here.
    pub(crate) fn leave(&self) {
        give_back(&Arc::downgrade(&self.pool), &self.gave_back);
    }

    /// Whether a request for the one is a request for the other, its answer included, and what clients leave out.
    pub(crate) fn answers_for(&self, other: &Self) -> bool {
        self.contract.inputs == other.contract.inputs
            && self.contract.outputs == other.contract.outputs
            && self.contract.state_names() == other.contract.state_names()
            && self.contract.buckets == other.contract.buckets
    }
}

fn give_back(pool: &Weak<Pool>, gave_back: &AtomicBool) {
    gave_back.store(true, Ordering::Release);
    // Dropping a request ends the wait for its answer.
    drop(pool.upgrade().map(|pool| pool.give_back()));
}
