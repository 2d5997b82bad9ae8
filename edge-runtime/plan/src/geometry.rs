//! How much memory windows and products need, and how a window's planes lie in scratch. Lowering reserves by these
//! numbers, the check demands them, the kernels use them.

use crate::step::{BLOCK_K, BLOCK_M, BLOCK_N, BLOCK_N_PACKED, Conv, Gemm, Layout, PANEL_COLS, PANEL_ROWS, Window};

/// What a vector load may read behind the last element of scratch: one AVX-512 register.
pub const SLACK_BYTES: u64 = 64;

fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |a, &b| a.saturating_mul(b))
}

impl Window {
    /// Rows of the input, padding included, that the windows cover.
    pub fn padded_rows(&self) -> u64 {
        cover(self.oh, self.sh, self.kh, self.dh)
    }

    /// Columns of the input, padding included, that the windows cover.
    pub fn padded_cols(&self) -> u64 {
        cover(self.ow, self.sw, self.kw, self.dw)
    }

    /// A padded plane in scratch is `[padded_rows][sw][phase_width]`: column `x` lies in phase `x mod sw` at `x ÷ sw`, so that
    /// what neighbouring windows read lies next to each other at any stride.
    pub fn phase_width(&self) -> u64 {
        self.padded_cols().div_ceil(u64::from(self.sw.max(1)))
    }

    /// Floats from one row of a plane in scratch to the next.
    pub fn row_floats(&self) -> u64 {
        product(&[u64::from(self.sw), self.phase_width()])
    }

    /// Floats of one plane in scratch.
    pub fn plane_floats(&self) -> u64 {
        product(&[self.padded_rows(), self.row_floats()])
    }

    /// Scratch of a step that treats one plane after the other.
    pub fn plane_bytes(&self) -> u64 {
        if self.is_direct() { 0 } else { product(&[self.plane_floats(), 4]).saturating_add(SLACK_BYTES) }
    }

    /// The windows can be read from the input as it is: stride 1, no padding.
    pub fn is_direct(&self) -> bool {
        (self.sh, self.sw, self.pt, self.pl) == (1, 1, 0, 0)
            && self.padded_rows() <= u64::from(self.ih)
            && self.padded_cols() <= u64::from(self.iw)
    }

    /// Output pixels of a plane.
    pub fn pixels(&self) -> u64 {
        product(&[u64::from(self.oh), u64::from(self.ow)])
    }

    /// Elements of the window.
    pub fn taps(&self) -> u64 {
        product(&[u64::from(self.kh), u64::from(self.kw)])
    }

    /// Every number is at least 1 (paddings may be 0) and below 2¹⁶, so that products of two fit 32 bits.
    pub fn is_sane(&self) -> bool {
        let counts = [self.ih, self.iw, self.oh, self.ow, self.kh, self.kw, self.sh, self.sw, self.dh, self.dw];
        counts.iter().all(|&n| (1..1 << 16).contains(&n)) && self.pt < 1 << 16 && self.pl < 1 << 16
    }
}

fn cover(out: u32, stride: u32, kernel: u32, dilation: u32) -> u64 {
    let steps = |n: u32, by: u32| product(&[u64::from(n.saturating_sub(1)), u64::from(by)]);
    steps(out, stride) + steps(kernel, dilation) + 1
}

/// Floats of a P4 matrix.
pub fn p4_floats(m: u64, k: u64) -> u64 {
    product(&[m.div_ceil(PANEL_ROWS as u64), PANEL_ROWS as u64, k])
}

/// Floats of a P16 matrix.
pub fn p16_floats(k: u64, n: u64) -> u64 {
    product(&[n.div_ceil(PANEL_COLS as u64), PANEL_COLS as u64, k])
}

/// Floats of the buffer that a block of the right side is packed into.
pub fn right_block_floats(k: u64, n: u64) -> u64 {
    p16_floats(k.min(BLOCK_K as u64), n.min(BLOCK_N as u64))
}

impl Gemm {
    /// Columns of a block.
    pub fn block_n(&self) -> usize {
        match self.right.layout {
            Layout::Strided => BLOCK_N,
            Layout::Packed => BLOCK_N_PACKED,
        }
    }

    /// Floats of scratch for the left side; the right side's follow.
    pub fn left_block_floats(&self) -> u64 {
        match self.left.layout {
            Layout::Strided => p4_floats(u64::from(self.m).min(BLOCK_M as u64), u64::from(self.k).min(BLOCK_K as u64)),
            Layout::Packed => 0,
        }
    }

    /// Scratch for packing what is not packed.
    pub fn scratch_bytes(&self) -> u64 {
        let right = match self.right.layout {
            Layout::Strided => right_block_floats(u64::from(self.k), u64::from(self.n)),
            Layout::Packed => 0,
        };
        product(&[self.left_block_floats() + right, 4])
    }
}

impl Conv {
    /// Depth of a group's product.
    pub fn depth(&self) -> u64 {
        product(&[u64::from(self.ic), self.window.taps()])
    }

    /// Floats of one group's weights.
    pub fn group_floats(&self) -> u64 {
        p4_floats(u64::from(self.oc), self.depth())
    }

    /// Bytes of scratch in front of the packed block: a group's padded planes.
    pub fn planes_bytes(&self) -> u64 {
        if self.window.is_direct() {
            0
        } else {
            product(&[u64::from(self.ic), self.window.plane_floats(), 4]).saturating_add(SLACK_BYTES)
        }
    }

    /// Scratch: planes, then the packed block.
    pub fn scratch_bytes(&self) -> u64 {
        let block = product(&[right_block_floats(self.depth(), self.window.pixels()), 4]);
        self.planes_bytes().saturating_add(block)
    }
}
