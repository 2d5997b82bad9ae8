//! What the schemas refuse, and with which words.

mod conditions;
mod drift;
mod refusals;
