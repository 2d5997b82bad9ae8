//! Placement: where a model's answers should come from on one target. From what was measured and what the user wants
//! follows one table: each mode with its figures, why it is excluded, and what would have to change; and, for `Auto`, the
//! choice with its reason, which a link that comes and goes does not make waver.
//!
//! Everything is whole numbers of small units (microseconds, bytes, nanojoules, ten-thousandths) and saturates; what was
//! not measured is unknown, never guessed, and what is unknown is never held to be good enough.

mod change;
mod choice;
mod facts;
mod figures;
mod table;

pub use change::Change;
pub use choice::{Choice, PlacementState, Why, choose};
pub use facts::{CloudFacts, EdgeFacts, Facts, LinkFacts, Objectives, Privacy, SplitFacts};
pub use figures::{Figures, Latency};
pub use table::{Mode, Reason, Row, Table, table};
