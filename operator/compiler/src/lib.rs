//! ballast-compiler
