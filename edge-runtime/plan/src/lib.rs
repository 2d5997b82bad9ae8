//! The plan format: a model compiled to steps over one arena, with packed weights beside it. Data, never code.
//!
//! ```text
//! magic "BALLASTP" · major u16 · minor u16 · sections u32
//! sections × { kind u32 · flags u32 (bit 0: required) · offset u32 · length u32 }
//! the sections' bytes
//! ```
//! All numbers are little-endian. A reader refuses a required section that it does not know and skips others. Reading is
//! total: any bytes give a plan or a [`PlanError`], in time linear in their length, without allocation; and every step of a
//! plan that was read stays inside its memory (see [`check`]) and does a bounded amount of [`work`].
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]
#![allow(clippy::arithmetic_side_effects)] // bounded where they stand: see `check` and `geometry`

#[cfg(feature = "build")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod bounded;
#[cfg(feature = "build")]
pub mod build;
pub mod check;
pub mod control;
pub mod elt;
mod error;
pub mod generic;
pub mod geometry;
pub mod quantized;
pub mod record;
pub mod step;
pub mod work;

pub use elt::{EltInstr, EltOp, EltProgram};
pub use error::PlanError;
pub use step::{At, DType, Domain, Step};

use core::ops::Range;

use check::{Bounds, Programs};
use control::{Flat, Items};
use record::Reader;

/// First bytes of a plan.
pub const MAGIC: [u8; 8] = *b"BALLASTP";
/// The major version that this crate reads and writes.
pub const MAJOR: u16 = 1;
/// The newest minor version of it.
pub const MINOR: u16 = 1;
/// Longest plan.
pub const MAX_PLAN_BYTES: usize = 64 << 20;
/// Most entries.
pub const MAX_ENTRIES: u32 = 16;
/// Most inputs, and most outputs, of an entry.
pub const MAX_TENSORS: u32 = 64;
/// Most dimensions of a tensor.
pub const MAX_RANK: u32 = 8;
/// Most element-wise programs.
pub const MAX_PROGRAMS: u32 = 65_536;

/// Section kinds.
pub mod section {
    /// Arena bytes, weight bytes, operations (u64): four words.
    pub const META: u32 = 1;
    /// Entries.
    pub const ENTRIES: u32 = 2;
    /// Steps.
    pub const STEPS: u32 = 3;
    /// Element-wise programs.
    pub const PROGRAMS: u32 = 4;
    /// State that outlives a request: bytes at the front of the arena. One word.
    pub const STATE: u32 = 5;
    /// Bit 0 of a section's flags.
    pub const REQUIRED: u32 = 1;
    /// Most sections.
    pub const MAX: u32 = 64;
}

/// A plan that was read and checked whole.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    arena_bytes: u32,
    weights_bytes: u32,
    state_bytes: u32,
    flop: u64,
    entries: &'a [u8],
    steps: &'a [u8],
    programs: ProgramTable<'a>,
}

impl<'a> Plan<'a> {
    /// Without entries, programs and memory: for steps that are made by hand, in measurements and tests.
    pub const fn empty() -> Self {
        let programs = ProgramTable { count: 0, offsets: &[], bodies: &[] };
        Self { arena_bytes: 0, weights_bytes: 0, state_bytes: 0, flop: 0, entries: &[], steps: &[], programs }
    }

