//! What crosses from cloud to edge: identifiers, documents, signatures, digests, and the gateway protocol's types.
//!
//! Bytes in, bytes out: no network, no clock, no async. Whoever needs the time passes it in.
//! Documents arrive as [`Unverified`] and can be used only as [`Verified`], which only this crate makes.

mod contract;
mod documents;
mod ids;
pub mod protocol;

pub use contract::*;
pub use documents::*;
pub use ids::*;
