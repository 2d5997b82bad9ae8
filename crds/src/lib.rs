//! ballast-crds
