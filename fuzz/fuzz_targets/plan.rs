//! Any bytes as a plan: refused, or one whose every part can be read, and which, where it is little work, runs inside its
//! memory. Arena and weights lie between pages that nobody may touch, so that a step that reads or writes one byte outside of
//! them ends the process.
#![no_main]

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use ballast_kernels::{Level, Memory};
use ballast_plan::Plan;
use libfuzzer_sys::fuzz_target;

/// Work and memory of a plan that is run.
const MOST_WORK: u64 = 1 << 22;
const MOST_BYTES: usize = 1 << 18;
const PAGE: usize = 4096;
/// Memories are aligned so; what is left of a page in front of them is looked at afterwards.
const ALIGNED: usize = 64;
const GUARD: u8 = 0xa5;

unsafe extern "C" {
    fn mmap(at: *mut c_void, bytes: usize, access: c_int, flags: c_int, file: c_int, offset: i64) -> *mut c_void;
    fn mprotect(at: *mut c_void, bytes: usize, access: c_int) -> c_int;
}

/// Room between two pages without access.
struct Room {
    start: usize,
}

impl Room {
    /// With bytes that look like numbers of all kinds in it.
    fn new(writable: bool) -> Self {
        const NONE: c_int = 0;
        const READ: c_int = 1;
        const WRITE: c_int = 2;
        const PRIVATE_ANONYMOUS: c_int = 0x22;
        let all = MOST_BYTES + 2 * PAGE;
        // SAFETY: new memory.
        let place = unsafe { mmap(std::ptr::null_mut(), all, NONE, PRIVATE_ANONYMOUS, -1, 0) };
        assert_ne!(place.addr(), usize::MAX, "no memory");
        let inside = place.wrapping_byte_add(PAGE);
        // SAFETY: the part of it without the first and the last page.
        assert_eq!(unsafe { mprotect(inside, MOST_BYTES, READ | WRITE) }, 0);
        let room = Self { start: inside.expose_provenance() };
        // SAFETY: writable, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(inside.cast::<u8>(), MOST_BYTES) }.copy_from_slice(template());
        if !writable {
            // SAFETY: as above.
            assert_eq!(unsafe { mprotect(inside, MOST_BYTES, READ) }, 0);
        }
        room
    }

    /// Where a memory of so many bytes starts, as near to the end as its alignment lets it.
    fn place(&self, bytes: usize) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.start + MOST_BYTES - bytes.next_multiple_of(ALIGNED))
    }
}

/// Small integers, ordinary and odd floats of 32 bits, and bytes at random.
fn template() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut state = 4u64;
        let words = (0..MOST_BYTES / 4).flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = (state >> 32) as u32;
            match word % 8 {
                0..4 => ((f64::from(word) / f64::from(1u32 << 30) - 2.0) as f32).to_bits(),
                4 => word >> 27,
                5 => [0, f32::NAN.to_bits(), f32::INFINITY.to_bits(), u32::MAX][word as usize >> 8 & 3],
                _ => word,
            }
            .to_le_bytes()
        });
        words.collect()
    })
}

fn run(plan: &Plan<'_>) {
    static ROOMS: OnceLock<[Room; 2]> = OnceLock::new();
    let [arena_bytes, weights_bytes] = [plan.arena_bytes(), plan.weights_bytes()].map(|bytes| bytes as usize);
    if arena_bytes + ALIGNED > MOST_BYTES || weights_bytes > MOST_BYTES {
        return;
    }
    let [arena, weights] = ROOMS.get_or_init(|| [Room::new(true), Room::new(false)]);
    let memory = Memory { arena: arena.place(arena_bytes), weights: weights.place(weights_bytes) };
    for entry in plan.entries().filter(|entry| plan.work(entry) <= MOST_WORK) {
        for level in [Level::Scalar, Level::best()] {
            // SAFETY: the room is larger by this much on both sides, and this is its only use.
            unsafe {
                memory.arena.copy_from(template().as_ptr(), arena_bytes);
                memory.arena.sub(ALIGNED).write_bytes(GUARD, ALIGNED);
                memory.arena.add(arena_bytes).write_bytes(GUARD, arena_bytes.next_multiple_of(ALIGNED) - arena_bytes);
            }
            // SAFETY: the plan was parsed and the memories have its sizes.
            unsafe { ballast_kernels::run(level, plan, entry.items(), &memory) };
            // SAFETY: as above.
            let around = unsafe {
                let behind = arena_bytes.next_multiple_of(ALIGNED) - arena_bytes;
                [(memory.arena.sub(ALIGNED), ALIGNED), (memory.arena.add(arena_bytes), behind)]
                    .map(|(at, bytes)| std::slice::from_raw_parts(at, bytes))
            };
            assert!(around.iter().all(|side| side.iter().all(|b| *b == GUARD)), "{level:?} left its arena");
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(plan) = Plan::parse(bytes) else { return };
    let arena = u64::from(plan.arena_bytes());
    for entry in plan.entries() {
        for tensor in entry.inputs().chain(entry.outputs()) {
            let elements = tensor.dims().map(u64::from).product::<u64>();
            let bytes = tensor.bytes().expect("a tensor that was checked has a length");
            assert!(elements <= bytes && u64::from(tensor.at) + bytes <= arena, "a tensor lies in the arena");
        }
        assert!(entry.steps().count() <= bytes.len(), "every step takes room");
    }
    run(&plan);
});
