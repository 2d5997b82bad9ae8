//! With Kubernetes: objects out of an API server, status and events back to it, keys in Secrets, one operator at a time.
//!
//! Reads go through reflector stores, so that a pass asks nobody; what is written goes out beside the passes. Only a
//! release's number waits for the API server ([`Objects::reserve`](crate::objects::Source::reserve)): it must be durable
//! before anything is signed.

mod connection;
mod election;
mod events;
mod finalizer;
mod secrets;
mod source;
mod statuses;
mod turns;
mod watches;

pub use connection::Connection;
pub use election::Election;
pub use secrets::KeySecrets;
pub use source::open;

/// Field manager of every write.
pub const FIELD_MANAGER: &str = "ballast-operator";
/// On a ModelDeployment from the moment that something is signed for it until nobody is told of it any more.
pub const FINALIZER: &str = "ballast.dev/withdraw";
/// The highest counter that was given out for a ModelDeployment.
pub const COUNTER_ANNOTATION: &str = "ballast.dev/counter";
