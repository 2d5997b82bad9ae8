//! What is compiled, and who does it. The operator uses worker processes; tests bring their own.

use std::sync::Arc;

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

/// One model for one target, with bytes that all targets of a release share until it is compiled.
#[derive(Debug, Clone)]
pub struct Compilation {
    /// All but the bytes: `model` is empty, `golden` absent.
    pub request: CompileRequest,
    /// The ONNX file.
    pub model: Arc<Vec<u8>>,
    /// The user's golden vectors.
    pub golden: Option<Arc<Vec<u8>>>,
}

impl Compilation {
    /// With bytes of its own.
    pub fn into_request(self) -> CompileRequest {
        CompileRequest {
            model: Arc::unwrap_or_clone(self.model),
            golden: self.golden.map(Arc::unwrap_or_clone),
            ..self.request
        }
    }
}
