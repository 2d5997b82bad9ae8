//! The whole system, from outside: real processes, real TLS, real files, real models.

mod bad_models;
mod bad_requests;
mod bad_wishes;
mod bad_yaml;
mod denied;
mod processes;
mod sequences;
mod tutorials;
mod words;
