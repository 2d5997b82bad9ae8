//! Without Kubernetes: objects out of a directory of YAML files, kept in an object store below `--state`.
//!
//! The store gives what an API server would: UID, generation, resource version, history, status, and the checks at create
//! and update. It never writes into the watched tree, except overlays below `<directory>/.ballast/` that an administrator
//! asks for.

mod adapter;
pub mod directory;
mod files;
mod lines;
mod overlay;
mod problem;
pub mod store;

pub use adapter::open;
