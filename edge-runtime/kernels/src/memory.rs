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
    /// The address of a place to read. Steps have places that they do not use and that nobody checked (the bias of a product
    /// without one), so that making an address of any place is sound; reading there is not.
    ///
    /// # Safety
    /// What is read through it is inside its memory.
    #[inline(always)]
    pub unsafe fn read(&self, at: At) -> *const u8 {
        let memory = if at.is_weights() { self.weights } else { self.arena.cast_const() };
        memory.wrapping_add(at.offset() as usize)
    }

    /// The address of a place to write.
    ///
    /// # Safety
    /// What is written through it is inside the arena.
    #[inline(always)]
    pub unsafe fn write(&self, at: At) -> *mut u8 {
        self.arena.wrapping_add(at.offset() as usize)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_used_may_have_any_address() {
        let top = usize::MAX - 63;
        let memory =
            Memory { arena: core::ptr::without_provenance_mut(top), weights: core::ptr::without_provenance(top) };
        let offset = i32::MAX as u32;
        for at in [At::arena(offset), At::weights(offset)] {
            // SAFETY: nothing is read or written there.
            let addresses = unsafe { [memory.read(at.unwrap()).addr(), memory.write(at.unwrap()).addr()] };
            assert_eq!(addresses, [top.wrapping_add(offset as usize); 2]);
        }
    }
}
