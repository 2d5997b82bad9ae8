//! Virtual active learning: the cloud teaches the filters. From what gateways counted of their confidence and of the
//! cloud's agreement follows, per class, the threshold that keeps the user's promise with the fewest escalations.
//!
//! **The promise.** Of the answers that the edge gives by itself in a class, at least `agreement` are those that the cloud
//! would have given; a set of thresholds for which that is not so in the window that it was made from is chosen with a
//! probability of at most 1 − `confidence`. All classes hold at once. (An escalated answer is the cloud's own, so the joint
//! answers agree at least as often.)
//!
//! **How.** Thresholds of a class are tested in a fixed order, from strict to lax, each by the exact binomial test (its
//! bound is Clopper and Pearson's), and the first that fails ends the walk. Since the order does not depend on the labels,
//! the walk needs no correction for the number of thresholds (fixed-sequence testing: Maurer, Hothorn and Lehmacher, 1995;
//! for thresholds of a predictor: Angelopoulos et al., Learn then Test, 2021). What is corrected for, by Bonferroni, is the
//! few places where walks start and the number of classes. Conformal risk control was not chosen: it bounds an expectation
//! over windows and knows no `confidence`, and it wants a risk that only grows with the threshold; the agreement of what
//! stays is a ratio, which may go either way.
//!
//! **Labels.** Of what the edge answers itself only the random share is ever labelled, of what it escalates everything. So
//! only the random share counts, on both sides of the threshold in force: one coin for every request. Then the labels are a
//! simple random sample of the window's requests, whatever thresholds were in force. Where to start, which classes stand
//! alone, and which bins are looked at follow from how many requests were seen and how many labels there are in all, never
//! from what the labels say or where they fell.

mod binomial;
mod target;
mod thresholds;
mod window;

pub use target::{EscalationTarget, TargetError};
pub use thresholds::{ClassGroup, Thresholds, Verdict, thresholds};
pub use window::{BINS, Cell, Window, WindowError};
