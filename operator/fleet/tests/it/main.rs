//! The fleet's server over real TLS, with real files.

mod client;
mod gateways;
mod harness;
mod registry;
mod store;
mod strangers;
