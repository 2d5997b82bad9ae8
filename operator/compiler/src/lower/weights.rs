//! The weights file: every constant that a step reads, in the layout in which it is read.

use std::collections::BTreeMap;

use ballast_bundle::Digest;
use ballast_plan::At;

use crate::ir::canonical;

/// Constants start at multiples of a cache line; the file itself is mapped at a page.
const ALIGN: usize = 64;

/// The file under construction.
#[derive(Debug, Default)]
pub(super) struct Weights {
    bytes: Vec<u8>,
    /// The same bytes twice are one place.
    known: BTreeMap<Digest, u32>,
}

impl Weights {
    /// The place of these bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) -> At {
        let digest = Digest::of(bytes);
        let at = *self.known.entry(digest).or_insert_with(|| {
            let at = self.bytes.len().next_multiple_of(ALIGN);
            self.bytes.resize(at, 0);
            self.bytes.extend_from_slice(bytes);
            // Beyond 2 GiB the whole file is refused at the end.
            at as u32 & (u32::MAX >> 1)
        });
        At::weights(at).unwrap_or_default()
    }

    /// The place of these floats.
    pub(super) fn floats(&mut self, values: impl IntoIterator<Item = f32>) -> At {
        let bytes: Vec<u8> = values.into_iter().flat_map(|x| canonical(x).to_le_bytes()).collect();
        self.add(&bytes)
    }

    /// The file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        self.bytes
    }
}
