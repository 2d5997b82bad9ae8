//! What a Store may use: memory and time. Wasmtime asks for each memory and table alone; the sum is bounded here.

use wasmtime::{ResourceLimiter, UpdateDeadline};

use crate::ticker::Deadline;

/// Table elements over all tables; the runner has a few hundred functions.
const MAX_TABLE_ELEMENTS: usize = 10_000;

/// The limits of one Store.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_limit: u64,
    memory: u64,
    table_elements: usize,
    frozen: bool,
    deadline: Deadline,
}

impl Limiter {
    /// At most `memory_limit` bytes over all memories.
    pub(crate) fn new(memory_limit: u64, deadline: Deadline) -> Self {
        Self { memory_limit, memory: 0, table_elements: 0, frozen: false, deadline }
    }

    /// When the call that follows ends at the latest.
    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// What to do with a guest at the end of an epoch.
    pub(crate) fn at_epoch(&self) -> UpdateDeadline {
        if self.deadline.has_passed() { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) }
    }

    /// Nothing grows any more: the host has given the memory its final size.
    pub(crate) fn freeze(&mut self) {
        self.frozen = true;
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grown = (desired as u64).saturating_sub(current as u64);
        let sum = self.memory.saturating_add(grown);
        if self.frozen || sum > self.memory_limit || maximum.is_some_and(|max| desired > max) {
            return Ok(false);
        }
        self.memory = sum;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.table_elements.saturating_add(desired.saturating_sub(current));
        if self.frozen || sum > MAX_TABLE_ELEMENTS || maximum.is_some_and(|max| desired > max) {
            return Ok(false);
        }
        self.table_elements = sum;
        Ok(true)
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticker::Clock;

    fn fresh() -> Limiter {
        Limiter::new(100, Clock::Hand(Default::default()).deadline(std::time::Duration::ZERO))
    }

    #[test]
    fn the_sum_counts_and_nothing_grows_once_frozen() {
        let mut limiter = fresh();
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(60, 100, None).unwrap());
        assert!(limiter.table_growing(0, 9_000, None).unwrap());
        assert!(!limiter.table_growing(0, 9_000, None).unwrap());
        let mut limiter = fresh();
        limiter.freeze();
        assert!(!limiter.memory_growing(0, 1, None).unwrap());
        assert!(!limiter.table_growing(0, 1, None).unwrap());
    }
}
