//! Kernels against naive ones: every layout, edge and level, through a plan that was parsed.
#![allow(unsafe_code, missing_docs)] // the kernels' interface is unsafe; nobody reads a test binary's docs

mod bench;
mod elementwise;
mod naive;
mod products;
mod windows;
