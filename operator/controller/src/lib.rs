//! The operator's parts: sources of objects, reconcilers, and their wiring. The binary is `ballast-operator`.

mod admin;
mod administer;
pub mod args;
pub mod builder;
mod cache;
pub mod compilation;
pub mod controller;
mod endpoint;
mod escalating;
pub mod events;
pub mod fetch;
mod gateways;
mod hearing;
mod jobs;
mod keys;
mod kubernetes;
pub mod objects;
mod pass;
mod publish;
mod queue;
mod reconcile;
pub mod records;
mod rollout;
mod roster;
pub mod run;
pub mod runners;
mod serving;
pub mod source;
pub mod state;
mod status;
mod targets;
mod tidy;
mod token_objects;
pub mod tokens;
mod trust;
mod wanted;
pub mod workers;

/// Runner ABI 1.0 (major << 16 | minor), which every runner that is prepared here speaks.
pub(crate) const RUNNER_ABI: u32 = 1 << 16;
