//! `ballast-edge`: sync, fetch, activate, serve, report.
//!
//! One process, one state directory, one thread for everything that waits; guests run on threads of their own.
//! Whatever the operator does or does not do, what is active here keeps answering.
//!
//! ```text
//! sync ──assignment──► driver ──effects──► fetch, load, probe
//!   ▲                    │  ▲
//!   └──────reports───────┘  └──failures──── serve ◄── requests
//! ```
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod cli;
pub mod config;

mod client;
mod cloud;
mod driver;
mod enroll;
mod error;
mod facts;
mod fetch;
mod identity;
mod installed;
mod loaded;
mod metrics;
mod probe;
mod run;
mod runner;
mod serve;
mod state;
mod status;
mod store;
mod sync;
mod time;
mod tls;
mod token;
mod vectors;
