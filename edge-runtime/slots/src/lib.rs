//! ballast-slots
