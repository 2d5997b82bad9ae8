//! ballast-edge
fn main() {}
