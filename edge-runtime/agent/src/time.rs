//! The gateway's time: a clock that stood still or was never set does not make old documents fresh.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ballast_bundle::{UnixMillis, trusted_time};

/// When this version was made (its source's date, not the build's, so that builds are reproducible): 2026-11-01.
const BUILT: UnixMillis = UnixMillis(1_793_491_200_000);

/// Time = max(clock, build time, last signed `issued`).
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last_issued: AtomicU64,
}

impl Clock {
    pub(crate) fn now(&self) -> UnixMillis {
        trusted_time(machine(), BUILT, UnixMillis(self.last_issued.load(Ordering::Relaxed)))
    }

    /// The machine's own clock, if it is set at all and behind [`Clock::now`].
    pub(crate) fn behind(&self) -> Option<UnixMillis> {
        let clock = machine();
        (clock >= BUILT && clock < self.now()).then_some(clock)
    }

    /// A verified document was issued then.
    pub(crate) fn saw(&self, issued: UnixMillis) {
        self.last_issued.fetch_max(issued.0, Ordering::Relaxed);
    }

    /// A trust root raised the epoch: what was signed in earlier ones, time included, counts no more.
    pub(crate) fn begin_epoch(&self, issued: UnixMillis) {
        self.last_issued.store(issued.0, Ordering::Relaxed);
    }
}

fn machine() -> UnixMillis {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixMillis(u64::try_from(clock.as_millis()).unwrap_or(u64::MAX))
}

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        Some(rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_millis(self.now().0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_times_only_push_forward() {
        let clock = Clock::default();
        let ahead = UnixMillis(clock.now().0 + 1_000_000_000);
        clock.saw(ahead);
        clock.saw(UnixMillis(5));
        assert_eq!(clock.now(), ahead);
        let behind = clock.behind();
        clock.begin_epoch(UnixMillis(5));
        assert!(clock.now() < ahead && clock.behind().is_none());
        assert!(behind.is_some_and(|own| own < ahead), "the machine's own clock is set, and behind");
    }
}
