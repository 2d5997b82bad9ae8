//! The operator's parts: sources of objects, reconcilers, and their wiring. The binary is `ballast-operator`.

mod admin;
mod administer;
pub mod args;
mod builder;
pub mod compilation;
mod controller;
mod endpoint;
mod fetch;
mod jobs;
mod keys;
mod objects;
mod pass;
mod publish;
mod reconcile;
mod records;
mod rollout;
mod roster;
pub mod run;
mod runners;
mod serving;
mod source;
mod state;
mod status;
mod targets;
mod tokens;
mod trust;
mod wanted;
mod workers;

/// Runner ABI 1.0 (major << 16 | minor), which every runner that is prepared here speaks.
pub(crate) const RUNNER_ABI: u32 = 1 << 16;
