//! ONNX → verdict → plan and weights for a hardware target. The only room that reads ONNX.
//!
//! The way of a model: `onnx` reads the file within bounds, `import` takes a census of it and turns it into the
//! [`ir`] with static shapes, `eval` folds constants and makes golden outputs, lowering turns the IR into a plan, and the
//! plan is proved against the evaluator.

mod api;
pub mod archive;
mod batch;
mod buckets;
pub mod cost;
mod drive;
pub mod eval;
mod golden;
pub mod import;
pub mod ir;
mod judge;
pub mod lower;
pub mod onnx;
#[cfg(feature = "worker")]
mod prove;
pub mod shape;
mod state;
mod verdict;
#[cfg(feature = "worker")]
mod worker;

pub use api::*;
pub use drive::{check, check_targets, compile};
#[cfg(feature = "worker")]
pub use prove::{ProveRequest, Proved, prove};
pub use verdict::*;
#[cfg(feature = "worker")]
pub use worker::*;
