//! The real binary against a fleet's server made for tests: real TLS, real signatures, real sandbox, real models.

mod access;
mod bad_input;
mod clients;
mod cloud;
mod exposition;
mod failures;
mod fleet;
mod gateway;
mod lifecycle;
mod models;
mod network;
mod openapi;
mod operations;
mod requests;
mod restart;
mod script;
mod sequences;
mod tree;
#[allow(dead_code, reason = "the compiler's tests write more kinds of models than these")]
#[path = "../../../../operator/compiler/tests/it/writer.rs"]
mod writer;
