//! A circuit breaker: who does not answer is left alone for a while, and then asked once.

/// So many failures in a row open it.
const FAILURES: u32 = 5;
/// The first pause, in milliseconds; each one that follows without an answer is twice as long, up to …
const FIRST: u64 = 1_000;
/// … a minute.
const LONGEST: u64 = 60_000;

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Everybody may ask.
    Closed {
        /// In a row.
        failures: u32,
    },
    /// Nobody may, until then (milliseconds of a clock that never goes back).
    Open {
        /// The end of the pause.
        until: u64,
        /// How long the pause is.
        pause: u64,
    },
    /// One has been let through to see.
    Trying {
        /// How long the last pause was.
        pause: u64,
    },
}

/// The breaker of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Breaker(BreakerState);

impl Default for Breaker {
    fn default() -> Self {
        Self(BreakerState::Closed { failures: 0 })
    }
}

impl Breaker {
    /// Where it is.
    pub const fn state(&self) -> BreakerState {
        self.0
    }

    /// Whether one would be let through at `now`.
    pub const fn lets(&self, now: u64) -> bool {
        match self.0 {
            BreakerState::Closed { .. } => true,
            BreakerState::Open { until, .. } => now >= until,
            BreakerState::Trying { .. } => false,
        }
    }

    /// Lets one through that [`Breaker::lets`] allowed; it ends as [`Breaker::answered`], [`Breaker::failed`] or
    /// [`Breaker::given_up`].
    pub const fn enter(&mut self) {
        if let BreakerState::Open { pause, .. } = self.0 {
            self.0 = BreakerState::Trying { pause };
        }
    }

    /// It answered.
    pub const fn answered(&mut self) {
        self.0 = BreakerState::Closed { failures: 0 };
    }

    /// It did not, or nothing that can be used. Requests that were under way when it opened change nothing more.
    pub const fn failed(&mut self, now: u64) {
        let pause = match self.0 {
            BreakerState::Closed { failures } if failures + 1 < FAILURES => {
                self.0 = BreakerState::Closed { failures: failures + 1 };
                return;
            }
            BreakerState::Closed { .. } => FIRST,
            BreakerState::Open { .. } => return,
            BreakerState::Trying { pause } if pause < LONGEST / 2 => pause * 2,
            BreakerState::Trying { .. } => LONGEST,
        };
        self.0 = BreakerState::Open { until: now.saturating_add(pause), pause };
    }

    /// Nobody learnt anything. Whoever tried makes room for the next.
    pub const fn given_up(&mut self, now: u64) {
        if let BreakerState::Trying { pause } = self.0 {
            self.0 = BreakerState::Open { until: now, pause };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_it_and_one_answer_closes_it() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            (0..4).for_each(|_| breaker.failed(0));
            breaker.answered();
        }
        (0..4).for_each(|_| breaker.failed(0));
        assert!(breaker.lets(0));
        breaker.failed(0);
        assert!(!breaker.lets(999) && breaker.lets(1_000));
        let (mut now, mut pauses) = (1_000, Vec::new());
        for _ in 0..8 {
            breaker.enter();
            assert!(!breaker.lets(u64::MAX), "one at a time");
            breaker.failed(now);
            let BreakerState::Open { until, pause } = breaker.state() else { panic!("{breaker:?}") };
            pauses.push(pause);
            now = until;
        }
        assert_eq!(pauses, [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        breaker.enter();
        breaker.given_up(now);
        assert!(breaker.lets(now));
        breaker.enter();
        breaker.answered();
        assert_eq!(breaker, Breaker::default());
    }
}
