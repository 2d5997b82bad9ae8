//! Which answers of the edge are sent on to the cloud, and within which limits. No network, no clock, no disk: whoever
//! calls passes times in, writes what is to be kept, and does what is decided.
//!
//! ```text
//! outputs ──judge──► class, confidence ──► Escalator::decide ──► Keep(why) | Label | Ask
//!                                             │ budget (bytes a day, requests a minute) · breaker · places
//! inputs ──Outgoing::gate (privacy)──► the only thing that a client to the cloud takes
//! ```
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod breaker;
mod budget;
mod confidence;
mod counts;
mod escalator;
mod leaving;

pub use ballast_bundle::{BudgetLimits, EscalationLimits as Limits, Privacy, Rule, Scores};
pub use breaker::{Breaker, BreakerState};
pub use budget::{Budget, Kept, Refused};
pub use confidence::{Judged, ScoresError, judge};
pub use counts::{Cell, Counts};
pub use escalator::{Decision, Ended, Escalator, Keep, Permit, Settings};
pub use leaving::{MayNotLeave, Outgoing, Tensors};
