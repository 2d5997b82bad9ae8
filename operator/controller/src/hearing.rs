//! Since when this operator could hear gateways. Silence is counted from then: an operator that was down, or a machine that
//! was asleep, or a clock that jumped, is no gateway's fault.

use std::sync::{Mutex, PoisonError};

use ballast_bundle::UnixMillis;

/// Passes are at most seconds apart while the process runs; after a longer gap it did not.
const GAP_MILLIS: u64 = 30_000;

/// The first pass since the last gap, and the last one.
#[derive(Debug, Default)]
pub struct Hearing(Mutex<Option<(UnixMillis, UnixMillis)>>);

impl Hearing {
    /// A pass begins.
    pub fn pass(&self, now: UnixMillis) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *inner {
            Some((since, last)) if now >= last && now.0 - last.0 <= GAP_MILLIS => since,
            _ => now,
        };
        *inner = Some((since, now));
    }

    /// Since when gateways could be heard without a gap; the far past before the first pass.
    pub fn since(&self) -> UnixMillis {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map_or(UnixMillis(0), |(since, _)| since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_start_and_anew_after_a_gap_or_a_jump_of_the_clock() {
        let hearing = Hearing::default();
        let at = |now| {
            hearing.pass(UnixMillis(now));
            hearing.since().0
        };
        assert_eq!(at(1_000_000), 1_000_000);
        assert_eq!(at(1_005_000), 1_000_000);
        assert_eq!(at(1_035_000), 1_000_000);
        assert_eq!(at(1_065_001), 1_065_001, "it was down, or asleep");
        assert_eq!(at(1_070_000), 1_065_001);
        assert_eq!(at(1_000_000), 1_000_000, "the clock was set back");
        assert_eq!(at(9_000_000), 9_000_000, "the clock was set");
    }
}
