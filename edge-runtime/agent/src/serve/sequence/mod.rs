//! Requests of a model that carries state: each takes its turn in its sequence, gets what the one before it left, and leaves its own
//! state behind when its answer is good.

mod ask;
mod book;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ballast_bundle::{Contract, Digest, Reset, State};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::infer::{Answered, Context, NoAnswer};
use super::{AnsweredBy, Route};
use crate::loaded::{Loaded, Question};
pub(crate) use ask::{Ask, SequenceId};
use book::{Book, Bounds, Carried, Counts, Entered, Key, Refusal};

type Shared = Mutex<Book<oneshot::Sender<Turn>>>;

fn lock(book: &Shared) -> MutexGuard<'_, Book<oneshot::Sender<Turn>>> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sequences by served model.
#[derive(Default)]
pub(crate) struct Sequences(Mutex<BTreeMap<String, Arc<Shared>>>);

impl Sequences {
    fn books(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Shared>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, model: &str) -> Arc<Shared> {
        Arc::clone(self.books().entry(model.to_owned()).or_default())
    }

    /// What serves `model` from now on: what others carried is dropped, and with nobody there everything.
    pub(super) fn served_by(&self, model: &str, route: Option<&Route>) {
        let Some(route) = route else { return drop(self.books().remove(model)) };
        let book = self.books().get(model).cloned();
        if let Some(book) = book {
            let releases = [Some(&route.primary), route.backup.as_ref()];
            let owners: Vec<Digest> = releases.into_iter().flatten().map(|loaded| owner(loaded)).collect();
            lock(&book).keep(&owners);
        }
    }

    /// For `/metrics`, in Prometheus' text format.
    pub(super) fn render(&self, out: &mut String) {
        let now = Instant::now();
        let all: Vec<(String, (usize, Counts))> =
            self.books().iter().map(|(model, book)| (model.clone(), lock(book).counts(now))).collect();
        type Count = fn(&(usize, Counts)) -> u64;
        let families: [(&str, &str, &str, Count); 6] = [
            ("ballast_sequences", "gauge", "Sequences under way", |(live, _)| *live as u64),
            ("ballast_sequences_begun_total", "counter", "Sequences begun", |(_, c)| c.begun),
            ("ballast_sequences_ended_total", "counter", "Sequences ended by their clients", |(_, c)| c.ended),
            ("ballast_sequences_forgotten_total", "counter", "Sequences that were idle for too long", |(_, c)| {
                c.forgotten
            }),
            (
                "ballast_sequences_reset_total",
                "counter",
                "Answers that began a sequence anew which was under way",
                |(_, c)| c.reset,
            ),
            (
                "ballast_sequences_refused_total",
                "counter",
                "Requests of sequences refused for want of room",
                |(_, c)| c.refused,
            ),
        ];
        for (name, kind, help, value) in families {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (model, counts) in &all {
                let _ = writeln!(out, "{name}{{model=\"{}\"}} {}", crate::metrics::escape(model), value(counts));
            }
        }
    }
}

/// State belongs to a release's bytes: a relabel, or the same release under a new runner, goes on with it.
fn owner(loaded: &Loaded) -> Digest {
    loaded.release.manifest.digest
}

/// A place in a sequence: nobody else of it runs. Dropped, it is the next one's turn.
struct Turn {
    book: Arc<Shared>,
    key: Key,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = lock(&self.book).leave(&self.key, Instant::now());
        if let Some(next) = next {
            // Who does not wait any more gives the turn back, which is dropped, and so on: at most as often as may wait.
            let _ = next.send(Self { book: Arc::clone(&self.book), key: self.key.clone() });
        }
    }
}

/// One request of a sequence while it runs.
pub(super) struct Step {
    turn: Turn,
    ask: Ask,
    /// The release that was asked last had nothing to go on with, and the sequence was under way.
    reset: AtomicBool,
    /// What was carried led to no number.
    anew: AtomicBool,
}

/// What an answer says of its sequence.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) id: SequenceId,
    /// The sequence was under way, and this answer begins anew: another release gives it than the one before, or what was
    /// carried led to no number.
    pub(crate) reset: bool,
}

impl Step {
    /// Whether the release that was asked last went on with state of its own.
    pub(super) fn went_on(&self) -> bool {
        !self.ask.start && !self.reset.load(Ordering::Relaxed)
    }

    /// From here on this request has nothing to go on with; what was carried stays until an answer is good. False if that was so.
    pub(super) fn begin_anew(&self) -> bool {
        !self.anew.swap(true, Ordering::Relaxed)
    }

    /// State for a release: its own from the sequence's last answer, or none.
    fn carried(&self, loaded: &Loaded) -> Option<Vec<Bytes>> {
        let carried = lock(&self.turn.book).carried(&self.turn.key, &owner(loaded));
        let carried = carried.filter(|_| !self.anew.load(Ordering::Relaxed));
        self.reset.store(carried.is_none() && !self.ask.start, Ordering::Relaxed);
        carried
    }

    /// Keeps what a good answer leaves.
    fn answered(&self, answered: &Answered) {
        let contract = &answered.loaded.contract;
        let output = |name: &str| {
            let n = contract.outputs.iter().position(|t| t.name == name)?;
            answered.answer.outputs.get(n).map(|bytes| Bytes::copy_from_slice(bytes))
        };
        let all = contract.state.iter().flat_map(State::carried).map(|s| output(&s.output));
        let Some(state) = all.collect::<Option<Vec<Bytes>>>() else { return };
        let carried = Carried { owner: owner(&answered.loaded), state };
        let reset = self.reset.load(Ordering::Relaxed);
        lock(&self.turn.book).answered(&self.turn.key, carried, self.ask.end, reset);
    }
}

