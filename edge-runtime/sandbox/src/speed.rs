//! How fast this machine runs the runner: what a gateway reports of itself, and what a verdict's latency is made of.

use std::time::{Duration, Instant};

use ballast_bundle::protocol::Speed;

use crate::guest::Guest;
use crate::layout::Layout;
use crate::{Engine, Fault, Module, SandboxError};

/// Work of the runner's micro-benchmark.
const PRODUCT: i32 = 0;
const READ: i32 = 1;
/// Memory that is read: larger than the caches of most gateways, small enough for all of them.
const READ_BYTES: u64 = 32 << 20;
/// One measurement takes at least this long, and the best of a few counts: what else runs only makes it slower.
const AT_LEAST: Duration = Duration::from_millis(20);
const REPEATS: u32 = 5;
const DEADLINE: Duration = Duration::from_secs(10);
const MOST_ROUNDS: i32 = 1 << 24;

/// Measures matrix products and streaming reads of one thread in the sandbox, in about a quarter of a second.
pub fn measure_speed(_engine: &Engine, runner: &Module) -> Result<Speed, SandboxError> {
    let limit = crate::memory_needed(0, 0, READ_BYTES);
    let mut guest = Guest::new(runner, limit)?;
    let layout = Layout::new(guest.heap_base, 0, 0, READ_BYTES, limit)?;
    guest.grow_once(layout.total)?;
    Ok(Speed { gflops: per_nanosecond(&mut guest, PRODUCT)?, memory_bandwidth: per_nanosecond(&mut guest, READ)? })
}

/// Work per nanosecond (which is giga per second) of a kind.
fn per_nanosecond(guest: &mut Guest, kind: i32) -> Result<f64, SandboxError> {
    let measure = guest
        .measure
        .clone()
        .ok_or_else(|| SandboxError::Abi { message: format!("it does not export {}", crate::abi::MEASURE) })?;
    let mut run = |rounds: i32| -> Result<(f64, Duration), SandboxError> {
        let start = Instant::now();
        let work = guest.call(&measure, (kind, rounds), DEADLINE).map_err(SandboxError::Load)?;
        match u64::try_from(work) {
            Ok(work) if work > 0 => Ok((work as f64, start.elapsed())),
            _ => Err(SandboxError::Load(Fault::Abi { message: format!("it did no work of kind {kind}") })),
        }
    };
    let mut rounds = 1;
    while run(rounds)?.1 < AT_LEAST && rounds < MOST_ROUNDS {
        rounds *= 2;
    }
    let mut best = 0.0f64;
    for _ in 0..REPEATS {
        let (work, time) = run(rounds)?;
        best = best.max(work / (time.as_nanos().max(1) as f64));
    }
    Ok(best)
}
