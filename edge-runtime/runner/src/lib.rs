//! ballast-runner
