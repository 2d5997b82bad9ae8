//! The kernels' own tests, every one of them, in the guest that gateways run: the same plans and the same naive maths, with
//! another `levels`.
#![allow(missing_docs)] // nobody reads a test binary's docs

#[path = "../../../kernels/tests/it/bench.rs"]
mod bench;
#[path = "../../../kernels/tests/it/control.rs"]
mod control;
#[path = "../../../kernels/tests/it/elementwise.rs"]
mod elementwise;
#[path = "../../../kernels/tests/it/generic.rs"]
mod generic;
mod levels;
#[path = "../../../kernels/tests/it/naive.rs"]
mod naive;
#[path = "../../../kernels/tests/it/products.rs"]
mod products;
#[path = "../../../kernels/tests/it/quantized.rs"]
mod quantized;
#[path = "../../../kernels/tests/it/wide.rs"]
mod wide;
#[path = "../../../kernels/tests/it/windows.rs"]
mod windows;
