//! Digest and size live inside the stream that reads the bytes, so that no byte is stored before it was counted.

use crate::{Blob, Digest, VerifyError};

/// Digest and size, checked while the bytes stream by: the byte after the last expected one is refused, however many follow.
#[derive(Debug, Clone)]
pub struct StreamVerifier {
    expected: Digest,
    size: u64,
    seen: u64,
    hash: sha2::Sha256,
}

impl StreamVerifier {
    /// For a blob of `size` bytes.
    pub fn new(expected: &Digest, size: u64) -> Self {
        Self { expected: *expected, size, seen: 0, hash: sha2::Digest::new() }
    }

    /// For what a document names.
    pub fn of(blob: &Blob) -> Self {
        Self::new(&blob.digest, blob.size)
    }

    /// Bytes accepted so far.
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes the next bytes; write them only after this returned.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), VerifyError> {
        let seen = self.seen.saturating_add(bytes.len() as u64);
        if seen > self.size {
            return Err(VerifyError::TooLong { expected: self.size });
        }
        self.seen = seen;
        sha2::Digest::update(&mut self.hash, bytes);
        Ok(())
    }

    /// Whether it was all of them, and the right ones.
    pub fn finish(self) -> Result<(), VerifyError> {
        if self.seen != self.size {
            return Err(VerifyError::Truncated { expected: self.size, found: self.seen });
        }
        let found = Digest::from_raw(sha2::Digest::finalize(self.hash).into());
        if found == self.expected { Ok(()) } else { Err(VerifyError::Digest { expected: self.expected, found }) }
    }
}

/// Bytes that are all here already, against digest and size.
pub(crate) fn whole(bytes: &[u8], blob: &Blob) -> Result<(), VerifyError> {
    let mut stream = StreamVerifier::of(blob);
    stream.update(bytes)?;
    stream.finish()
}
