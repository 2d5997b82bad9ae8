//! The pool: a program's instances on operating-system threads of their own, behind a bounded queue.
//!
//! Guests never run on an async runtime's workers. Every thread owns an instance; one more waits warm, so that a fault
//! costs the next request nothing. A deadline counts from the moment a thread takes the request off the queue: a request that
//! comes when the spare is used up too waits for the next one at most that long.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ballast_bundle::protocol::FailureReason;
use bytes::Bytes;

use crate::{Answer, Fault, Instance, Program, SandboxError};

/// A thread's stack: the guest's own, and the host's below it.
const THREAD_STACK: usize = crate::profile::MAX_WASM_STACK + (512 << 10);

/// One request and what to do with its answer.
pub struct Request {
    /// Which of the plan's entries answers.
    pub entry: usize,
    /// One per input of the contract, in its order; row-major, little-endian.
    pub inputs: Vec<Bytes>,
    /// From the moment it leaves the queue.
    pub deadline: Duration,
    /// Once this is past, nobody waits for it any more: it is dropped, `done` uncalled, unless it has been begun.
    pub expires: Option<Instant>,
    /// Called on the pool's thread, once, unless the request is dropped; it should only hand the answer over.
    pub done: Box<dyn FnOnce(Result<Answer, Fault>) + Send>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("entry", &self.entry)
            .field("inputs", &self.inputs.len())
            .field("deadline", &self.deadline)
            .finish()
    }
}

impl Request {
    fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// A request that was not taken; it comes back whole, so that another pool can answer it.
#[derive(Debug)]
pub enum SubmitError {
    /// `limits.maxQueue` requests are waiting: say so to the client (429).
    QueueFull(Request),
    /// The pool is closing: ask the one that replaced it.
    Closed(Request),
}

/// Threads that run one program.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

struct Shared {
    program: Program,
    queue: Mutex<Queue>,
    /// A request came, or the pool closes.
    work: Condvar,
    spare: Mutex<Spare>,
    /// The spare was taken or made, or the pool closes.
    spare_changed: Condvar,
}

struct Queue {
    waiting: VecDeque<Request>,
    max: usize,
    running: usize,
    closed: bool,
}

#[derive(Default)]
struct Spare {
    instance: Option<Instance>,
    wanted: bool,
    /// Why the last attempt to make one failed; whoever waits takes it as the answer.
    failed: Option<SandboxError>,
    closed: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.queue().closed = true;
        self.work.notify_all();
        let mut spare = self.spare();
        spare.closed = true;
        spare.instance = None;
        drop(spare);
        self.spare_changed.notify_all();
    }
}

impl Pool {
    /// Makes `instances` loaded instances and one spare, then starts the threads. Fails as a whole: a pool that started
    /// can answer.
    pub fn start(program: Program, instances: u32) -> Result<Self, SandboxError> {
        let count = instances.max(1) as usize;
        let max = program.spec().limits.max_queue as usize;
        let mut ready = Vec::new();
        for _ in 0..count {
            ready.push(program.instantiate()?);
        }
        let spare = Spare { instance: Some(program.instantiate()?), ..Spare::default() };
        let shared = Arc::new(Shared {
            program,
            queue: Mutex::new(Queue { waiting: VecDeque::new(), max, running: 0, closed: false }),
            work: Condvar::new(),
            spare: Mutex::new(spare),
            spare_changed: Condvar::new(),
        });
        let mut pool = Self { shared, threads: Vec::new() };
        for instance in ready {
            let shared = Arc::clone(&pool.shared);
            pool.spawn("guest", move || serve(&shared, instance))?;
        }
        let shared = Arc::clone(&pool.shared);
        pool.spawn("spare", move || keep_spare(&shared))?;
        Ok(pool)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), SandboxError> {
        // On failure the pool is dropped, which ends the threads that were started.
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(THREAD_STACK)
            .spawn(body)
            .map_err(|e| SandboxError::Thread(e.to_string()))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Queues a request. Never blocks.
    pub fn submit(&self, request: Request) -> Result<(), SubmitError> {
        let mut queue = self.shared.queue();
        if queue.closed {
            return Err(SubmitError::Closed(request));
        }
        // An idle thread takes one at once; only what must wait counts.
        let idle = self.threads.len().saturating_sub(1).saturating_sub(queue.running);
        let room = queue.max.saturating_add(idle);
        let mut dropped = VecDeque::new();
        if queue.waiting.len() >= room {
            // Whoever has given up takes nobody's place.
            let now = Instant::now();
            let (old, waiting) = std::mem::take(&mut queue.waiting).into_iter().partition(|r| r.expired(now));
            (dropped, queue.waiting) = (old, waiting);
        }
        if queue.waiting.len() >= room {
            return Err(SubmitError::QueueFull(request));
        }
        queue.waiting.push_back(request);
        drop(queue);
        self.shared.work.notify_one();
        drop::<VecDeque<Request>>(dropped); // after the lock: what their owners do then is not ours to know
        Ok(())
    }

    /// Requests that wait.
    pub fn queued(&self) -> usize {
        self.shared.queue().waiting.len()
    }

    /// Gives back the requests that no thread has begun, so that another pool can answer them.
    pub fn give_back(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.queue().waiting).into()
    }

