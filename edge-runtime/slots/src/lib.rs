//! The state machine of one deployment on one gateway: `Idle → Fetching → Verified → Probing → Trial → Active`, and
//! from any of them to rolled back, with the fallback serving throughout.
//!
//! Sans-IO: [`step`] takes a state, an event and the time, and gives the next state with the effects that whoever
//! drives it carries out in order. [`State`] is what is written to disk: [`Effect::Persist`] comes first wherever
//! something durable changed, so a power cut after any prefix of effects resumes from the last arrow by
//! [`Event::Booted`]. A disk that takes no write is [`unwritten`]'s subject. What is served is not an effect but a function of the state: [`State::serving`].

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod event;
mod state;
mod step;

pub use event::{Effect, Event};
pub use state::{Candidate, FORMAT, Held, Phase, Rejected, ReleaseId, Serving, State, Willing, Wish, trial_is_open};
pub use step::{BOOT_WINDOW_MILLIS, MAX_BOOTS, RETRY_MILLIS, step, unwritten};
