//! The clock of deadlines: one thread per engine that raises the epoch every 5 ms while a guest runs, and sleeps when none
//! does, so that an idle gateway is really idle.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::SandboxError;

/// Length of an epoch.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Most epochs raised at once after the thread was not scheduled: a stopped machine does not time every guest out.
const MAX_CATCH_UP: u128 = 20;

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
        Ok(Self { shared })
    }

    /// A clock that only [`crate::Engine::tick`] moves.
    pub(crate) fn by_hand() -> Self {
        Self { shared: Arc::default() }
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

/// Epochs that cover `deadline`; one more, because the first may end at once.
pub(crate) fn ticks(deadline: Duration) -> u64 {
    u64::try_from(deadline.as_micros().div_ceil(TICK.as_micros())).unwrap_or(u64::MAX / 2).min(u64::MAX / 2) + 1
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
        let before = Instant::now();
        std::thread::sleep(TICK);
        for _ in 0..(before.elapsed().as_micros() / TICK.as_micros()).clamp(1, MAX_CATCH_UP) {
            engine.increment_epoch();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_cut_short_by_the_phase_of_the_clock() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(Duration::from_millis(5)), 2);
        assert_eq!(ticks(Duration::from_micros(5_001)), 3);
        assert!(ticks(Duration::MAX) > 1 << 40);
    }
}
