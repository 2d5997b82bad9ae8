//! The project's chores: `cargo xtask demo | test | bench | …`.
//!
//! Depends on no room of the project: it compiles in seconds, and what it says about the binaries it sees from outside.
//! A library so that the whole-system tests start the same fleet that the demo starts.

pub mod bans;
pub mod bench;
pub mod cluster;
pub mod conformance;
pub mod demo;
pub mod differential;
pub mod fuzz;
pub mod hardware;
pub mod process;
pub mod python;
pub mod safetensors;
pub mod test;
pub mod tools;
pub mod workspace;