    /// Reads and checks every section, entry, program and step.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PlanError> {
        if bytes.len() > MAX_PLAN_BYTES {
            return Err(PlanError::TooLong);
        }
        let mut header = Reader::new(bytes);
        if header.bytes(8).map_err(|_| PlanError::NotAPlan)? != MAGIC {
            return Err(PlanError::NotAPlan);
        }
        let major = header.word()? as u16;
        if major != MAJOR {
            return Err(PlanError::Major(major));
        }
        let mut found: [Option<&[u8]>; 6] = [None; 6];
        for _ in 0..header.at_most("number of sections", section::MAX)? {
            let [kind, flags, offset, length] = [header.word()?, header.word()?, header.word()?, header.word()?];
            let end = (offset as usize).checked_add(length as usize).ok_or(PlanError::Truncated)?;
            let body = bytes.get(offset as usize..end).ok_or(PlanError::Truncated)?;
            let place = if kind == 0 { None } else { found.get_mut(kind as usize) };
            if let Some(place) = place {
                if place.replace(body).is_some() {
                    return Err(PlanError::Section(kind));
                }
            } else if flags & section::REQUIRED != 0 {
                return Err(PlanError::UnknownSection(kind));
            }
        }
        let [_, meta, entries, steps, programs, state] = found;
        let mut meta = Reader::new(meta.ok_or(PlanError::Section(section::META))?);
        let [arena_bytes, weights_bytes] =
            [meta.at_most("arena", i32::MAX as u32)?, meta.at_most("weights", i32::MAX as u32)?];
        let [low, high] = [meta.word()?, meta.word()?];
        let state_bytes = state.map_or(Ok(0), |s| Reader::new(s).at_most("state", arena_bytes))?;
        let plan = Self {
            arena_bytes,
            weights_bytes,
            state_bytes,
            flop: u64::from(low) | u64::from(high) << 32,
            entries: entries.ok_or(PlanError::Section(section::ENTRIES))?,
            steps: steps.ok_or(PlanError::Section(section::STEPS))?,
            programs: ProgramTable::parse(programs.ok_or(PlanError::Section(section::PROGRAMS))?)?,
        };
        plan.check()?;
        Ok(plan)
    }

    /// Gives how many lists of steps were gone through: each once, however many entries run it.
    fn check(&self) -> Result<usize, PlanError> {
        let bounds = Bounds { arena: self.arena_bytes, weights: self.weights_bytes, programs: &self.programs };
        let mut entries = Reader::new(self.entries);
        let count = entries.at_most("number of entries", MAX_ENTRIES)?;
        let mut lists: [Range<usize>; MAX_ENTRIES as usize] = core::array::from_fn(|_| 0..0);
        let mut gone_through = 0;
        for (index, list) in (0..count).zip(0..) {
            let entry = Entry::read(&mut entries, self.steps)?;
            for tensor in entry.inputs().chain(entry.outputs()) {
                let end = u64::from(tensor.at) + tensor.bytes().ok_or(PlanError::Truncated)?;
                if end > u64::from(self.arena_bytes) || !tensor.at.is_multiple_of(tensor.dtype.size() as u32) {
                    return Err(PlanError::Value { what: "place of a tensor", value: tensor.at });
                }
            }
            let range = entry.start..entry.start + entry.steps.len();
            let before = lists.get(..list).unwrap_or(&[]);
            if before.contains(&range) {
                continue;
            }
            if before.iter().any(|other| range.start < other.end && other.start < range.end) {
                return Err(PlanError::Shared { what: "the list of steps of entry", index });
            }
            bounds.items(entry.items())?;
            gone_through += 1;
            if let Some(place) = lists.get_mut(list) {
                *place = range;
            }
        }
        if count == 0 || !entries.is_empty() {
            return Err(PlanError::Section(section::ENTRIES));
        }
        Ok(gone_through)
    }

    /// Work of one run of an entry, see [`work`]: at most [`MAX_WORK`](crate::work::MAX_WORK).
    pub fn work(&self, entry: &Entry<'a>) -> u64 {
        work::work(entry.items(), &self.programs)
    }

    /// Bytes of arena that the plan needs.
    pub fn arena_bytes(&self) -> u32 {
        self.arena_bytes
    }

    /// Bytes of weights that the plan needs.
    pub fn weights_bytes(&self) -> u32 {
        self.weights_bytes
    }

    /// Bytes at the front of the arena that must outlive a request; 0 for models without memory.
    pub fn state_bytes(&self) -> u32 {
        self.state_bytes
    }

    /// Floating-point operations of one inference with the first entry, as the compiler counted them.
    pub fn flop(&self) -> u64 {
        self.flop
    }

    /// The entries in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let (mut reader, steps) = (Reader::new(self.entries), self.steps);
        let count = reader.word().unwrap_or(0);
        (0..count).map_while(move |_| Entry::read(&mut reader, steps).ok())
    }

    /// An element-wise program.
    pub fn program(&self, index: u32) -> Option<EltProgram<'a>> {
        self.programs.get(index)
    }
}

