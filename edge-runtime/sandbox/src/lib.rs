//! Wasmtime at run time: the engine profile, the limits, and the instances that answer requests. No Cranelift here.
//!
//! What runs is a core Wasm module without imports that speaks the runner ABI. The host bounds everything it could do to
//! its surroundings: memory, tables, stack, time, the length of the queue and of the results. Whatever a guest does costs
//! one [`Fault`]; its Store is then thrown away and a spare takes its place.
//!
//! ```text
//! EngineProfile → Engine → Module ┐
//!                     ProgramSpec ┴→ Program → Instance → Answer | Fault
//!                                           └→ Pool (own threads, bounded queue, one warm spare)
//! ```
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod abi;
mod engine;
mod error;
mod guest;
mod instance;
mod layout;
mod limits;
mod pool;
mod profile;
mod program;
mod speed;
mod ticker;

pub use engine::{Engine, Module};
pub use error::{Fault, SandboxError};
pub use instance::{Answer, Instance};
pub use layout::{RUNNER_RESERVE, WASM_PAGE, memory_needed};
pub use pool::{Pool, Request, SubmitError};
pub use profile::{ENGINE_VERSION, EngineProfile};
pub use program::{Program, ProgramSpec, Weights};
pub use speed::measure_speed;
