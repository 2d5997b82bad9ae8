//! What crosses from cloud to edge: identifiers, documents, signatures, digests, and the gateway protocol's types.
//!
//! Bytes in, bytes out: no network, no clock, no async. Whoever needs the time passes it in.
//! Documents arrive as [`Unverified`] and can be used only as [`Verified`], which only this crate makes.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod batch;
pub mod buckets;
mod confidence;
mod contract;
#[cfg(feature = "cosign-keys")]
mod cosign;
mod documents;
mod envelope;
mod error;
mod escalation;
mod floors;
pub mod golden;
pub mod half;
mod ids;
mod keys;
pub mod manifest;
mod policy;
pub mod protocol;
pub mod signing;
pub mod state;
mod stream;
mod verify;

pub use batch::Batch;
pub use confidence::{CONFIDENCE_BINS, Confidence, OutOfRange, Threshold};
pub use contract::*;
pub use documents::*;
pub use envelope::{IN_TOTO_TYPE, SIGSTORE_BUNDLE_TYPE, claims, pre_authentication_encoding, sign_envelope, to_json};
pub use error::VerifyError;
pub use escalation::*;
pub use floors::Floors;
pub use golden::{Deviation, Golden, GoldenError, Tally, VectorResult};
pub use ids::*;
pub use policy::{ClassThresholds, EscalationPolicy, POLICY_TYPE, PolicyFloor, sign_policy};
pub use signing::*;
pub use state::{Reset, State, StateInput};
pub use stream::StreamVerifier;
pub use verify::*;