/// A way into a plan: named inputs and outputs in the arena, and the steps between them.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    name: &'a str,
    inputs: (u32, &'a [u8]),
    outputs: (u32, &'a [u8]),
    /// Bytes of the step section in front of its own.
    start: usize,
    steps: &'a [u8],
}

impl<'a> Entry<'a> {
    fn read(r: &mut Reader<'a>, steps: &'a [u8]) -> Result<Self, PlanError> {
        let name = r.name()?;
        let [start, length] = [r.word()? as usize, r.word()? as usize];
        let end = start.checked_add(length).ok_or(PlanError::Truncated)?;
        let steps = steps.get(start..end).ok_or(PlanError::Truncated)?;
        let mut tensors = || -> Result<(u32, &'a [u8]), PlanError> {
            let [count, bytes] = [r.at_most("number of tensors", MAX_TENSORS)?, r.word()?];
            let body = r.bytes(bytes as usize)?;
            let mut inner = Reader::new(body);
            for _ in 0..count {
                Tensor::read(&mut inner)?;
            }
            Ok((count, body))
        };
        Ok(Self { name, inputs: tensors()?, outputs: tensors()?, start, steps })
    }

    /// Its name; a whole model's is `main`.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// What the host writes before a run.
    pub fn inputs(&self) -> impl Iterator<Item = Tensor<'a>> + use<'a> {
        tensors(self.inputs)
    }

    /// What the host reads after a run.
    pub fn outputs(&self) -> impl Iterator<Item = Tensor<'a>> + use<'a> {
        tensors(self.outputs)
    }

    /// What runs, in order: steps, and steps under control.
    pub fn items(&self) -> Items<'a> {
        Items::new(self.steps)
    }

    /// All steps in the order in which they lie, those of repeats and branches included, each once. Not a way to run them:
    /// that is [`Entry::items`].
    pub fn steps(&self) -> impl Iterator<Item = Step> + use<'a> {
        Flat::new(self.items())
    }
}

fn tensors<'a>((count, bytes): (u32, &'a [u8])) -> impl Iterator<Item = Tensor<'a>> + use<'a> {
    let mut reader = Reader::new(bytes);
    (0..count).map_while(move |_| Tensor::read(&mut reader).ok())
}

/// An input or output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tensor<'a> {
    /// As the model names it.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    dims: &'a [u8],
    /// Bytes from the start of the arena.
    pub at: u32,
}

impl<'a> Tensor<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, PlanError> {
        let name = r.name()?;
        let dtype = record::Field::read(r)?;
        let rank = r.at_most("rank", MAX_RANK)? as usize;
        Ok(Self { name, dtype, dims: r.bytes(rank * 4)?, at: r.word()? })
    }

    /// Row-major shape.
    pub fn dims(&self) -> impl Iterator<Item = u32> + use<'a> {
        let mut reader = Reader::new(self.dims);
        core::iter::from_fn(move || reader.word().ok())
    }

    /// Bytes of all elements; `None` when that overflows.
    pub fn bytes(&self) -> Option<u64> {
        self.dims().try_fold(self.dtype.size() as u64, |a, d| a.checked_mul(u64::from(d)))
    }
}

/// The programs: a count, then for each its offset; then the programs.
#[derive(Debug, Clone, Copy)]
struct ProgramTable<'a> {
    count: u32,
    offsets: &'a [u8],
    bodies: &'a [u8],
}

