//! Pure decisions: which target, which gateways next, halt or go on, what status says.
//!
//! Nothing here iterates over a fleet: inputs are counts ([`Counts`]), a small rest of state ([`RolloutState`]), the
//! user's [`Policy`] and the time. [`Tally`] makes the counts out of gateways one by one, for a store that keeps no
//! aggregates of its own.

mod counts;
pub mod escalation;
mod matching;
mod membership;
pub mod placement;
mod plan;
mod policy;
mod sequential;
mod state;
mod status;
mod watch;

pub use counts::{Counts, GatewayView, Tally, Vote};
pub use matching::{TargetSpec, match_target};
pub use membership::{Score, Threshold, is_member};
pub use plan::{Action, Decision, HaltCause, Plan, WaitCause, plan};
pub use policy::{Policy, PolicyError};
pub use sequential::SequentialTest;
pub use state::{RolloutState, SMALL_FLEET, UNPROVED_WINDOW};
pub use status::{StatusInput, situation, status};
