//! The two memories of a plan.

use ballast_plan::At;

/// Where arena and weights lie.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Aligned to 64 bytes, as long as the plan's arena.
    pub arena: *mut u8,
    /// Aligned to 64 bytes, as long as the plan's weights; never written.
    pub weights: *const u8,
}

impl Memory {
    /// The address of a place to read.
    ///
    /// # Safety
    /// `at` is inside its memory.
    #[inline(always)]
    pub unsafe fn read(&self, at: At) -> *const u8 {
        if at.is_weights() { self.weights.add(at.offset() as usize) } else { self.arena.add(at.offset() as usize) }
    }

    /// The address of a place to write.
    ///
    /// # Safety
    /// `at` is inside the arena.
    #[inline(always)]
    pub unsafe fn write(&self, at: At) -> *mut u8 {
        self.arena.add(at.offset() as usize)
    }

    #[inline(always)]
    pub(crate) unsafe fn floats(&self, at: At) -> *const f32 {
        self.read(at).cast()
    }

    #[inline(always)]
    pub(crate) unsafe fn floats_mut(&self, at: At) -> *mut f32 {
        self.write(at).cast()
    }
}
