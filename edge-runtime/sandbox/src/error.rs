//! What can go wrong: before a program can answer ([`SandboxError`]), and with one request ([`Fault`]).

use ballast_bundle::protocol::FailureReason;

/// Longest text that is kept of anything a guest or Wasmtime says.
const MAX_TEXT: usize = 512;

/// A program could not be made ready. Trying again with the same bytes gives the same answer, except for
/// [`Memory`](Self::Memory) and [`Thread`](Self::Thread).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    /// Wasmtime refused the profile.
    #[error("the engine cannot be set up: {0}")]
    Engine(String),
    /// Not code for this engine, profile, architecture or CPU.
    #[error("the module is not code for this machine and engine: {0}")]
    Incompatible(String),
    /// The module does not speak the runner ABI.
    #[error("the module does not speak runner ABI {}.x: {message}", crate::abi::MAJOR)]
    Abi {
        /// What is missing or wrong.
        message: String,
    },
    /// The plan cannot be read, or is not the contract's.
    #[error("the plan does not fit its contract: {0}")]
    Plan(String),
    /// Code, plan, weights and arena together need more than the limit.
    #[error("needs {needed} bytes of memory, and its limit is {limit}")]
    Limit {
        /// Bytes of one instance.
        needed: u64,
        /// `limits.memoryBytes`.
        limit: u64,
    },
    /// The host could not give the memory, or the guest asked for more than it may have.
    #[error("no memory for the guest: {0}")]
    Memory(String),
    /// The weights file could not be read to its end.
    #[error("the weights cannot be read: {0}")]
    Weights(String),
    /// The guest failed while it was loading.
    #[error("the guest failed while loading: {0}")]
    Load(Fault),
    /// The operating system gave no thread.
    #[error("no thread for the sandbox: {0}")]
    Thread(String),
}

impl SandboxError {
    /// The reason in the gateway's report.
    pub const fn reason(&self) -> FailureReason {
        match self {
            Self::Memory(_) | Self::Thread(_) | Self::Limit { .. } => FailureReason::InsufficientMemory,
            Self::Load(fault) => fault.reason(),
            Self::Engine(_) | Self::Incompatible(_) | Self::Abi { .. } | Self::Plan(_) | Self::Weights(_) => {
                FailureReason::InvalidBundle
            }
        }
    }
}

/// One request failed. Every fault but [`Request`](Self::Request) costs the guest its Store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The request does not fit the contract; the guest never saw it.
    #[error("the request does not fit the contract: {message}")]
    Request {
        /// Which input, and what was expected.
        message: String,
    },
    /// The guest trapped.
    #[error("the guest trapped: {message}")]
    Trap {
        /// Wasmtime's words.
        message: String,
    },
    /// The guest missed its deadline.
    #[error("the guest missed its deadline")]
    DeadlineExceeded,
    /// An output holds an infinity or a NaN.
    #[error("output {output} is not finite")]
    NotFinite {
        /// Its name.
        output: String,
    },
    /// The guest broke the ABI.
    #[error("the guest broke the runner ABI: {message}")]
    Abi {
        /// How.
        message: String,
    },
    /// The guest said that it failed.
    #[error("the guest failed with status {code}: {message}")]
    Status {
        /// Its status.
        code: i32,
        /// Its words, bounded and printable.
        message: String,
    },
    /// The guest named a place outside its memory.
    #[error("the guest named {what} at {address:#x}, {length} bytes, outside its memory")]
    OutOfBounds {
        /// What should be there.
        what: String,
        /// First byte.
        address: u32,
        /// Bytes.
        length: u64,
    },
    /// This instance failed before and takes no more requests.
    #[error("the instance failed before; use another")]
    Poisoned,
    /// No instance could be made to answer.
    #[error("no instance to answer: {message}")]
    Unavailable {
        /// Why.
        message: String,
        /// As [`SandboxError::reason`].
        reason: FailureReason,
    },
}

impl Fault {
    /// The reason in the gateway's report.
    pub const fn reason(&self) -> FailureReason {
        match self {
            Self::DeadlineExceeded => FailureReason::DeadlineExceeded,
            Self::NotFinite { .. } => FailureReason::NotFinite,
            Self::Trap { .. } | Self::Status { .. } | Self::OutOfBounds { .. } | Self::Abi { .. } | Self::Poisoned => {
                FailureReason::Trap
            }
            Self::Unavailable { reason, .. } => *reason,
            Self::Request { .. } => FailureReason::InvalidBundle,
        }
    }

    /// Whether the release is to blame; a request that does not fit the contract is its sender's fault.
    pub const fn is_guests(&self) -> bool {
        !matches!(self, Self::Request { .. })
    }

    /// What a call into a guest failed with.
    pub(crate) fn of_call(error: &wasmtime::Error) -> Self {
        match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::Interrupt) => Self::DeadlineExceeded,
            Some(trap) => Self::Trap { message: bounded(&trap.to_string()) },
            None => Self::Trap { message: text(error) },
        }
    }
}

/// An error and its causes in one bounded line.
pub(crate) fn text(error: &wasmtime::Error) -> String {
    let mut out = String::new();
    for cause in error.chain() {
        if !out.is_empty() {
            out.push_str(": ");
        }
        out.push_str(&cause.to_string());
        if out.len() > MAX_TEXT {
            break;
        }
    }
    bounded(&out)
}

/// At most [`MAX_TEXT`] bytes, without control characters.
pub(crate) fn bounded(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() + c.len_utf8() > MAX_TEXT {
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}
