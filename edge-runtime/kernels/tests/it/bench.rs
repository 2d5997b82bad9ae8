//! A plan of one step. Where it runs, says `levels`: natively here, in the sandbox with the sandbox's tests.

use ballast_plan::build::{PlanBuilder, TensorDef};
use ballast_plan::control::Block;
use ballast_plan::{At, DType, Step};

use crate::levels;

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

    /// Runs the step wherever this bench's plans run; gives `bytes` at `out` for each place by its name. The whole arena is
    /// the plan's input, so that a guest finds what was put into it.
    pub fn run(self, step: impl Into<Step>, out: At, bytes: usize) -> Vec<(String, Vec<u8>)> {
        self.run_all(&[Block::Step(step.into())], out, bytes)
    }

    /// As [`Bench::run`], of a whole list.
    pub fn run_all(mut self, blocks: &[Block], out: At, bytes: usize) -> Vec<(String, Vec<u8>)> {
        let def = |name: &str, bytes: usize, at| TensorDef {
            name: name.into(),
            dtype: DType::U8,
            dims: vec![bytes as u32],
            at,
        };
        let (input, output) = (def("arena", self.arena.len(), 0), def("out", bytes, out.offset()));
        self.builder.entry_of("main", vec![input], vec![output], blocks);
        let plan =
            self.builder.finish(self.arena.len() as u32, self.weights.len() as u32, 0).expect("the plan is sound");
        let from = out.offset() as usize;
        levels::run(&plan, &self.arena, &self.weights, from..from + bytes)
    }

    /// As [`Bench::run`], compared with floats.
    pub fn expect(self, step: impl Into<Step>, out: At, want: &[f32], what: &str) {
        for (level, got) in self.run(step, out, want.len() * 4) {
            let got: Vec<f32> = got.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
                let same = g == w || g.is_nan() && w.is_nan() || (g - w).abs() <= 5e-5 + 1e-5 * w.abs();
                assert!(same, "{what}, {level}: element {i} is {g}, not {w}");
            }
        }
    }
}
