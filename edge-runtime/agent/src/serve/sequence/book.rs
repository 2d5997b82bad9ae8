//! The sequences of one model: who is under way, in which order requests take their turns, and what was carried last. Pure: the
//! clock is the caller's.
//!
//! A sequence has one state, the last good answer's, and that state has one owner, the release that gave the answer: whoever else
//! goes on with the sequence begins anew.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use ballast_bundle::Digest;
use bytes::Bytes;

use super::ask::SequenceId;

/// Which sequence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Of requests that name the version they want.
    pub(super) version: Option<String>,
    pub(super) id: SequenceId,
}

/// How much there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Sequences.
    pub(super) sequences: usize,
    /// How long one stays that no request comes for.
    pub(super) idle: Duration,
    /// Requests that wait for an earlier one of their sequence, in all.
    pub(super) waiting: usize,
}

/// What a good answer left, and the release (by its manifest) that can go on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) owner: Digest,
    pub(super) state: Vec<Bytes>,
}

/// When a request's turn is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    Now,
    /// Its waiter is given back when it is.
    Waits,
}

/// Why a request has no turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It begins nothing and goes on with nothing.
    Unknown,
    /// Too many sequences; the oldest idle one is forgotten after so long, if any is idle.
    Full(Option<Duration>),
    /// Too many requests wait.
    Waiting,
}

/// What happened, in numbers that only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) begun: u64,
    pub(super) ended: u64,
    pub(super) forgotten: u64,
    pub(super) reset: u64,
    pub(super) refused: u64,
}

struct Sequence<W> {
    /// Whether its first request was answered. If not, only a first request can be.
    begun: bool,
    carried: Option<Carried>,
    /// In order of arrival, behind the one whose turn it is.
    waiting: VecDeque<W>,
    /// Since when nobody has asked; its place among the idle ones. `None`: it is somebody's turn.
    idle: Option<(Instant, u64)>,
}

/// See the module. `W`: who waits.
pub(super) struct Book<W> {
    sequences: HashMap<Key, Sequence<W>>,
    /// The oldest first.
    idle: BTreeMap<(Instant, u64), Key>,
    /// Tells idle ones of one instant apart.
    serial: u64,
    waiting: usize,
    /// For how long idle ones were kept last.
    patience: Duration,
    counts: Counts,
}

impl<W> Default for Book<W> {
    fn default() -> Self {
        Self {
            sequences: HashMap::new(),
            idle: BTreeMap::new(),
            serial: 0,
            waiting: 0,
            patience: Duration::MAX,
            counts: Counts::default(),
        }
    }
}

impl<W> Book<W> {
    /// A request arrives. Whoever enters must [`leave`](Self::leave).
    pub(super) fn enter(
        &mut self,
        key: &Key,
        start: bool,
        bounds: &Bounds,
        now: Instant,
        waiter: W,
    ) -> Result<Entered, Refusal> {
        self.patience = bounds.idle;
        self.forget(now);
        if let Some(sequence) = self.sequences.get_mut(key) {
            if let Some(place) = sequence.idle.take() {
                self.idle.remove(&place);
                return Ok(Entered::Now);
            }
            if self.waiting >= bounds.waiting {
                self.counts.refused += 1;
                return Err(Refusal::Waiting);
            }
            sequence.waiting.push_back(waiter);
            self.waiting += 1;
            return Ok(Entered::Waits);
        }
        if !start {
            return Err(Refusal::Unknown);
        }
        if self.sequences.len() >= bounds.sequences {
            self.counts.refused += 1;
            let oldest = self.idle.first_key_value().map(|((since, _), _)| *since);
            return Err(Refusal::Full(
                oldest.map(|since| bounds.idle.saturating_sub(now.saturating_duration_since(since))),
            ));
        }
        let sequence = Sequence { begun: false, carried: None, waiting: VecDeque::new(), idle: None };
        self.sequences.insert(key.clone(), sequence);
        Ok(Entered::Now)
    }

    /// A request's turn has come: a first one drops what was before. Whether it may go on; if not, nothing was begun.
    pub(super) fn begin(&mut self, key: &Key, start: bool) -> bool {
        let Some(sequence) = self.sequences.get_mut(key) else { return false };
        if start {
            (sequence.begun, sequence.carried) = (false, None);
            self.counts.begun += 1;
        }
        start || sequence.begun
    }

