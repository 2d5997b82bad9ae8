//! ballast-bundle
