//! The controller from the outside: objects and syncs in, assignments and status out.

mod conditions;
mod directory;
mod events;
mod garbage;
mod harness;
mod rollouts;
mod start;
mod tokens;
mod wishes;
