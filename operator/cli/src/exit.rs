//! How a command ends: a sentence for the person and a code for the script.

use std::process::ExitCode;

/// Why a command did not do what it was asked. Codes are part of the interface: `docs/cli.md`.
#[derive(Debug)]
pub enum Failure {
    /// 1: it could not be done.
    Failed(String),
    /// 1: what was asked about is not there.
    Missing(String),
    /// 3: it was done, and the answer is no (does not fit, does not verify, was rolled back). The answer is printed already.
    No(Option<String>),
    /// 4: the operator or the gateway does not answer.
    Unreachable(String),
    /// 2: arguments that are well-formed, and mean nothing.
    Usage(String),
    /// 5: it was done, and the answer is yes for some and no for others. The answer is printed already.
    Mixed,
    /// 6: the file is no model, or what was given with it cannot be used. With `None` the answer is printed already.
    BadInput(Option<String>),
}

impl Failure {
    /// What standard error says.
    pub fn sentence(&self) -> Option<&str> {
        match self {
            Self::Failed(sentence) | Self::Missing(sentence) | Self::Unreachable(sentence) | Self::Usage(sentence) => {
                Some(sentence)
            }
            Self::No(sentence) | Self::BadInput(sentence) => sentence.as_deref(),
            Self::Mixed => None,
        }
    }

    /// The process's exit code; 2 is also clap's, for arguments that make no sense.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) | Self::Missing(_) => 1,
            Self::No(_) => 3,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 4,
            Self::Mixed => 5,
            Self::BadInput(_) => 6,
        })
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

/// What `docs/cli.md` says of exit codes.
pub const TABLE: &str = "\
| code | meaning |
|---|---|
| 0 | done; for questions: yes |
| 1 | could not be done; standard error says why |
| 2 | the arguments make no sense |
| 3 | the answer is no: the model does not fit, a signature does not verify, the release was rolled back or refused |
| 4 | the operator or the gateway does not answer |
| 5 | `check` with several targets: the model fits some of them, and not others |
| 6 | the file is no model, contradicts itself, or the shapes or golden vectors given do not belong to it |

`check` without `--target` looks at every built-in target and asks whether there is one that fits: 0 or 3 (or 6). With targets
named, or `--target all`, each of them must: 0, 5 or 3.
";
