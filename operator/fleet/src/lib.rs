//! What gateways talk to: enrolment, renewal, sync, documents and the embedded OCI registry, over TLS with client
//! certificates of the fleet's own CA; behind it the gateway store.
//!
//! Nothing here decides what a gateway runs: [`Dispatch`] does, and the controller implements it with the planner.
//! Nothing here holds a signing key but the CA's: pointers are signed through [`PointerSigner`].

mod admin;
mod api;
pub mod ca;
mod connections;
mod dispatch;
mod documents;
mod error;
pub mod labels;
mod pulls;
pub mod registry;
mod server;
pub mod store;
mod tls;
pub mod token;
mod watched;

pub use admin::{AdminError, AdminSocket};
pub use connections::Connections;
pub use dispatch::{Dispatch, Dispatched, PointerSigner, Wish};
pub use documents::{Documents, DocumentsError};
pub use error::ApiError;
pub use server::{Fleet, FleetServer, Limits, ServeError};

/// Milliseconds since 1970 by this machine's clock.
pub fn now() -> ballast_bundle::UnixMillis {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    ballast_bundle::UnixMillis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Ends when `stop` turns true, or when nobody can turn it any more.
pub(crate) async fn stopped(stop: &mut tokio::sync::watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
