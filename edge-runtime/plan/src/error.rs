//! Why bytes are not a plan that can run.

use core::fmt;

/// What is wrong with a plan, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanError {
    /// The first eight bytes are not [`MAGIC`](crate::MAGIC).
    NotAPlan,
    /// A major version that this reader does not run.
    Major(u16),
    /// The bytes end inside something.
    Truncated,
    /// Longer than [`MAX_PLAN_BYTES`](crate::MAX_PLAN_BYTES).
    TooLong,
    /// A section marked `required` that this reader does not know.
    UnknownSection(u32),
    /// A section that must be there once is missing or comes twice.
    Section(u32),
    /// A name that is not UTF-8.
    Name,
    /// A count, rank, type or enumeration outside its range.
    Value {
        /// What was read.
        what: &'static str,
        /// Its value.
        value: u32,
    },
    /// A step of a kind that this reader does not run.
    UnknownStep(u32),
    /// Repeats and branches are nested deeper than [`MAX_NESTING`](crate::control::MAX_NESTING).
    Nesting,
    /// A run would carry out more steps than [`MAX_EXECUTED`](crate::control::MAX_EXECUTED).
    TooManySteps,
    /// A run would be more work than [`MAX_WORK`](crate::work::MAX_WORK).
    TooMuchWork,
    /// Steps of an entry, or a program, begin inside those of another one: what is shared must be the same whole.
    Shared {
        /// What they are.
        what: &'static str,
        /// Which of them, in order.
        index: u32,
    },
    /// A step reads or writes outside arena or weights, or writes weights.
    OutOfBounds {
        /// The step's place in the step section.
        step: u32,
    },
    /// A step's numbers contradict each other.
    Geometry {
        /// The step's place in the step section.
        step: u32,
    },
    /// A program reads a register before it is written, or has no such register.
    Program(u32),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotAPlan => f.write_str("not a Ballast plan"),
            Self::Major(v) => write!(f, "plan format {v} is not one that this runner runs"),
            Self::Truncated => f.write_str("the plan ends too early"),
            Self::TooLong => f.write_str("the plan is longer than the format allows"),
            Self::UnknownSection(k) => write!(f, "the plan requires section {k}, which this runner does not know"),
            Self::Section(k) => write!(f, "section {k} is missing or comes twice"),
            Self::Name => f.write_str("a name in the plan is not UTF-8"),
            Self::Value { what, value } => write!(f, "{what} cannot be {value}"),
            Self::UnknownStep(k) => write!(f, "step kind {k} is not one that this runner runs"),
            Self::Nesting => f.write_str("repeats and branches are nested too deep"),
            Self::TooManySteps => f.write_str("a run would carry out more steps than the format allows"),
            Self::TooMuchWork => f.write_str("a run would be more work than the format allows"),
            Self::Shared { what, index } => write!(f, "{what} {index} lies partly inside another one"),
            Self::OutOfBounds { step } => write!(f, "step {step} reaches outside its memory"),
            Self::Geometry { step } => write!(f, "step {step} contradicts itself"),
            Self::Program(i) => write!(f, "element-wise program {i} is not well formed"),
        }
    }
}

impl core::error::Error for PlanError {}
