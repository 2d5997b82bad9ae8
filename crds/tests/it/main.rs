//! What the schemas refuse, and with which words.

mod conditions;
mod drift;
mod escalation;
mod examples;
mod properties;
mod refusals;
mod wrong;