    /// What a release goes on with, if the last answer was its own.
    pub(super) fn carried(&self, key: &Key, owner: &Digest) -> Option<Vec<Bytes>> {
        let carried = self.sequences.get(key)?.carried.as_ref()?;
        (carried.owner == *owner).then(|| carried.state.clone())
    }

    /// The request whose turn it is was answered well. `reset`: by a release that had nothing to go on with.
    pub(super) fn answered(&mut self, key: &Key, carried: Carried, end: bool, reset: bool) {
        let Some(sequence) = self.sequences.get_mut(key) else { return };
        self.counts.reset += u64::from(reset);
        if end {
            (sequence.begun, sequence.carried) = (false, None);
            self.counts.ended += 1;
        } else {
            (sequence.begun, sequence.carried) = (true, Some(carried));
        }
    }

    /// The turn is over, whatever came of it. Who is next is given back: it is their turn from here on.
    pub(super) fn leave(&mut self, key: &Key, now: Instant) -> Option<W> {
        let sequence = self.sequences.get_mut(key)?;
        if let Some(next) = sequence.waiting.pop_front() {
            self.waiting = self.waiting.saturating_sub(1);
            return Some(next);
        }
        if sequence.begun {
            self.serial = self.serial.wrapping_add(1);
            let place = (now, self.serial);
            sequence.idle = Some(place);
            self.idle.insert(place, key.clone());
        } else {
            self.sequences.remove(key);
        }
        None
    }

    /// Releases that are not among these have left: nobody goes on with what they gave.
    pub(super) fn keep(&mut self, owners: &[Digest]) {
        for sequence in self.sequences.values_mut() {
            sequence.carried.take_if(|carried| !owners.contains(&carried.owner));
        }
    }

    /// Drops what nobody asked for in so long.
    fn forget(&mut self, now: Instant) {
        while let Some(oldest) = self.idle.first_entry() {
            if now.saturating_duration_since(oldest.key().0) < self.patience {
                return;
            }
            let key = oldest.remove();
            self.sequences.remove(&key);
            self.counts.forgotten += 1;
        }
    }

