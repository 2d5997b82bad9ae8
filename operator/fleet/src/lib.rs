//! ballast-fleet
