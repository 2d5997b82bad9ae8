//! A plan of one step over memory with guards.

use ballast_kernels::{Level, Memory, run_step};
use ballast_plan::build::{PlanBuilder, TensorDef};
use ballast_plan::{At, DType, Plan, Step};

/// What guards hold: no kernel may change it.
const GUARD: u8 = 0xa5;
const GUARD_BYTES: usize = 256;

/// Random floats from a seed (xorshift*), in −1..1.
pub fn floats(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Arena and weights under construction.
#[derive(Default, Clone)]
pub struct Bench {
    pub builder: PlanBuilder,
    arena: Vec<u8>,
    weights: Vec<u8>,
}

fn append(to: &mut Vec<u8>, bytes: &[u8]) -> u32 {
    to.resize(to.len().next_multiple_of(8), 0);
    let at = to.len();
    to.extend_from_slice(bytes);
    at as u32
}

pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

impl Bench {
    pub fn arena(&mut self, values: &[f32]) -> At {
        self.arena_bytes(&bytes(values))
    }

    pub fn arena_bytes(&mut self, bytes: &[u8]) -> At {
        At::arena(append(&mut self.arena, bytes)).unwrap()
    }

    pub fn room(&mut self, bytes: u64) -> At {
        self.arena_bytes(&vec![0xff; bytes as usize])
    }

    pub fn weights(&mut self, values: &[f32]) -> At {
        At::weights(append(&mut self.weights, &bytes(values))).unwrap()
    }

    /// Runs the step on every level that this CPU has; gives `bytes` at `out` for each.
    pub fn run(mut self, step: impl Into<Step>, out: At, bytes: usize) -> Vec<Vec<u8>> {
        let def = TensorDef { name: "out".into(), dtype: DType::U8, dims: vec![bytes as u32], at: out.offset() };
        self.builder.entry("main", vec![], vec![def], &[step.into()]);
        let plan =
            self.builder.finish(self.arena.len() as u32, self.weights.len() as u32, 0).expect("the plan is sound");
        let plan = Plan::parse(&plan).expect("and parses");
        let mut levels = vec![Level::Scalar];
        levels.extend((Level::best() != Level::Scalar).then(Level::best));
        levels
            .into_iter()
            .map(|level| {
                let guarded = |body: &[u8]| {
                    let guard = vec![GUARD; GUARD_BYTES];
                    [&guard, body, &guard].concat()
                };
                let (mut arena, weights) = (guarded(&self.arena), guarded(&self.weights));
                let memory =
                    Memory { arena: arena[GUARD_BYTES..].as_mut_ptr(), weights: weights[GUARD_BYTES..].as_ptr() };
                for step in plan.entries().flat_map(|e| e.steps()) {
                    // SAFETY: the plan was parsed and the memories have its sizes.
                    unsafe { run_step(level, &plan, &step, &memory) };
                }
                let end = GUARD_BYTES + self.arena.len();
                assert!(
                    arena[..GUARD_BYTES].iter().chain(&arena[end..]).all(|&b| b == GUARD),
                    "{level:?} left its arena"
                );
                let from = GUARD_BYTES + out.offset() as usize;
                arena[from..from + bytes].to_vec()
            })
            .collect()
    }

    /// As [`Bench::run`], compared with floats.
    pub fn expect(self, step: impl Into<Step>, out: At, want: &[f32], what: &str) {
        for (level, got) in self.run(step, out, want.len() * 4).iter().enumerate() {
            let got: Vec<f32> = got.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
                let same = g == w || g.is_nan() && w.is_nan() || (g - w).abs() <= 5e-5 + 1e-5 * w.abs();
                assert!(same, "{what}, level {level}: element {i} is {g}, not {w}");
            }
        }
    }
}
