//! Convolution of each plane of bytes with its own window: pairs of taps, sixteen pixels at a time.

use ballast_plan::quantized::IntDepthwise;

use super::planes::pad;
use super::{After, COLS, Unsigned};
use crate::Memory;
use crate::planes::Walk;
use crate::simd::{Simd, kernel};

kernel! {
    /// Plane by plane.
    pub fn int_depthwise(s: &IntDepthwise, memory: &Memory) = depthwise_on
}

/// Where the taps of a window lie; divisions once instead of for each sixteen pixels.
struct Offsets {
    first: [u32; 64],
    walk: Walk,
    kw: usize,
}

impl Offsets {
    fn new(walk: Walk, kw: usize, taps: usize) -> Self {
        let mut first = [0; 64];
        for (t, offset) in first.iter_mut().enumerate().take(taps) {
            *offset = walk.tap(t / kw, t % kw) as u32;
        }
        Self { first, walk, kw }
    }

    #[inline(always)]
    fn at(&self, tap: usize) -> usize {
        match self.first.get(tap) {
            Some(&offset) => offset as usize,
            None => self.walk.tap(tap / self.kw, tap % self.kw),
        }
    }
}

#[inline(always)]
unsafe fn depthwise_on<S: Simd>(s: &IntDepthwise, memory: &Memory) {
    let (w, after) = (&s.window, After::new(&s.after, memory));
    let bytes = Unsigned::new(s.dtype, s.zero, memory);
    let (input_plane, pixels, pairs) = (w.ih as usize * w.iw as usize, w.pixels() as usize, s.pairs() as usize);
    let taps = w.taps() as usize;
    let walk = Walk::padded(w);
    let offsets = Offsets::new(walk, w.kw as usize, taps);
    let scratch = memory.write(s.scratch);
    for index in 0..s.batch as usize * s.planes as usize {
        let plane = index % s.planes as usize;
        pad(w, memory.read(s.input).add(index * input_plane), scratch, bytes.raw);
        let weights = memory.read(s.weights).cast::<i16>().add(plane * pairs * 2);
        // The zero point is taken off all at once: every tap reads a byte, if only padding.
        let mut sum = 0i32;
        for t in 0..taps {
            sum = sum.wrapping_add(i32::from(*weights.add(t)));
        }
        let start = S::splat_i(i32::from(bytes.zero).wrapping_mul(sum).wrapping_neg());
        for y in 0..w.oh as usize {
            let row = scratch.cast_const().add(y * walk.row);
            let out = memory.write(s.out).add((index * pixels + y * w.ow as usize) * after.size());
            for x in (0..w.ow as usize).step_by(COLS) {
                let mut acc = [start; 4];
                for p in 0..pairs {
                    // The pair of the last of an odd number of taps has the weight 0.
                    let [a, b] = [2 * p, (2 * p + 1).min(taps - 1)].map(|t| row.add(x + offsets.at(t)));
                    let weight = S::splat_i(weights.add(2 * p).cast::<i32>().read_unaligned());
                    let pixels = S::interleave(a, b, bytes.flip);
                    for v in 0..COLS / S::LANES {
                        acc[v] = S::dot_add(pixels[v], weight, acc[v]);
                    }
                }
                let width = (w.ow as usize - x).min(COLS);
                after.store::<S>(plane, acc, width, out.add(x * after.size()), 1);
            }
        }
    }
}
