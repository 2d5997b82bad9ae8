//! What one more instance takes of this machine's memory, beside what the verdict says that it takes.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What an instance takes beside its guest's memory: the engine's tables, a stack, what the allocator keeps.
const BESIDE: u64 = 512 << 10;
/// What is promised to whom may not need it: the runner's own stack and statics, and three parts rounded up to pages of 64 KiB.
const RESERVED: u64 = (1 << 20) + 3 * (64 << 10);
/// Of the rest, the share that a run must touch, percent: a promise may not be many times what is needed.
const TOUCHED: u64 = 90;

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// As the verdict has it.
    pub promised: u64,
    /// What the process grew by.
    pub taken: u64,
}

impl Memory {
    /// That the promise is kept, and is not much more than what is taken.
    pub fn judge(&self) -> Result<(), String> {
        let Self { promised, taken } = *self;
        if taken > promised + BESIDE {
            return Err(format!("memory: an instance takes {taken} bytes, the verdict promises {promised}"));
        }
        if taken < promised.saturating_sub(RESERVED) / 100 * TOUCHED {
            return Err(format!("memory: the verdict promises {promised} bytes, an instance takes {taken}"));
        }
        Ok(())
    }
}

/// Bytes of this process that lie in memory.
pub fn resident() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").context("reading /proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss in smaps_rollup")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().context("Rss in smaps_rollup")?;
    Ok(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_held_from_both_sides() {
        let judged = |promised: u64, taken: u64| Memory { promised, taken }.judge().is_ok();
        let mib = 1 << 20;
        assert!(judged(100 * mib, 99 * mib) && judged(100 * mib, 90 * mib));
        assert!(!judged(100 * mib, 101 * mib), "more than was promised");
        assert!(!judged(100 * mib, 80 * mib), "promised more than is needed");
        assert!(judged(mib, 0) && judged(mib, mib + (256 << 10)), "the runner alone");
    }

    #[test]
    fn memory_that_is_touched_is_resident() {
        let before = resident().unwrap();
        let block = vec![1u8; 64 << 20];
        let grown = resident().unwrap().saturating_sub(before);
        assert!(block.iter().all(|b| *b == 1) && grown > 48 << 20, "{grown}");
    }
}
