//! The Kubernetes API of Ballast (`ballast.dev/v1alpha1`): types, the YAML made from them, conditions, and names.
//! No client, no clock, no async. Directory mode reads the same objects and holds them to the same rules
//! (`validate`, feature of the same name).

mod builtin;
pub mod conditions;
mod enrollment_token;
mod escalation;
mod gateway;
mod hardware_target;
mod identity;
mod model;
mod model_deployment;
mod quantity;
mod rollout;
mod schema;
mod selector;
mod status;
#[cfg(feature = "validate")]
pub mod validate;

pub use builtin::builtin_targets;
pub use enrollment_token::*;
pub use escalation::*;
pub use gateway::*;
pub use hardware_target::*;
pub use identity::release_identity;
pub use model::*;
pub use model_deployment::*;
pub use quantity::*;
pub use rollout::*;
pub use schema::definitions;
pub use selector::*;
pub use status::*;

/// The API group.
pub const GROUP: &str = "ballast.dev";
/// The version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every object.
pub const API_VERSION: &str = "ballast.dev/v1alpha1";
/// Annotation that asks for a release that was rolled back to be tried once more: `ballast.dev/retry: "<counter>"`.
pub const RETRY_ANNOTATION: &str = "ballast.dev/retry";
