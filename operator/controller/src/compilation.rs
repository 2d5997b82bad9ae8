//! Who compiles. The operator uses worker processes; tests bring their own.

use ballast_compiler::{CompileOutcome, CompileRequest, Isolation, WorkerError};

/// Compiles one model for one target. Blocking.
pub trait Compiler: Send + Sync + 'static {
    /// `Err`: no outcome; [`WorkerError::is_inputs_fault`] says whether the model may be to blame.
    fn compile(&self, request: &CompileRequest) -> Result<CompileOutcome, WorkerError>;

    /// What stands around the processes that compile, to be said at start; `None` where none are used. Blocking.
    fn isolation(&self) -> Option<Result<Isolation, WorkerError>> {
        None
    }
}