impl<'a> ProgramTable<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, PlanError> {
        let mut r = Reader::new(bytes);
        let count = r.at_most("number of programs", MAX_PROGRAMS)?;
        let offsets = r.bytes(count as usize * 4)?;
        let bodies = bytes.get(4 + offsets.len()..).unwrap_or(&[]);
        let table = Self { count, offsets, bodies };
        // One behind the other, so that few bytes cannot be many programs.
        let mut end = 0;
        for index in 0..count {
            let start = table.offset(index)?;
            if start < end {
                return Err(PlanError::Shared { what: "program", index });
            }
            end = start + table.read(index)?.bytes();
        }
        Ok(table)
    }

    fn offset(&self, index: u32) -> Result<usize, PlanError> {
        let place = self.offsets.get(index as usize * 4..).ok_or(PlanError::Program(index))?;
        Ok(Reader::new(place).word()? as usize)
    }

    fn read(&self, index: u32) -> Result<EltProgram<'a>, PlanError> {
        let offset = self.offset(index)?;
        EltProgram::read(&mut Reader::new(self.bodies.get(offset..).ok_or(PlanError::Truncated)?), index)
    }

    fn get(&self, index: u32) -> Option<EltProgram<'a>> {
        if index < self.count { self.read(index).ok() } else { None }
    }
}

impl Programs for ProgramTable<'_> {
    fn inputs(&self, program: u32, domain: Domain) -> Option<usize> {
        self.get(program).filter(|p| p.is_of(domain)).map(|p| p.inputs())
    }

    fn length(&self, program: u32) -> u64 {
        self.get(program).map_or(0, |p| p.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{PlanBuilder, TensorDef};
    use crate::step::Fill;
    use std::vec::Vec;

    /// As many entries as there may be, each `[fill; 2]`, with entry `i` made to start where `start(i)` says.
    fn plan(start: impl Fn(u32) -> u32) -> Vec<u8> {
        let mut builder = PlanBuilder::new();
        let fill: Step = Fill { out: At::arena(0).unwrap(), words: 1, value: 0 }.into();
        let def = TensorDef { name: "x".into(), dtype: DType::U8, dims: [1].into(), at: 0 };
        for _ in 0..MAX_ENTRIES {
            builder.entry("e", [def.clone()].into(), [def.clone()].into(), &[fill, fill]);
        }
        let mut bytes = builder.finish(64, 0, 0).unwrap();
        for entry in 0..MAX_ENTRIES {
            // Length of the name, the name; then where the steps start and how long they are.
            let head = |start: u32| [1, u32::from(b'e'), start, 40].map(u32::to_le_bytes).concat();
            let place = bytes.windows(16).rposition(|w| w == head(entry * 40)).unwrap();
            bytes[place..place + 16].copy_from_slice(&head(start(entry)));
        }
        bytes
    }

    #[test]
    fn a_list_that_many_entries_run_is_gone_through_once() {
        let lists = |bytes: &[u8]| Plan::parse(bytes).unwrap().check().unwrap();
        assert_eq!(lists(&plan(|entry| entry * 40)), MAX_ENTRIES as usize);
        assert_eq!(lists(&plan(|_| 40)), 1);
        assert_eq!(lists(&plan(|entry| entry % 2 * 40)), 2);
    }

    #[test]
    fn lists_are_shared_whole_or_not_at_all() {
        let error = Plan::parse(&plan(|entry| entry * 20)).unwrap_err();
        assert_eq!(error, PlanError::Shared { what: "the list of steps of entry", index: 1 });
    }

    #[test]
    fn programs_do_not_lie_inside_each_other() {
        let code = EltInstr { op: EltOp::Neg, dst: 1, ..EltInstr::default() };
        let one = EltProgram::encode(1, 2, &[code]);
        let table = |offsets: [u32; 2]| {
            let head = [2, offsets[0], offsets[1]].map(u32::to_le_bytes).concat();
            [head, one.clone(), one.clone()].concat()
        };
        let length = one.len() as u32;
        assert!(ProgramTable::parse(&table([0, length])).is_ok());
        for second in [0, 4] {
            assert!(ProgramTable::parse(&table([0, second])).is_err(), "at {second}");
        }
        let error = ProgramTable::parse(&table([length, 0])).unwrap_err();
        assert_eq!(error, PlanError::Shared { what: "program", index: 1 });
    }
}
