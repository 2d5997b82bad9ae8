//! ballast-cli
fn main() {}
