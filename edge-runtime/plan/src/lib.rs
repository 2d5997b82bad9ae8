//! ballast-plan
