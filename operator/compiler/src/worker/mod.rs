//! Child processes for hostile input.
//!
//! Models are parsed and compiled in one child, plans proved in a second one that never sees the model. Both are this same
//! program under a hidden subcommand: no keys, tokens, files or network; bounded memory, CPU and time; a request on
//! standard input and a reply on standard output, both bounded. The parent checks what comes back and signs it.

mod child;
mod isolation;
mod parent;
mod seccomp;
mod validate;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use child::{compile_worker_main, prove_worker_main, serve_compile, serve_prove};
pub use isolation::Isolation;
pub use parent::{check_worker, prove_in_worker, run_in_worker};

use crate::prove::{ProveRequest, Proved};
use crate::{CompileOutcome, CompileRequest};

/// Subcommands of the program that is its own worker.
pub const COMPILE_WORKER: &str = "compile-worker";
/// See [`COMPILE_WORKER`].
pub const PROVE_WORKER: &str = "prove-worker";

/// What one worker may use. Also the first line of its input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerLimits {
    /// Private writable memory (`RLIMIT_DATA`), bytes. Address space is not limited: the sandbox reserves much of it.
    pub memory_bytes: u64,
    /// `RLIMIT_CPU`, seconds.
    pub cpu_seconds: u64,
    /// From start to the last byte of the reply, seconds.
    pub wall_seconds: u64,
    /// Largest reply, bytes of JSON. What a request can make of it is bounded more tightly, see [`run_in_worker`].
    pub reply_bytes: u64,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self { memory_bytes: 4 << 30, cpu_seconds: 300, wall_seconds: 600, reply_bytes: 2 << 30 }
    }
}

impl WorkerLimits {
    pub(crate) const fn wall(&self) -> Duration {
        Duration::from_secs(self.wall_seconds)
    }
}

/// A worker gave no usable reply. Those that may be [the input's fault](Self::is_inputs_fault) are so the second time on one
/// input (`CompilerCrashed`); the others say nothing of it, and are tried again.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The process could not be started.
    #[error("the worker could not be started from {exe}: {source}")]
    Start {
        /// The program.
        exe: String,
        /// Why. In the sentence, so no `source()` besides.
        r#source: std::io::Error,
    },
    /// The worker could not shut itself off from files and network, and so did not begin.
    #[error("the worker refused to run without isolation: {0}")]
    Isolation(String),
    /// It died: a signal, a panic, an exit without a reply.
    #[error("the worker died ({status}); its last words: {stderr}")]
    Crashed {
        /// Exit status in words.
        status: String,
        /// Bounded, printable.
        stderr: String,
    },
    /// The parent could not hear it or see it end.
    #[error("the worker could not be listened to: {0}")]
    Pipe(std::io::Error),
    /// It hit its memory limit.
    #[error("the worker needed more than its {limit} bytes of memory")]
    Memory {
        /// `memoryBytes`.
        limit: u64,
    },
    /// It hit its time limit.
    #[error("the worker did not end within {seconds} s")]
    Timeout {
        /// Of processor or of wall time.
        seconds: u64,
    },
    /// The reply is not what a worker says: too long, not JSON, or about something else than what was asked.
    #[error("the worker's reply cannot be used: {0}")]
    Reply(String),
    /// No runner for this host, or the proof could not be set up.
    #[error("the plan cannot be proved on this host: {0}")]
    Prove(String),
}

impl WorkerError {
    /// Whether the input may have caused it. What the machine, its kernel or this program's installation caused is no model's
    /// fault, however often it happens.
    pub const fn is_inputs_fault(&self) -> bool {
        match self {
            Self::Crashed { .. } | Self::Memory { .. } | Self::Timeout { .. } | Self::Reply(_) => true,
            Self::Start { .. } | Self::Isolation(_) | Self::Pipe(_) | Self::Prove(_) => false,
        }
    }
}

/// What a worker is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "task")]
enum Task {
    /// Only to say how it is isolated.
    Ping,
    /// Compile.
    Compile(Box<CompileRequest>),
    /// Prove.
    Prove(Box<ProveRequest>),
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "reply")]
enum Reply {
    Pong {
        isolation: Isolation,
    },
    /// It will not run; the request was not looked at.
    NotIsolated {
        message: String,
    },
    Compiled {
        outcome: Box<CompileOutcome>,
    },
    Proved {
        proved: Proved,
    },
    /// Asked for what this subcommand does not do, or a request that cannot be read.
    Refused {
        message: String,
    },
}
