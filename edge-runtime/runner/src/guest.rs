//! The exports. One plan, one arena, one thread; no allocator, so nothing grows after the load.

use core::cell::UnsafeCell;
use core::fmt::Write;

use ballast_kernels::simd::{Simd, Wasm};
use ballast_kernels::{Level, Memory};
use ballast_plan::Plan;

use crate::measure::Bench;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// What the host reads as a code; the text is in [`ballast_error`].
#[derive(Clone, Copy)]
#[repr(i32)]
enum Code {
    Plan = 1,
    Weights = 2,
    Arena = 3,
    Address = 4,
    NotLoaded = 5,
    NoEntry = 6,
    State = 7,
}

/// A static of a guest that has one thread.
struct Cell<T>(UnsafeCell<T>);

// SAFETY: the module has no shared memory and so no second thread.
unsafe impl<T> Sync for Cell<T> {}

impl<T> Cell<T> {
    /// The exports do not call each other, so that only one of these is alive at a time.
    #[allow(clippy::mut_from_ref)]
    unsafe fn get(&self) -> &mut T {
        &mut *self.0.get()
    }
}

struct Text {
    bytes: [u8; 256],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        for &b in s.as_bytes() {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = b;
                self.len += 1;
            }
        }
        Ok(())
    }
}

static LOADED: Cell<Option<(Plan<'static>, Memory)>> = Cell(UnsafeCell::new(None));
static ERROR: Cell<Text> = Cell(UnsafeCell::new(Text { bytes: [0; 256], len: 0 }));
static BENCH: Cell<Bench> = Cell(UnsafeCell::new(Bench::new()));

unsafe fn fail(code: Code, message: core::fmt::Arguments<'_>) -> i32 {
    let text = ERROR.get();
    text.len = 0;
    let _ = text.write_fmt(message);
    code as i32
}

unsafe extern "C" {
    static __heap_base: u8;
}

fn heap_base() -> usize {
    (&raw const __heap_base).addr()
}

fn memory_bytes() -> usize {
    core::arch::wasm32::memory_size::<0>() << 16
}

/// `address..address + len` is above the guest's own data, aligned and inside memory.
fn is_hosts(address: u32, len: u32) -> bool {
    let (address, len) = (address as usize, len as usize);
    address >= heap_base() && address % 64 == 0 && address.checked_add(len).is_some_and(|end| end <= memory_bytes())
}

/// Major version in the upper, minor in the lower 16 bits.
#[unsafe(no_mangle)]
extern "C" fn ballast_abi() -> i32 {
    crate::ABI.cast_signed()
}

/// Takes a plan, its weights and its arena.
#[unsafe(no_mangle)]
unsafe extern "C" fn ballast_load(
    plan: u32,
    plan_len: u32,
    weights: u32,
    weights_len: u32,
    arena: u32,
    arena_len: u32,
) -> i32 {
    *LOADED.get() = None;
    let spans = [(plan, plan_len), (weights, weights_len), (arena, arena_len)];
    let disjoint = |(a, a_len): (u32, u32), (b, b_len): (u32, u32)| {
        u64::from(a) + u64::from(a_len) <= u64::from(b) || u64::from(b) + u64::from(b_len) <= u64::from(a)
    };
    let apart = disjoint(spans[0], spans[1]) && disjoint(spans[0], spans[2]) && disjoint(spans[1], spans[2]);
    if !apart || !spans.iter().all(|&(address, len)| is_hosts(address, len)) {
        return fail(Code::Address, format_args!("plan, weights and arena must lie apart, aligned, above __heap_base"));
    }
    let bytes = core::slice::from_raw_parts(plan as usize as *const u8, plan_len as usize);
    let parsed = match Plan::parse(bytes) {
        Ok(parsed) => parsed,
        Err(error) => return fail(Code::Plan, format_args!("{error}")),
    };
    if parsed.weights_bytes() > weights_len {
        return fail(Code::Weights, format_args!("the plan needs {} bytes of weights", parsed.weights_bytes()));
    }
    if parsed.arena_bytes() > arena_len {
        return fail(Code::Arena, format_args!("the plan needs {} bytes of arena", parsed.arena_bytes()));
    }
    if parsed.state_bytes() > 0 {
        return fail(Code::State, format_args!("this runner keeps no state between requests"));
    }
    *LOADED.get() = Some((parsed, Memory { arena: arena as usize as *mut u8, weights: weights as usize as *const u8 }));
    0
}

/// Where the host writes an input; 0: no such.
#[unsafe(no_mangle)]
unsafe extern "C" fn ballast_input(entry: u32, index: u32) -> i32 {
    place(entry, |entry| entry.inputs().nth(index as usize).map(|t| t.at))
}

/// Where the host reads an output; 0: no such.
#[unsafe(no_mangle)]
unsafe extern "C" fn ballast_output(entry: u32, index: u32) -> i32 {
    place(entry, |entry| entry.outputs().nth(index as usize).map(|t| t.at))
}

unsafe fn place(entry: u32, find: impl Fn(&ballast_plan::Entry<'static>) -> Option<u32>) -> i32 {
    let Some((plan, memory)) = LOADED.get() else { return 0 };
    let at = plan.entries().nth(entry as usize).and_then(|entry| find(&entry));
    at.map_or(0, |at| (memory.arena.addr() + at as usize) as i32)
}

/// Runs an entry.
#[unsafe(no_mangle)]
unsafe extern "C" fn ballast_infer(entry: u32) -> i32 {
    let Some((plan, memory)) = LOADED.get() else {
        return fail(Code::NotLoaded, format_args!("no plan is loaded"));
    };
    match crate::infer(Level::Scalar, plan, entry as usize, memory) {
        Some(()) => 0,
        None => fail(Code::NoEntry, format_args!("the plan has no entry {entry}")),
    }
}

/// Address (upper half) and length (lower half) of the last error's text; 0: there was none.
#[unsafe(no_mangle)]
unsafe extern "C" fn ballast_error() -> i64 {
    let text = ERROR.get();
    if text.len == 0 { 0 } else { ((text.bytes.as_ptr().addr() as i64) << 32) | text.len as i64 }
}

/// Work to time. 0: products, gives operations; 1: reads all memory above `__heap_base`, gives bytes; others: 0.
#[unsafe(no_mangle)]
unsafe extern "C" fn ballast_measure(kind: u32, rounds: u32) -> i64 {
    match kind {
        0 => BENCH.get().gemm(Level::Scalar, rounds) as i64,
        1 => {
            let from = heap_base().next_multiple_of(64);
            let bytes = (memory_bytes().saturating_sub(from)) / 64 * 64;
            let mut sums = [Wasm::splat(0.0); 4];
            for _ in 0..rounds {
                for at in (from..from + bytes).step_by(64) {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = Wasm::or(*sum, Wasm::load((at as *const f32).add(v * 4)));
                    }
                }
            }
            let all = Wasm::or(Wasm::or(sums[0], sums[1]), Wasm::or(sums[2], sums[3]));
            // The result must not be dead, or the reads would be.
            core::hint::black_box(Wasm::fold(all, |a, b| a + b));
            i64::from(rounds) * bytes as i64
        }
        _ => 0,
    }
}
