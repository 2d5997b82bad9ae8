//! Integration tests of what crosses from cloud to edge.

mod attacks;
mod buckets;
mod cosign;
mod counted;
mod golden;
mod policies;
mod properties;
mod state;
mod walk;
mod world;
