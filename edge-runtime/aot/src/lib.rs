//! ballast-aot