    /// How many there are, and what happened.
    pub(super) fn counts(&mut self, now: Instant) -> (usize, Counts) {
        self.forget(now);
        (self.sequences.len(), self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const BOUNDS: Bounds = Bounds { sequences: 2, idle: IDLE, waiting: 3 };

    fn key(id: u64) -> Key {
        Key { version: None, id: SequenceId::Number(id) }
    }

    fn release(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn state(owner: u8, byte: u8) -> Carried {
        Carried { owner: release(owner), state: vec![Bytes::from(vec![byte])] }
    }

    /// One whole request: what it went on with, or why not.
    fn request(
        book: &mut Book<u32>,
        id: u64,
        start: bool,
        end: bool,
        leaves: Option<u8>,
        now: Instant,
    ) -> Result<Option<u8>, Refusal> {
        assert_eq!(book.enter(&key(id), start, &BOUNDS, now, 0)?, Entered::Now);
        let may = book.begin(&key(id), start);
        let had = book.carried(&key(id), &release(1)).map(|s| s[0][0]);
        if let (true, Some(byte)) = (may, leaves) {
            book.answered(&key(id), state(1, byte), end, false);
        }
        assert_eq!(book.leave(&key(id), now), None);
        if may { Ok(had) } else { Err(Refusal::Unknown) }
    }

    #[test]
    fn a_sequence_begins_goes_on_and_ends() {
        let (mut book, now) = (Book::default(), Instant::now());
        assert_eq!(request(&mut book, 7, false, false, Some(1), now), Err(Refusal::Unknown));
        assert_eq!(request(&mut book, 7, true, false, Some(1), now), Ok(None));
        assert_eq!(request(&mut book, 7, false, false, Some(2), now), Ok(Some(1)));
        // One that fails changes nothing; the one after it goes on where the last good one ended.
        assert_eq!(request(&mut book, 7, false, false, None, now), Ok(Some(2)));
        assert_eq!(request(&mut book, 7, false, true, None, now), Ok(Some(2)), "an end that fails is none");
        // A first one begins anew under the same name.
        assert_eq!(request(&mut book, 7, true, false, Some(3), now), Ok(None));
        assert_eq!(request(&mut book, 7, false, true, Some(4), now), Ok(Some(3)));
        assert_eq!(request(&mut book, 7, false, false, Some(5), now), Err(Refusal::Unknown));
        assert_eq!(request(&mut book, 7, true, true, Some(5), now), Ok(None), "all of it in one");
        let (live, counts) = book.counts(now);
        assert_eq!((live, counts.begun, counts.ended), (0, 3, 2));
        assert!(book.idle.is_empty() && book.waiting == 0);
    }

    #[test]
    fn a_first_request_that_fails_leaves_nothing_behind_to_go_on_with() {
        let (mut book, now) = (Book::default(), Instant::now());
        assert_eq!(request(&mut book, 7, true, false, Some(1), now), Ok(None));
        assert_eq!(request(&mut book, 7, true, false, None, now), Ok(None));
        assert_eq!(request(&mut book, 7, false, false, Some(2), now), Err(Refusal::Unknown));
        assert_eq!(book.counts(now).0, 0);
    }

    #[test]
    fn requests_of_one_sequence_take_turns_in_the_order_they_came() {
        let (mut book, now) = (Book::default(), Instant::now());
        let a = key(1);
        assert_eq!(book.enter(&a, true, &BOUNDS, now, 0), Ok(Entered::Now));
        for n in 1..=3 {
            assert_eq!(book.enter(&a, false, &BOUNDS, now, n), Ok(Entered::Waits));
        }
        assert_eq!(book.enter(&a, false, &BOUNDS, now, 4), Err(Refusal::Waiting));
        // Another one is not held up by it.
        assert_eq!(request(&mut book, 2, true, false, Some(9), now), Ok(None));
        assert!(book.begin(&a, true));
        book.answered(&a, state(1, 0), false, false);
        for n in 1..=3u8 {
            assert_eq!(book.leave(&a, now), Some(u32::from(n)));
            assert!(book.begin(&a, false));
            assert_eq!(book.carried(&a, &release(1)), Some(state(1, n - 1).state));
            book.answered(&a, state(1, n), false, false);
        }
        assert_eq!(book.leave(&a, now), None);
        assert_eq!((book.waiting, book.counts(now).1.refused), (0, 1));
        // Who waits behind a first one that fails, or behind a last one, has nothing to go on with.
        for (start, end) in [(true, false), (false, true)] {
            assert_eq!(book.enter(&a, start, &BOUNDS, now, 0), Ok(Entered::Now));
            assert_eq!(book.enter(&a, false, &BOUNDS, now, 1), Ok(Entered::Waits));
            assert!(book.begin(&a, start));
            if end {
                book.answered(&a, state(1, 8), end, false);
            }
            assert_eq!(book.leave(&a, now), Some(1));
            assert!(!book.begin(&a, false));
            assert_eq!(book.leave(&a, now), None);
            assert_eq!(request(&mut book, 1, true, false, Some(1), now), Ok(None));
        }
    }

    #[test]
    fn idle_ones_are_forgotten_by_age_and_no_others_make_room() {
        let (mut book, start) = (Book::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(request(&mut book, 1, true, false, Some(1), at(0)), Ok(None));
        assert_eq!(request(&mut book, 2, true, false, Some(2), at(10)), Ok(None));
        let full = |seconds| Err(Refusal::Full(Some(Duration::from_secs(seconds))));
        assert_eq!(request(&mut book, 3, true, false, Some(3), at(20)), full(40));
        assert_eq!(request(&mut book, 1, false, false, Some(1), at(50)), Ok(Some(1)), "it is young again");
        assert_eq!(request(&mut book, 3, true, false, Some(3), at(50)), full(20));
        assert_eq!(request(&mut book, 2, false, false, Some(2), at(69)), Ok(Some(2)));
        // The first of the two is 60 seconds old now.
        assert_eq!(request(&mut book, 1, false, false, Some(1), at(110)), Err(Refusal::Unknown));
        assert_eq!(request(&mut book, 3, true, false, Some(3), at(110)), Ok(None));
        // One that is somebody's turn is not idle, however long that takes.
        assert_eq!(book.enter(&key(2), false, &BOUNDS, at(111), 0), Ok(Entered::Now));
        assert_eq!(book.enter(&key(3), false, &BOUNDS, at(111), 0), Ok(Entered::Now));
        assert_eq!(request(&mut book, 4, true, false, None, at(9_999)), Err(Refusal::Full(None)));
        assert_eq!(book.carried(&key(2), &release(1)), Some(state(1, 2).state));
        book.leave(&key(2), at(9_999));
        let (live, counts) = book.counts(at(9_999));
        assert_eq!((live, counts.forgotten, counts.refused), (2, 1, 3));
        assert_eq!(book.counts(at(20_000)).0, 1, "the other one is still at work");
    }

    #[test]
    fn only_the_release_that_answered_last_goes_on() {
        let (mut book, now) = (Book::default(), Instant::now());
        let a = key(1);
        assert_eq!(request(&mut book, 1, true, false, Some(1), now), Ok(None));
        // A candidate fails on it: the release before it has all that it needs.
        assert_eq!(book.enter(&a, false, &BOUNDS, now, 0), Ok(Entered::Now));
        assert!(book.begin(&a, false));
        assert_eq!(book.carried(&a, &release(2)), None);
        assert_eq!(book.carried(&a, &release(1)), Some(state(1, 1).state));
        book.answered(&a, state(1, 2), false, false);
        book.leave(&a, now);
        // It answers: what the other one had is of the past.
        assert_eq!(book.enter(&a, false, &BOUNDS, now, 0), Ok(Entered::Now));
        assert!(book.begin(&a, false));
        book.answered(&a, state(2, 3), false, true);
        book.leave(&a, now);
        assert_eq!(book.carried(&a, &release(1)), None);
        assert_eq!(book.carried(&a, &release(2)), Some(state(2, 3).state));
        // It leaves: the sequence is known, and nobody has anything of it.
        book.keep(&[release(1)]);
        assert_eq!(book.carried(&a, &release(2)), None);
        assert_eq!(request(&mut book, 1, false, false, Some(4), now), Ok(None));
        assert_eq!(book.counts(now).1.reset, 1);
        // Sequences of a version that is asked for by name are apart.
        let pinned = Key { version: Some("1".into()), ..a };
        assert_eq!(book.enter(&pinned, false, &BOUNDS, now, 0), Err(Refusal::Unknown));
    }

    /// Against a plain model of what should be: a map of name to the last good byte.
    #[test]
    fn whatever_comes_in_whatever_order_the_books_agree_with_a_plain_one() {
        let mut seed = 0x9e37_79b9_u64;
        let mut next = |n: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % n
        };
        let bounds = Bounds { sequences: 5, idle: IDLE, waiting: 3 };
        let (mut book, mut now) = (Book::default(), Instant::now());
        let mut plain: BTreeMap<u64, (u8, Instant)> = BTreeMap::new();
        for step in 0..20_000u64 {
            now += Duration::from_secs(next(8));
            plain.retain(|_, (_, used)| now.duration_since(*used) < IDLE);
            let (id, start, end, good) = (1 + next(9), next(4) == 0, next(8) == 0, next(5) > 0);
            let known = plain.get(&id).map(|(byte, _)| *byte);
            match book.enter(&key(id), start, &bounds, now, 0u32) {
                Err(Refusal::Unknown) => assert!(known.is_none() && !start),
                Err(Refusal::Full(_)) => assert!(known.is_none() && start && plain.len() == 5),
                Err(Refusal::Waiting) | Ok(Entered::Waits) => panic!("nobody else is here"),
                Ok(Entered::Now) => {
                    assert!(start || known.is_some());
                    assert!(book.begin(&key(id), start));
                    let went_on = book.carried(&key(id), &release(1)).map(|s| s[0][0]);
                    assert_eq!(went_on, known.filter(|_| !start), "step {step}");
                    if good {
                        book.answered(&key(id), state(1, step as u8), end, false);
                    }
                    book.leave(&key(id), now);
                    let after = match (good, end, start) {
                        (true, false, _) => Some(step as u8),
                        (true, true, _) | (false, _, true) => None,
                        (false, _, false) => known,
                    };
                    match after {
                        Some(byte) => drop(plain.insert(id, (byte, now))),
                        None => drop(plain.remove(&id)),
                    }
                }
            }
            assert_eq!((book.counts(now).0, book.idle.len()), (plain.len(), plain.len()), "step {step}");
        }
        let counts = book.counts(now).1;
        assert!(counts.refused > 50 && counts.forgotten > 50 && counts.ended > 50, "{counts:?}");
    }
}
