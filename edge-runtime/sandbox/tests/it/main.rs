//! The sandbox against real guests: hostile ones in WAT, and the runner with a plan.

mod guests;
mod hostile_load;
mod hostile_request;
mod pool;
mod runner;
