//! Where the host puts plan, weights and arena in a guest's memory, and how much memory that is.

use crate::SandboxError;

/// Bytes of a Wasm page; every part starts on one.
pub const WASM_PAGE: u64 = 1 << 16;
/// Upper bound of a runner's own stack and statics (`__heap_base`); a test holds the runner to it.
pub const RUNNER_RESERVE: u64 = 1 << 20;
/// A 32-bit memory ends here; the last page stays out of use, so that no end address overflows.
const MAX_MEMORY: u64 = (1 << 32) - WASM_PAGE;

/// Bytes of memory that one instance of the runner needs for a plan, its weights and its arena: what a verdict counts and
/// what the limiter allows. Saturates.
pub fn memory_needed(plan_len: u64, weights_len: u64, arena_len: u64) -> u64 {
    [plan_len, weights_len, arena_len].into_iter().fold(RUNNER_RESERVE, |sum, part| sum.saturating_add(pages(part)))
}

fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(WASM_PAGE).saturating_mul(WASM_PAGE)
}

/// Addresses of the three parts above a guest's heap base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub plan: u32,
    pub weights: u32,
    pub arena: u32,
    /// Bytes of the whole memory.
    pub total: u64,
}

impl Layout {
    pub(crate) fn new(heap_base: u32, plan: u64, weights: u64, arena: u64, limit: u64) -> Result<Self, SandboxError> {
        let starts = [0, plan, weights, arena].into_iter().scan(u64::from(heap_base), |at, part| {
            // The heap base itself is rounded by the first, empty part.
            *at = pages(at.saturating_add(pages(part)));
            Some(*at)
        });
        let mut ends = starts;
        let (Some(plan), Some(weights), Some(arena), Some(total)) =
            (ends.next(), ends.next(), ends.next(), ends.next())
        else {
            return Err(SandboxError::Limit { needed: u64::MAX, limit });
        };
        let limit = limit.min(MAX_MEMORY);
        if total > limit {
            return Err(SandboxError::Limit { needed: total, limit });
        }
        let narrow = |at: u64| u32::try_from(at).map_err(|_| SandboxError::Limit { needed: total, limit });
        Ok(Self { plan: narrow(plan)?, weights: narrow(weights)?, arena: narrow(arena)?, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_on_pages() {
        let layout = Layout::new(70_000, 10, WASM_PAGE, 0, 1 << 30).unwrap();
        let page = WASM_PAGE as u32;
        assert_eq!((layout.plan, layout.weights, layout.arena), (2 * page, 3 * page, 4 * page));
        assert_eq!(layout.total, 4 * WASM_PAGE);
    }

    #[test]
    fn what_is_promised_covers_what_is_laid_out() {
        for [plan, weights, arena] in [[0, 0, 0], [1, 1, 1], [WASM_PAGE, WASM_PAGE + 1, 12_345]] {
            let layout = Layout::new(RUNNER_RESERVE as u32, plan, weights, arena, u64::MAX).unwrap();
            assert_eq!(layout.total, memory_needed(plan, weights, arena));
        }
    }

    #[test]
    fn absurd_sizes_are_refused_not_wrapped() {
        assert!(Layout::new(0, u64::MAX, u64::MAX, u64::MAX, u64::MAX).is_err());
        assert!(Layout::new(u32::MAX, 0, 0, 1, u64::MAX).is_err());
        assert!(Layout::new(0, 0, 0, WASM_PAGE + 1, WASM_PAGE).is_err());
        assert_eq!(memory_needed(u64::MAX, 1, 1), u64::MAX);
    }
}
