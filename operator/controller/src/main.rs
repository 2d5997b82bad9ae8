//! ballast-controller
fn main() {}
