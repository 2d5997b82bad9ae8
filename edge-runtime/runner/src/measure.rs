//! Work to time: how fast this machine is at what plans mostly do. The guest has no clock; the host holds the watch.

use core::mem::size_of;

use ballast_kernels::{Level, Memory, product};
use ballast_plan::Plan;
use ballast_plan::step::{At, Epilogue, Gemm, Layout, Matrix};

/// Rows, columns and depth of the product: as in the middle of a convolutional network, everything in a second-level cache.
pub const SHAPE: [u32; 3] = [64, 128, 256];

/// Room for both sides (packed and not) and the result.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Bench {
    left: [f32; 64 * 256],
    right: [f32; 256 * 128],
    out: [f32; 64 * 128],
    scratch: [f32; 256 * 128],
}

impl Bench {
    /// Zeros: speed does not depend on values here.
    pub const fn new() -> Self {
        Self { left: [0.0; 64 * 256], right: [0.0; 256 * 128], out: [0.0; 64 * 128], scratch: [0.0; 256 * 128] }
    }

    /// `rounds` products; gives the floating-point operations done.
    pub fn gemm(&mut self, level: Level, rounds: u32) -> u64 {
        let [m, n, k] = SHAPE;
        let place = |floats: usize| At::arena((floats * size_of::<f32>()) as u32).unwrap_or_default();
        let (right, out) = (self.left.len(), self.left.len() + self.right.len());
        let step = Gemm {
            batch: 1,
            m,
            n,
            k,
            left: Matrix { at: place(0), layout: Layout::Packed, ..Matrix::default() },
            right: Matrix { at: place(right), layout: Layout::Strided, row: n, col: 1, batch: 0 },
            out: place(out),
            out_row: n,
            out_batch: 0,
            epilogue: Epilogue { low: f32::NEG_INFINITY, high: f32::INFINITY, ..Epilogue::default() },
            scratch: place(out + self.out.len()),
        };
        let arena: *mut u8 = core::ptr::from_mut(self).cast();
        let memory = Memory { arena, weights: arena };
        for _ in 0..rounds {
            // SAFETY: the four arrays lie one after the other (`repr(C)`), each as large as this step makes of it.
            unsafe { product::gemm(level, &Plan::empty(), &step, &memory) };
        }
        u64::from(rounds) * 2 * u64::from(m) * u64::from(n) * u64::from(k)
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_product_is_a_product() {
        let mut bench = Box::new(Bench::new());
        bench.left.fill(1.0);
        bench.right.fill(0.5);
        assert_eq!(bench.gemm(Level::best(), 2), 2 * 2 * 64 * 128 * 256);
        assert!(bench.out.iter().all(|&v| v == 128.0));
    }
}
