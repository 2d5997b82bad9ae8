//! The plan format from the outside: whatever the bytes, an answer; whatever is accepted stays inside its memory.

mod bytes;
mod every_kind;
mod inside;
mod nested;
mod touch;
mod work;
