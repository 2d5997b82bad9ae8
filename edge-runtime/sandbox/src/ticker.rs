//! The clock of deadlines, and one thread per engine that raises the epoch every 5 ms while a guest runs, and sleeps when none
//! does, so that an idle gateway is really idle.
//!
//! Epochs only make a guest look at the clock; the clock alone says whether its deadline has passed. So a thread that slept too
//! long cuts nobody who has just begun, and a machine that stood still for a second has used a second up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::SandboxError;

/// Length of an epoch.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Time since the engine was made; never goes back.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// The machine's monotonic clock.
    Machine(Instant),
    /// Nanoseconds that somebody else adds.
    Hand(Arc<AtomicU64>),
}

impl Clock {
    fn now(&self) -> Duration {
        match self {
            Self::Machine(start) => start.elapsed(),
            Self::Hand(nanos) => Duration::from_nanos(nanos.load(Ordering::Acquire)),
        }
    }

    /// Moves a clock that is moved by hand; the machine's moves by itself.
    pub(crate) fn advance(&self, by: Duration) {
        if let Self::Hand(nanos) = self {
            nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
        }
    }

    /// The deadline that is `from_now` away.
    pub(crate) fn deadline(&self, from_now: Duration) -> Deadline {
        Deadline { clock: self.clone(), end: self.now().saturating_add(from_now) }
    }
}

/// A moment on a [`Clock`].
#[derive(Debug, Clone)]
pub(crate) struct Deadline {
    clock: Clock,
    end: Duration,
}

impl Deadline {
    pub(crate) fn has_passed(&self) -> bool {
        self.clock.now() >= self.end
    }
}

#[derive(Default)]
struct State {
    running: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Born with its engine, ends with it.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    clock: Clock,
}

impl Ticker {
    /// Starts the thread.
    pub(crate) fn start(engine: &wasmtime::Engine) -> Result<Self, SandboxError> {
        let shared = Arc::new(Shared::default());
        let (engine, theirs) = (engine.clone(), Arc::clone(&shared));
        std::thread::Builder::new()
            .name("epochs".into())
            .stack_size(64 << 10)
            .spawn(move || tick(&engine, &theirs))
            .map_err(|e| SandboxError::Thread(e.to_string()))?;
        Ok(Self { shared, clock: Clock::Machine(Instant::now()) })
    }

    /// Epochs and time that only [`crate::Engine::tick`] moves.
    pub(crate) fn by_hand() -> Self {
        Self { shared: Arc::default(), clock: Clock::Hand(Arc::default()) }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Epochs run until the guard is dropped.
    pub(crate) fn arm(&self) -> Armed<'_> {
        let mut state = self.shared.state();
        state.running += 1;
        if state.running == 1 {
            self.shared.changed.notify_all();
        }
        Armed(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_all();
    }
}

pub(crate) struct Armed<'a>(&'a Shared);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
    }
}

fn tick(engine: &wasmtime::Engine, shared: &Shared) {
    loop {
        let mut state = shared.state();
        while state.running == 0 && !state.closed {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return;
        }
        drop(state);
        std::thread::sleep(TICK);
        engine.increment_epoch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_counts_from_its_own_beginning_and_by_time_alone() {
        let clock = Clock::Hand(Arc::default());
        clock.advance(Duration::from_secs(7));
        let deadline = clock.deadline(Duration::from_millis(900));
        clock.advance(Duration::from_millis(899));
        assert!(!deadline.has_passed());
        let later = clock.deadline(Duration::from_millis(900));
        // The machine stood still: one step, and a whole second is gone.
        clock.advance(Duration::from_secs(1));
        assert!(deadline.has_passed() && later.has_passed());
        assert!(!clock.deadline(Duration::MAX).has_passed());
        assert!(clock.deadline(Duration::ZERO).has_passed());
    }

    #[test]
    fn the_machines_clock_goes_on_by_itself() {
        let clock = Clock::Machine(Instant::now());
        let deadline = clock.deadline(Duration::from_micros(1));
        while !deadline.has_passed() {
            std::hint::spin_loop();
        }
        assert!(!clock.deadline(Duration::from_secs(3600)).has_passed());
    }
}
