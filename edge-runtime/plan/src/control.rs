//! Steps that hold steps: `Repeat` and `Branch`.
//!
//! Their bodies lie inside of them, so that nesting is what the bytes say and cannot lie. Nothing else of a plan changes: the
//! steps of a body have fixed places, and what moves on from round to round is copied by [`Slide`]s before and after each
//! round. Nesting and rounds are bounded when a plan is read, so whoever runs one may recurse.

#[cfg(feature = "build")]
use alloc::vec::Vec;

use crate::record::{Field, Reader, record};
use crate::{At, PlanError, Step};

/// `Repeat`.
pub const REPEAT: u32 = 0x100;
/// `Branch`.
pub const BRANCH: u32 = 0x101;
/// Deepest nesting of repeats and branches.
pub const MAX_NESTING: usize = 8;
/// Most steps and slides that a run of one entry carries out, rounds counted.
pub const MAX_EXECUTED: u64 = 1 << 24;

record! {
    /// Copies `bytes` from `from + round · from_step` to `to + round · to_step`. The two may overlap.
    pub struct Slide {
        /// Where round 0 reads.
        from: At,
        /// Bytes from one round to the next; may be negative or 0.
        from_step: i32,
        /// Where round 0 writes.
        to: At,
        /// Bytes from one round to the next; may be negative or 0.
        to_step: i32,
        /// At least 1.
        bytes: u32,
    }
}

/// Steps that run `count` times, or until a condition ends.
///
/// `count u32 · gated u32 · gate At · slides before u32 · slides after u32 · slides · steps`
#[derive(Debug, Clone, Copy)]
pub struct Repeat<'a> {
    /// Most rounds, at least 1.
    pub count: u32,
    /// A Boolean in the arena that is read before each round: 0 ends the repeat.
    pub gate: Option<At>,
    before: &'a [u8],
    after: &'a [u8],
    body: &'a [u8],
}

impl<'a> Repeat<'a> {
    fn read(body: &'a [u8]) -> Result<Self, PlanError> {
        let mut r = Reader::new(body);
        let count = r.word()?;
        let gated = r.at_most("gate of a repeat", 1)? == 1;
        let at = At::read(&mut r)?;
        let mut lengths = [0; 2];
        for length in &mut lengths {
            *length = (r.word()? as usize).checked_mul(SLIDE_BYTES).ok_or(PlanError::Truncated)?;
        }
        let [before, after] = [r.bytes(lengths[0])?, r.bytes(lengths[1])?];
        Ok(Self { count, gate: gated.then_some(at), before, after, body: r.rest() })
    }

    /// What is copied before each round, in order.
    pub fn before(&self) -> impl Iterator<Item = Slide> + use<'a> {
        slides(self.before)
    }

    /// What is copied after each round, in order.
    pub fn after(&self) -> impl Iterator<Item = Slide> + use<'a> {
        slides(self.after)
    }

    /// The steps of a round.
    pub fn body(&self) -> Items<'a> {
        Items::new(self.body)
    }
}

/// Words of a slide are five.
const SLIDE_BYTES: usize = 20;

fn slides<'a>(bytes: &'a [u8]) -> impl Iterator<Item = Slide> + use<'a> {
    let mut reader = Reader::new(bytes);
    core::iter::from_fn(move || Slide::read(&mut reader).ok())
}

/// Steps of which one list or the other runs.
///
/// `condition At · bytes of the first list u32 · steps · steps`
#[derive(Debug, Clone, Copy)]
pub struct Branch<'a> {
    /// A Boolean: not 0 runs the first list.
    pub condition: At,
    then: &'a [u8],
    otherwise: &'a [u8],
}

impl<'a> Branch<'a> {
    fn read(body: &'a [u8]) -> Result<Self, PlanError> {
        let mut r = Reader::new(body);
        let condition = At::read(&mut r)?;
        let length = r.word()? as usize;
        Ok(Self { condition, then: r.bytes(length)?, otherwise: r.rest() })
    }

    /// The steps that run when the condition is true.
    pub fn then(&self) -> Items<'a> {
        Items::new(self.then)
    }

    /// The steps that run when it is false.
    pub fn otherwise(&self) -> Items<'a> {
        Items::new(self.otherwise)
    }
}

