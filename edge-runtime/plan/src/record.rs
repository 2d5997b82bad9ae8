//! How numbers and records lie in a plan: little-endian 32-bit words, in the order of the fields. One definition makes
//! both the reader and the writer, so that they cannot differ.

#[cfg(feature = "build")]
use alloc::vec::Vec;

use crate::PlanError;

/// Reads words from the front of a byte string.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], PlanError> {
        let (head, tail) = self.bytes.split_at_checked(n).ok_or(PlanError::Truncated)?;
        self.bytes = tail;
        Ok(head)
    }

    /// Everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.bytes
    }

    /// The next word.
    pub fn word(&mut self) -> Result<u32, PlanError> {
        let (head, tail) = self.bytes.split_first_chunk::<4>().ok_or(PlanError::Truncated)?;
        self.bytes = tail;
        Ok(u32::from_le_bytes(*head))
    }

    /// The next word, at most `max`.
    pub fn at_most(&mut self, what: &'static str, max: u32) -> Result<u32, PlanError> {
        let value = self.word()?;
        if value <= max { Ok(value) } else { Err(PlanError::Value { what, value }) }
    }

    /// A name: length in bytes (at most 255), the bytes, zeros up to a whole word.
    pub fn name(&mut self) -> Result<&'a str, PlanError> {
        let n = self.at_most("length of a name", 255)? as usize;
        let text = self.bytes(n)?;
        self.bytes(n.next_multiple_of(4) - n)?;
        core::str::from_utf8(text).map_err(|_| PlanError::Name)
    }
}

/// Something with a fixed way of lying in a plan.
pub trait Field: Sized {
    /// Takes it from the front.
    fn read(r: &mut Reader<'_>) -> Result<Self, PlanError>;
    /// Appends it.
    #[cfg(feature = "build")]
    fn write(&self, out: &mut Vec<u8>);
}

impl Field for u32 {
    fn read(r: &mut Reader<'_>) -> Result<Self, PlanError> {
        r.word()
    }
    #[cfg(feature = "build")]
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}

impl Field for i32 {
    fn read(r: &mut Reader<'_>) -> Result<Self, PlanError> {
        Ok(r.word()?.cast_signed())
    }
    #[cfg(feature = "build")]
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}

impl Field for f32 {
    fn read(r: &mut Reader<'_>) -> Result<Self, PlanError> {
        Ok(Self::from_bits(r.word()?))
    }
    #[cfg(feature = "build")]
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}

impl<T: Field + Copy + Default, const N: usize> Field for [T; N] {
    fn read(r: &mut Reader<'_>) -> Result<Self, PlanError> {
        let mut items = [T::default(); N];
        for item in &mut items {
            *item = T::read(r)?;
        }
        Ok(items)
    }
    #[cfg(feature = "build")]
    fn write(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|item| item.write(out));
    }
}

/// At most `N` items, kept in place: the guest has no allocator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct List<T, const N: usize> {
    items: [T; N],
    len: usize,
}

impl<T: Copy + Default, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self { items: [T::default(); N], len: 0 }
    }
}

impl<T: Copy + Default, const N: usize> List<T, N> {
    /// The items; `None` when there are more than `N`.
    pub fn new(items: &[T]) -> Option<Self> {
        let mut list = Self { len: items.len(), ..Self::default() };
        list.items.get_mut(..items.len())?.copy_from_slice(items);
        Some(list)
    }

    /// The items.
    pub fn as_slice(&self) -> &[T] {
        self.items.get(..self.len).unwrap_or(&[])
    }
}

impl<T: Field + Copy + Default, const N: usize> Field for List<T, N> {
    fn read(r: &mut Reader<'_>) -> Result<Self, PlanError> {
        let len = r.at_most("length of a list", N as u32)? as usize;
        let mut list = Self { len, ..Self::default() };
        for item in list.items.iter_mut().take(len) {
            *item = T::read(r)?;
        }
        Ok(list)
    }
    #[cfg(feature = "build")]
    fn write(&self, out: &mut Vec<u8>) {
        (self.len as u32).write(out);
        self.as_slice().iter().for_each(|item| item.write(out));
    }
}

/// A struct whose fields lie one after the other.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Default)]
        pub struct $name { $($(#[$doc])* pub $field: $type,)* }

        impl $crate::record::Field for $name {
            fn read(r: &mut $crate::record::Reader<'_>) -> Result<Self, $crate::PlanError> {
                Ok(Self { $($field: $crate::record::Field::read(r)?,)* })
            }
            #[cfg(feature = "build")]
            fn write(&self, out: &mut alloc::vec::Vec<u8>) {
                $($crate::record::Field::write(&self.$field, out);)*
            }
        }
    };
}

/// An enumeration that lies as one word.
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $name:ident ($what:literal) { $($(#[$doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[repr(u32)]
        pub enum $name { $($(#[$doc])* $variant = $value,)* }

        impl $name {
            /// From its number in a plan.
            pub const fn from_word(value: u32) -> Option<Self> {
                match value { $($value => Some(Self::$variant),)* _ => None }
            }
        }

        impl $crate::record::Field for $name {
            fn read(r: &mut $crate::record::Reader<'_>) -> Result<Self, $crate::PlanError> {
                let value = r.word()?;
                Self::from_word(value).ok_or($crate::PlanError::Value { what: $what, value })
            }
            #[cfg(feature = "build")]
            fn write(&self, out: &mut alloc::vec::Vec<u8>) {
                $crate::record::Field::write(&(*self as u32), out);
            }
        }
    };
}

pub(crate) use {choice, record};