impl Context {
    /// Answers a request that fits the contract of `route`'s primary, whatever protocol it came by: `rows` rows of inputs in the
    /// contract's order, in which those of state are empty, and what its parameters say of a sequence.
    pub(crate) async fn infer_request(
        mut self,
        mut route: Route,
        mut by: AnsweredBy,
        question: Question,
        rows: u64,
        ask: Ask,
    ) -> Result<Answered, NoAnswer> {
        if !route.primary.contract.state.as_ref().is_some_and(State::needs_sequences) {
            return self.infer_rows(route, by, question, rows).await;
        }
        let id = ask.id.clone().ok_or_else(|| NoAnswer::Sequence(NO_SEQUENCE.to_owned()))?;
        let pinned = ask.version.is_some();
        let (turn, waited) = self.turn(&route.primary.contract, &ask, &id).await?;
        if waited && !pinned {
            // Whoever serves now, not whoever served when it came.
            let now = self.router.find(&route.primary.contract.model);
            let now = now.filter(|now| now.primary.answers_for(&route.primary));
            route = now
                .ok_or(NoAnswer::Gone("the model changed while the request waited; read its metadata and ask again"))?;
            by = route.by();
        }
        // Its client was told that there was no answer: a first request must not drop what was before.
        if self.expires.is_some_and(|expires| expires <= Instant::now()) {
            return Err(NoAnswer::Expired);
        }
        if !lock(&turn.book).begin(&turn.key, ask.start) {
            return Err(unknown(&route.primary.contract, &id));
        }
        let step = Arc::new(Step { turn, ask, reset: AtomicBool::new(false), anew: AtomicBool::new(false) });
        self.step = Some(Arc::clone(&step));
        let expires = self.expires;
        let mut answered = self.infer_rows(route, by, question, rows).await?;
        // Its client was told that there was no answer, and comes again with the same: state must be as it was.
        if expires.is_some_and(|expires| expires <= Instant::now()) {
            return Err(NoAnswer::Expired);
        }
        step.answered(&answered);
        answered.told = Some(Told { id, reset: step.reset.load(Ordering::Relaxed) });
        Ok(answered)
    }

    /// Waits for a request's turn; whether it had to wait.
    async fn turn(&self, contract: &Contract, ask: &Ask, id: &SequenceId) -> Result<(Turn, bool), NoAnswer> {
        let (limit, idle) = contract.state.as_ref().map_or((0, 0), |s| (s.max_sequences, s.max_idle_millis));
        let bounds = Bounds {
            sequences: limit as usize,
            idle: Duration::from_millis(idle),
            waiting: contract.limits.max_queue as usize,
        };
        let (book, key) =
            (self.router.sequences.of(&contract.model), Key { version: ask.version.clone(), id: id.clone() });
        let (send, receive) = oneshot::channel();
        let entered = lock(&book).enter(&key, ask.start, &bounds, Instant::now(), send);
        match entered {
            Ok(Entered::Now) => Ok((Turn { book, key }, false)),
            // The sender is dropped with the book at the earliest, and that only with the last turn.
            Ok(Entered::Waits) => match receive.await {
                Ok(turn) => Ok((turn, true)),
                Err(_) => Err(NoAnswer::Gone("the sequence was given up while the request waited; begin it anew")),
            },
            Err(Refusal::Unknown) => Err(unknown(contract, id)),
            Err(Refusal::Waiting) => Err(NoAnswer::QueueFull),
            Err(Refusal::Full(after)) => {
                let message = format!(
                    "{limit} sequences are under way (runtime.sequences.max), and none of them has been idle for {} s; end those that are \
                     done with sequence_end, or try again after Retry-After",
                    idle as f64 / 1000.0
                );
                let after = after.map_or(1, |after| after.as_secs().saturating_add(1));
                Err(NoAnswer::SequencesFull { message, after: u32::try_from(after).unwrap_or(u32::MAX) })
            }
        }
    }

    /// Inputs as a release takes them: those of state are filled in.
    pub(super) fn fed(&self, loaded: &Loaded, question: &Question) -> Question {
        let mut question = question.clone();
        let contract = &loaded.contract;
        let Some(state) = &contract.state else { return question };
        let carried = self.step.as_ref().and_then(|step| step.carried(loaded));
        let mut carried = carried.map(Vec::into_iter);
        for s in &state.inputs {
            let place = contract.inputs.iter().zip(&mut question.inputs).find(|(spec, _)| spec.name == s.input);
            let Some((spec, place)) = place else { continue };
            let before = if s.reset == Reset::OnSwap { carried.as_mut().and_then(Iterator::next) } else { None };
            // A verified contract has beginnings that fit its inputs.
            *place = before.unwrap_or_else(|| s.initial_bytes(spec).unwrap_or_default().into());
        }
        question
    }
}

const NO_SEQUENCE: &str = "this model carries state from request to request: say which sequence the request is of in parameters.sequence_id, \
                           a number other than 0 or a text, and send sequence_start: true with the first request of each";

fn unknown(contract: &Contract, id: &SequenceId) -> NoAnswer {
    let idle = contract.state.as_ref().map_or(0, |state| state.max_idle_millis);
    NoAnswer::Sequence(format!(
        "there is no sequence {}: it was not begun here, has ended, or was idle for {} s; send sequence_start: true with its first request",
        id.value(),
        idle as f64 / 1000.0
    ))
}