/// A step, or steps under control.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::large_enum_variant)] // decoded in place, one at a time
pub enum Item<'a> {
    /// One step.
    Step(Step),
    /// Steps that run again and again.
    Repeat(Repeat<'a>),
    /// Steps of which some run.
    Branch(Branch<'a>),
}

/// Items one after the other; ends at the first that cannot be read, which a plan that was checked does not have.
#[derive(Debug, Clone, Copy)]
pub struct Items<'a> {
    reader: Reader<'a>,
}

impl<'a> Items<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes) }
    }

    /// The next one, if there is one.
    pub(crate) fn read(&mut self) -> Result<Option<Item<'a>>, PlanError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let [kind, length] = [self.reader.word()?, self.reader.word()?];
        let body = self.reader.bytes(length as usize)?;
        Ok(Some(match kind {
            REPEAT => Item::Repeat(Repeat::read(body)?),
            BRANCH => Item::Branch(Branch::read(body)?),
            _ => Item::Step(Step::decode(kind, body)?),
        }))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        self.read().ok().flatten()
    }
}

/// All steps in the order in which they lie, bodies' steps included, each once.
#[derive(Debug, Clone)]
pub(crate) struct Flat<'a> {
    open: [Items<'a>; MAX_NESTING * 2 + 1],
    depth: usize,
}

impl<'a> Flat<'a> {
    pub(crate) fn new(items: Items<'a>) -> Self {
        let mut open = [Items::new(&[]); MAX_NESTING * 2 + 1];
        if let Some(first) = open.first_mut() {
            *first = items;
        }
        Self { open, depth: 0 }
    }

    fn push(&mut self, items: Items<'a>) {
        if let Some(place) = self.open.get_mut(self.depth + 1) {
            *place = items;
            self.depth += 1;
        }
    }
}

impl Iterator for Flat<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            match self.open.get_mut(self.depth)?.next() {
                Some(Item::Step(step)) => return Some(step),
                Some(Item::Repeat(repeat)) => self.push(repeat.body()),
                Some(Item::Branch(branch)) => {
                    self.push(branch.otherwise());
                    self.push(branch.then());
                }
                None => self.depth = self.depth.checked_sub(1)?,
            }
        }
    }
}

/// An item to be.
#[cfg(feature = "build")]
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, clippy::large_enum_variant)] // fields are as in `Repeat` and `Branch`; steps are most of them
pub enum Block {
    /// One step.
    Step(Step),
    /// See [`Repeat`].
    Repeat { count: u32, gate: Option<At>, before: Vec<Slide>, after: Vec<Slide>, body: Vec<Block> },
    /// See [`Branch`].
    Branch { condition: At, then: Vec<Block>, otherwise: Vec<Block> },
}

#[cfg(feature = "build")]
impl From<Step> for Block {
    fn from(step: Step) -> Self {
        Self::Step(step)
    }
}

#[cfg(feature = "build")]
impl Block {
    /// Kind, length of the body, body.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut inner = Vec::new();
        let kind = match self {
            Self::Step(step) => return step.encode(out),
            Self::Repeat { count, gate, before, after, body } => {
                count.write(&mut inner);
                u32::from(gate.is_some()).write(&mut inner);
                gate.unwrap_or_default().write(&mut inner);
                (before.len() as u32).write(&mut inner);
                (after.len() as u32).write(&mut inner);
                before.iter().chain(after).for_each(|slide| slide.write(&mut inner));
                body.iter().for_each(|block| block.encode(&mut inner));
                REPEAT
            }
            Self::Branch { condition, then, otherwise } => {
                condition.write(&mut inner);
                let mut first = Vec::new();
                then.iter().for_each(|block| block.encode(&mut first));
                (first.len() as u32).write(&mut inner);
                inner.extend_from_slice(&first);
                otherwise.iter().for_each(|block| block.encode(&mut inner));
                BRANCH
            }
        };
        kind.write(out);
        (inner.len() as u32).write(out);
        out.extend_from_slice(&inner);
    }
}
