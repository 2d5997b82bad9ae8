//! The real binary against a fleet's server made for tests: real TLS, real signatures, real sandbox, real models.

mod bad_input;
mod fleet;
mod gateway;
mod lifecycle;
mod models;
mod network;
mod requests;
mod tree;
