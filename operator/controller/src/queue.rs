//! Who compiles next: a bounded number at once, namespaces in turn, and first come, first served inside one. However much
//! one namespace asks for, another one's next compilation waits for one of each namespace at most.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Who waits. Pure. `K` is what is treated alike, `W` whoever waits.
///
/// Invariant: every key is there once, and only while somebody waits under it.
#[derive(Debug)]
struct Line<K, W> {
    /// The first one is next.
    turns: VecDeque<(K, VecDeque<W>)>,
}

impl<K: Eq, W> Line<K, W> {
    const fn new() -> Self {
        Self { turns: VecDeque::new() }
    }

    /// A key that waits already keeps its turn; a new one comes after all others.
    fn join(&mut self, key: K, waiter: W) {
        match self.turns.iter_mut().find(|(known, _)| *known == key) {
            Some((_, waiting)) => waiting.push_back(waiter),
            None => self.turns.push_back((key, VecDeque::from([waiter]))),
        }
    }

    /// Offers one thing to one after the other until somebody takes it. Whoever does not take it is gone, and cost its
    /// key nothing; a key whose waiter took it goes behind the others. False: nobody is left.
    fn next(&mut self, mut takes: impl FnMut(W) -> bool) -> bool {
        while let Some((key, mut waiting)) = self.turns.pop_front() {
            while let Some(waiter) = waiting.pop_front() {
                if takes(waiter) {
                    if !waiting.is_empty() {
                        self.turns.push_back((key, waiting));
                    }
                    return true;
                }
            }
        }
        false
    }

    /// Forgets those for whom `stays` does not hold.
    fn retain(&mut self, stays: impl Fn(&W) -> bool) {
        for (_, waiting) in &mut self.turns {
            waiting.retain(&stays);
        }
        self.turns.retain(|(_, waiting)| !waiting.is_empty());
    }
}

struct Inner<K: Eq> {
    /// More than none only while nobody waits.
    free: usize,
    line: Line<K, oneshot::Sender<Slot<K>>>,
}

/// So many at once, fair over keys.
pub struct Queue<K: Eq>(Arc<Mutex<Inner<K>>>);

/// One of the places. It goes to the next one in line when it is dropped, also when whoever it was meant for is gone.
pub struct Slot<K: Eq>(Option<Arc<Mutex<Inner<K>>>>);

impl<K: Eq> Queue<K> {
    /// `places` at once, at least one.
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner { free: places.max(1), line: Line::new() })))
    }

    /// Waits for a place. Whoever stops waiting (drops this) leaves no gap.
    pub async fn enter(&self, key: K) -> Slot<K> {
        let waiting = {
            let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if inner.free > 0 {
                inner.free -= 1;
                return Slot(Some(Arc::clone(&self.0)));
            }
            // Whoever wishes one thing after the other while nothing moves must not make the line longer and longer.
            inner.line.retain(|waiter| !waiter.is_closed());
            let (sender, waiting) = oneshot::channel();
            inner.line.join(key, sender);
            waiting
        };
        // The line is dropped by nobody who waits in it: it is held by `self`.
        waiting.await.unwrap_or(Slot(None))
    }

    /// How many wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.line.turns.iter().flat_map(|(_, waiting)| waiting).filter(|w| !w.is_closed()).count()
    }
}

