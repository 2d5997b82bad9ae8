//! `cargo xtask test`, phase `hardware`: gateways of other CPUs than this machine's.
//!
//! The gateway's own program, static and for aarch64, runs under qemu-user as a Cortex-A53, -A72 and -A76 beside one of this
//! machine's that lets only the interpreter in. They enrol at a real operator, which compiles a runner and bundles for the
//! target of each; a release that is Active on a gateway has reproduced its golden vectors there. Then the A76's state moves
//! to an A53, as a memory card does: the code on it must be refused, and another fetched.

mod elf;
mod program;
mod story;
mod tools;

pub use story::run;
pub use tools::tools;
