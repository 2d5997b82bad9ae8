//! Buffers and their places in the arena.

use ballast_plan::At;

use super::Unit;
use crate::ir::{Graph, ValueId};

/// Buffers start at multiples of a cache line.
const ALIGN: u64 = 64;

/// Part of the arena that holds one value after the other, or scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Buffer(usize);

/// All buffers; those that were joined share a place.
#[derive(Debug)]
pub(super) struct Buffers {
    bytes: Vec<u64>,
    joined: Vec<usize>,
}

impl Buffers {
    /// One for each value of the graph.
    pub(super) fn new(graph: &Graph) -> Self {
        let mut buffers = Self { bytes: Vec::new(), joined: Vec::new() };
        buffers.extend(graph);
        buffers
    }

    /// One more for each value of a graph inside of the graph; gives the first one's number.
    pub(super) fn extend(&mut self, graph: &Graph) -> usize {
        let base = self.bytes.len();
        for value in &graph.values {
            self.add(if value.constant.is_some() { 0 } else { (value.len() * value.dtype.size()) as u64 });
        }
        base
    }

    /// That of a value of the graph whose first buffer is `base`.
    pub(super) fn of(&self, base: usize, id: ValueId) -> Buffer {
        Buffer(base + id.index())
    }

    /// Both lie in one place.
    pub(super) fn same(&self, a: Buffer, b: Buffer) -> bool {
        self.root(a) == self.root(b)
    }

    /// One more, for something in between.
    pub(super) fn add(&mut self, bytes: u64) -> Buffer {
        self.bytes.push(bytes);
        self.joined.push(self.joined.len());
        Buffer(self.joined.len() - 1)
    }

    /// `b` lies where `a` lies.
    pub(super) fn join(&mut self, a: Buffer, b: Buffer) {
        let (a, b) = (self.root(a), self.root(b));
        self.joined[b] = a;
        self.bytes[a] = self.bytes[a].max(self.bytes[b]);
    }

    fn root(&self, buffer: Buffer) -> usize {
        let mut root = buffer.0;
        while self.joined[root] != root {
            root = self.joined[root];
        }
        root
    }

    /// Places everything: first results over operands that die there, then the largest buffers first, each as low as those that
    /// live at the same time allow.
    pub(super) fn place(&mut self, units: &mut [Unit], inputs: &[Buffer], outputs: &[Buffer]) -> Places {
        for index in 0..units.len() {
            let Some(operand) = units[index].in_place else { continue };
            let root = self.root(operand);
            let lasts = |b: &Buffer| self.root(*b) == root;
            let needed = outputs.iter().any(lasts) || units[index + 1..].iter().flat_map(|u| &u.reads).any(lasts);
            let twice = units[index].reads.iter().filter(|b| lasts(b)).count() > 1;
            if let &[write] = units[index].writes.as_slice()
                && !needed
                && !twice
                && self.bytes[root] >= self.bytes[self.root(write)]
            {
                self.join(operand, write);
            }
        }
        // Life of each buffer, in units: from the first that writes to the last that touches. Inputs are there before the
        // first, outputs until after the last.
        let end = units.len();
        let mut life: Vec<Option<(usize, usize)>> = vec![None; self.bytes.len()];
        let mut touch = |root: usize, at: usize| {
            let (from, to) = life[root].unwrap_or((at, at));
            life[root] = Some((from.min(at), to.max(at)));
        };
        inputs.iter().for_each(|&b| touch(self.root(b), 0));
        for (at, unit) in units.iter().enumerate() {
            unit.reads.iter().chain(&unit.writes).for_each(|&b| touch(self.root(b), at));
        }
        outputs.iter().for_each(|&b| touch(self.root(b), end));

        struct Item {
            bytes: u64,
            life: (usize, usize),
            buffer: Result<usize, usize>,
        }
        let mut items: Vec<Item> = Vec::new();
        for (root, life) in life.iter().enumerate() {
            if let Some(life) = *life {
                items.push(Item { bytes: self.bytes[root].next_multiple_of(ALIGN), life, buffer: Ok(root) });
            }
        }
        for (at, unit) in units.iter().enumerate().filter(|(_, u)| u.scratch > 0) {
            items.push(Item { bytes: unit.scratch.next_multiple_of(ALIGN), life: (at, at), buffer: Err(at) });
        }
        items.sort_by_key(|item| (std::cmp::Reverse(item.bytes), item.life, item.buffer));

        let mut placed: Vec<(u64, u64, (usize, usize))> = Vec::new();
        let mut places = Places { buffers: vec![0; self.bytes.len()], scratch: vec![0; units.len()], bytes: ALIGN };
        for item in &items {
            let meets = |other: &&(u64, u64, (usize, usize))| other.2.0 <= item.life.1 && item.life.0 <= other.2.1;
            let mut taken: Vec<(u64, u64)> = placed.iter().filter(meets).map(|&(at, to, _)| (at, to)).collect();
            taken.sort_unstable();
            let mut at = 0;
            for (from, to) in taken {
                if at + item.bytes <= from {
                    break;
                }
                at = at.max(to);
            }
            placed.push((at, at + item.bytes, item.life));
            places.bytes = places.bytes.max(at + item.bytes);
            match item.buffer {
                Ok(root) => places.buffers[root] = at,
                Err(unit) => places.scratch[unit] = at,
            }
        }
        for buffer in 0..self.bytes.len() {
            places.buffers[buffer] = places.buffers[self.root(Buffer(buffer))];
        }
        places
    }
}

/// Where everything lies.
#[derive(Debug)]
pub(super) struct Places {
    buffers: Vec<u64>,
    scratch: Vec<u64>,
    bytes: u64,
}

impl Places {
    /// Bytes of the whole arena.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A buffer's place. Beyond 2 GiB, which is refused elsewhere, it is cut.
    pub(super) fn at(&self, buffer: Buffer) -> At {
        At::arena(self.buffers[buffer.0] as u32 & (u32::MAX >> 1)).unwrap_or_default()
    }

    /// The scratch of a unit.
    pub(super) fn scratch(&self, unit: usize) -> At {
        At::arena(self.scratch[unit] as u32 & (u32::MAX >> 1)).unwrap_or_default()
    }
}