impl<K: Eq> Drop for Slot<K> {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        let mut slot = Some(Slot(Some(Arc::clone(&shared))));
        let mut inner = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = inner.line.next(|waiter| match slot.take().map(|slot| waiter.send(slot)) {
            Some(Err(back)) => {
                slot = Some(back);
                false
            }
            Some(Ok(())) | None => true,
        });
        if !taken {
            inner.free += 1;
        }
        // It is back in the count, or somebody's: only its shell is left, which must not be given back twice.
        if let Some(mut shell) = slot {
            shell.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// All sequences of `length` out of `0..choices`.
    fn sequences(choices: usize, length: u32) -> impl Iterator<Item = Vec<usize>> {
        (0..choices.pow(length)).map(move |n| (0..length).map(|place| n / choices.pow(place) % choices).collect())
    }

    /// A waiter as the test remembers it.
    struct Waiter {
        key: usize,
        id: usize,
        /// Of its key, before it.
        ahead: usize,
        /// How often each key was served since it came.
        passed: [usize; 3],
    }

    #[derive(Default)]
    struct Model {
        here: Vec<Waiter>,
        gone: HashSet<usize>,
        came: usize,
    }

    impl Model {
        fn join(&mut self, line: &mut Line<usize, usize>, key: usize) {
            let (id, ahead) = (self.came, self.here.iter().filter(|w| w.key == key).count());
            self.came += 1;
            self.here.push(Waiter { key, id, ahead, passed: [0; 3] });
            line.join(key, id);
        }

        fn next(&mut self, line: &mut Line<usize, usize>, sequence: &[usize]) {
            let mut taken = None;
            let someone = line.next(|id| {
                let here = !self.gone.contains(&id);
                taken = here.then_some(id);
                here
            });
            assert_eq!(someone, !self.here.is_empty(), "{sequence:?}: nobody who waits is forgotten");
            let Some(id) = taken.filter(|_| someone) else { return };
            let place = self.here.iter().position(|w| w.id == id).expect("nobody is served twice");
            let served = self.here.remove(place);
            assert!(
                self.here.iter().all(|w| w.key != served.key || w.id > served.id),
                "{sequence:?}: first come, first served"
            );
            for waiter in &mut self.here {
                waiter.passed[served.key] += 1;
                let most = waiter.ahead + 1;
                let others = (0..3).filter(|key| *key != waiter.key);
                for key in others {
                    assert!(waiter.passed[key] <= most, "{sequence:?}: {key} passed one of {}", waiter.key);
                }
            }
        }
    }

    #[test]
    fn keys_take_turns_whatever_happens() {
        // 0 to 2: somebody comes; 3: a place is free; 4: the one who waits longest leaves.
        for sequence in sequences(5, 8) {
            let (mut line, mut model) = (Line::new(), Model::default());
            for step in &sequence {
                match step {
                    3 => model.next(&mut line, &sequence),
                    4 if !model.here.is_empty() => drop(model.gone.insert(model.here.remove(0).id)),
                    4 => line.retain(|id| !model.gone.contains(id)),
                    key => model.join(&mut line, *key),
                }
            }
            for _ in 0..=model.here.len() {
                model.next(&mut line, &sequence);
            }
            assert!(model.here.is_empty() && line.turns.is_empty(), "{sequence:?}");
        }
    }

    type Entering<'a> = Pin<Box<dyn Future<Output = Slot<&'static str>> + 'a>>;

    fn poll(entering: &mut Entering<'_>) -> Option<Slot<&'static str>> {
        match entering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(slot) => Some(slot),
            Poll::Pending => None,
        }
    }

    #[test]
    fn no_place_is_lost_or_made_whoever_stops_waiting() {
        for places in 1..=2 {
            // 0, 1: enter; 2: a place is given back; 3, 4: the first, the last stops waiting; 5: all look whether it is
            // their turn.
            for sequence in sequences(6, 6) {
                let queue = Queue::new(places);
                let (mut waiting, mut inside) = (Vec::<Entering<'_>>::new(), Vec::new());
                for step in &sequence {
                    match step {
                        2 => drop(inside.pop()),
                        3 if !waiting.is_empty() => drop(waiting.remove(0)),
                        4 => drop(waiting.pop()),
                        3 | 5 => {}
                        key => waiting.push(Box::pin(queue.enter(["a", "b"][*key]))),
                    }
                    // A place may be given to somebody who leaves before looking: so the others look only now and then.
                    let looks = if *step == 5 { 0 } else { waiting.len().saturating_sub(usize::from(*step < 2)) };
                    for mut entering in waiting.split_off(looks) {
                        match poll(&mut entering) {
                            Some(slot) => inside.push(slot),
                            None => waiting.push(entering),
                        }
                    }
                    assert!(inside.len() <= places, "{sequence:?}");
                }
                while !waiting.is_empty() {
                    let before = waiting.len();
                    inside.clear();
                    for mut entering in std::mem::take(&mut waiting) {
                        match poll(&mut entering) {
                            Some(slot) => inside.push(slot),
                            None => waiting.push(entering),
                        }
                    }
                    assert!(waiting.len() < before, "{sequence:?}: a place was lost");
                }
                inside.clear();
                let inner = queue.0.lock().unwrap();
                assert_eq!((inner.free, inner.line.turns.is_empty()), (places, true), "{sequence:?}");
            }
        }
    }
}