    /// The program that it runs.
    pub fn program(&self) -> &Program {
        &self.shared.program
    }

    /// Takes no more requests. Those that were taken are answered; the threads then end. Never blocks; dropping the pool
    /// does the same.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Closes, and returns when the last request is answered and the memory is given back.
    pub fn shutdown(mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to answer.
            let _ = thread.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.close();
    }
}

fn serve(shared: &Shared, first: Instance) {
    let mut instance = Some(first);
    loop {
        let mut queue = shared.queue();
        let request = loop {
            match queue.waiting.pop_front() {
                Some(request) if request.expired(Instant::now()) => {
                    drop(queue);
                    drop(request);
                    queue = shared.queue();
                }
                Some(request) => break request,
                None if queue.closed => return,
                None => queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        };
        queue.running += 1;
        drop(queue);
        let result = answer(shared, &mut instance, &request);
        // Free before the answer is out: who sends the next request at once must not find the queue full.
        shared.queue().running -= 1;
        let done = request.done;
        if std::panic::catch_unwind(AssertUnwindSafe(move || done(result))).is_err() {
            tracing::error!("handing an answer over panicked");
        }
        if instance.is_none() {
            instance = take_spare(shared);
        }
    }
}

fn answer(shared: &Shared, place: &mut Option<Instance>, request: &Request) -> Result<Answer, Fault> {
    let taken = Instant::now();
    let mut instance = match place.take() {
        Some(instance) => instance,
        None => wait_for_spare(shared, taken, request.deadline)?,
    };
    let inputs: Vec<&[u8]> = request.inputs.iter().map(|input| &input[..]).collect();
    let result = instance.infer_entry(request.entry, &inputs, request.deadline.saturating_sub(taken.elapsed()));
    if !instance.is_poisoned() {
        *place = Some(instance);
    }
    result
}

/// An instance after two faults in quick succession: the spare that is being made, within the request's deadline.
fn wait_for_spare(shared: &Shared, taken: Instant, deadline: Duration) -> Result<Instance, Fault> {
    let unavailable = |error: &SandboxError| Fault::Unavailable {
        reason: error.reason(),
        message: crate::error::bounded(&error.to_string()),
    };
    let mut spare = shared.spare();
    // Of an attempt before this one.
    spare.failed = None;
    loop {
        if let Some(instance) = spare.instance.take() {
            spare.wanted = true;
            shared.spare_changed.notify_all();
            return Ok(instance);
        }
        if let Some(error) = spare.failed.take() {
            return Err(unavailable(&error));
        }
        if spare.closed {
            // Nobody makes spares any more; what was taken off the queue before is answered all the same.
            drop(spare);
            return shared.program.instantiate().map_err(|e| unavailable(&e));
        }
        let left = deadline.saturating_sub(taken.elapsed());
        if left.is_zero() {
            let message = "the spare instance was not ready within the deadline".to_owned();
            return Err(Fault::Unavailable { reason: FailureReason::DeadlineExceeded, message });
        }
        spare.wanted = true;
        shared.spare_changed.notify_all();
        spare = shared.spare_changed.wait_timeout(spare, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// The warm instance, if there is one; another is made in the background.
fn take_spare(shared: &Shared) -> Option<Instance> {
    let mut spare = shared.spare();
    let instance = spare.instance.take();
    spare.wanted = true;
    drop(spare);
    shared.spare_changed.notify_all();
    instance
}

fn keep_spare(shared: &Shared) {
    loop {
        let mut spare = shared.spare();
        while !(spare.closed || spare.wanted && spare.instance.is_none()) {
            spare = shared.spare_changed.wait(spare).unwrap_or_else(PoisonError::into_inner);
        }
        if spare.closed {
            return;
        }
        spare.wanted = false;
        drop(spare);
        let made = shared.program.instantiate();
        let mut spare = shared.spare();
        match made {
            Ok(instance) if !spare.closed => spare.instance = Some(instance),
            Ok(_) => {}
            // The next fault, or who waits for one, asks again.
            Err(error) => {
                tracing::warn!(%error, "no spare instance");
                spare.failed = Some(error);
            }
        }
        drop(spare);
        shared.spare_changed.notify_all();
    }
}
