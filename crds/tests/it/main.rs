//! What the schemas refuse, and with which words.

mod drift;
mod refusals;
