//! Offline validation.
