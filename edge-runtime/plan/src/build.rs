//! Writing plans. What comes out is read back by [`Plan::parse`](crate::Plan::parse), so a wrong plan is found here.

use alloc::string::String;
use alloc::vec::Vec;

use crate::control::Block;
use crate::record::Field;
use crate::{DType, EltInstr, EltProgram, MAGIC, MAJOR, MINOR, Plan, PlanError, Step, section};

/// An input or output to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorDef {
    /// As the model names it; at most 255 bytes.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Row-major shape, at most 8 dimensions.
    pub dims: Vec<u32>,
    /// Bytes from the start of the arena.
    pub at: u32,
}

#[derive(Debug, Clone)]
struct EntryDef {
    name: String,
    inputs: Vec<TensorDef>,
    outputs: Vec<TensorDef>,
    steps: Vec<u8>,
}

/// Collects a plan.
#[derive(Debug, Clone, Default)]
pub struct PlanBuilder {
    entries: Vec<EntryDef>,
    programs: Vec<Vec<u8>>,
}

impl PlanBuilder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of this program; the same program gives the same number.
    pub fn program(&mut self, inputs: usize, registers: usize, code: &[EltInstr]) -> u32 {
        let bytes = EltProgram::encode(inputs, registers, code);
        let found = self.programs.iter().position(|p| *p == bytes);
        let index = found.unwrap_or_else(|| {
            self.programs.push(bytes);
            self.programs.len() - 1
        });
        index as u32
    }

    /// Appends an entry.
    pub fn entry(&mut self, name: &str, inputs: Vec<TensorDef>, outputs: Vec<TensorDef>, steps: &[Step]) {
        let blocks: Vec<Block> = steps.iter().copied().map(Block::from).collect();
        self.entry_of(name, inputs, outputs, &blocks);
    }

    /// Appends an entry that may have repeats and branches.
    pub fn entry_of(&mut self, name: &str, inputs: Vec<TensorDef>, outputs: Vec<TensorDef>, blocks: &[Block]) {
        let mut bytes = Vec::new();
        blocks.iter().for_each(|block| block.encode(&mut bytes));
        self.entries.push(EntryDef { name: name.into(), inputs, outputs, steps: bytes });
    }

    /// The plan's bytes, read back and checked.
    pub fn finish(&self, arena_bytes: u32, weights_bytes: u32, flop: u64) -> Result<Vec<u8>, PlanError> {
        let mut meta = Vec::new();
        for word in [arena_bytes, weights_bytes, flop as u32, (flop >> 32) as u32] {
            word.write(&mut meta);
        }
        let (mut entries, mut steps) = (Vec::new(), Vec::new());
        (self.entries.len() as u32).write(&mut entries);
        for entry in &self.entries {
            name(&entry.name, &mut entries)?;
            (steps.len() as u32).write(&mut entries);
            (entry.steps.len() as u32).write(&mut entries);
            steps.extend_from_slice(&entry.steps);
            for list in [&entry.inputs, &entry.outputs] {
                tensors(list, &mut entries)?;
            }
        }
        let mut programs = Vec::new();
        (self.programs.len() as u32).write(&mut programs);
        let mut offset = 0u32;
        for program in &self.programs {
            offset.write(&mut programs);
            offset += program.len() as u32;
        }
        programs.extend(self.programs.iter().flatten());

        let sections = [
            (section::META, meta),
            (section::ENTRIES, entries),
            (section::STEPS, steps),
            (section::PROGRAMS, programs),
        ];
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&MAJOR.to_le_bytes());
        out.extend_from_slice(&MINOR.to_le_bytes());
        (sections.len() as u32).write(&mut out);
        let mut offset = out.len() + sections.len() * 16;
        for (kind, body) in &sections {
            for word in [*kind, section::REQUIRED, offset as u32, body.len() as u32] {
                word.write(&mut out);
            }
            offset += body.len();
        }
        for (_, body) in &sections {
            out.extend_from_slice(body);
        }
        Plan::parse(&out)?;
        Ok(out)
    }
}

fn name(text: &str, out: &mut Vec<u8>) -> Result<(), PlanError> {
    if text.len() > 255 {
        return Err(PlanError::Value { what: "length of a name", value: text.len() as u32 });
    }
    (text.len() as u32).write(out);
    out.extend_from_slice(text.as_bytes());
    out.resize(out.len() + text.len().next_multiple_of(4) - text.len(), 0);
    Ok(())
}

fn tensors(list: &[TensorDef], out: &mut Vec<u8>) -> Result<(), PlanError> {
    let mut body = Vec::new();
    for tensor in list {
        name(&tensor.name, &mut body)?;
        tensor.dtype.write(&mut body);
        (tensor.dims.len() as u32).write(&mut body);
        tensor.dims.iter().for_each(|d| d.write(&mut body));
        tensor.at.write(&mut body);
    }
    (list.len() as u32).write(out);
    (body.len() as u32).write(out);
    out.extend_from_slice(&body);
    Ok(())
}
