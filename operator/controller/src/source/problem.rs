//! What in the directory was not accepted, and whom it concerns.

use std::path::PathBuf;

use super::store::{Identity, Stored};

/// Something in the directory that was not accepted. What was accepted before stays in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Below the directory; empty for the directory itself.
    pub file: PathBuf,
    /// From 1, where one line is to blame.
    pub line: Option<u64>,
    /// The object that was meant; `None` when that cannot be told: any object of the file.
    pub object: Option<Identity>,
    /// What is wrong, where, and what to do.
    pub message: String,
}

impl Problem {
    /// Whether it keeps a newer wish for this object from being seen.
    pub fn concerns(&self, stored: &Stored) -> bool {
        match &self.object {
            Some(object) => *object == stored.identity,
            None => self.file.as_os_str().is_empty() || self.file == stored.file,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.file.as_os_str().is_empty() {
            write!(f, "{}", self.file.display())?;
            if let Some(line) = self.line {
                write!(f, " line {line}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}
