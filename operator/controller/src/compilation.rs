//! Who compiles. The operator uses worker processes; tests bring their own.

use ballast_compiler::{CompileOutcome, CompileRequest};

/// Compiles one model for one target. Blocking.
pub trait Compiler: Send + Sync + 'static {
    /// `Err`: no outcome, in words for people.
    fn compile(&self, request: &CompileRequest) -> Result<CompileOutcome, String>;
}
