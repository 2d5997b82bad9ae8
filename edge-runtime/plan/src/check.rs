//! The proof that a step stays inside its memory. A step that passes may be carried out without further checks.

use crate::PlanError;
use crate::control::{Item, Items, MAX_EXECUTED, MAX_NESTING, Repeat, Slide};
use crate::generic::{Address, Contract, Side, Top};
use crate::geometry::{p4_floats, p16_floats};
use crate::step::{
    At, BiasOf, Conv, DType, Depthwise, Domain, Elt, Epilogue, Gemm, Layout, MAX_DIMS, Matrix, ReduceKind, Step, Window,
};
use crate::work::{MAX_WORK, work};

/// The memory that steps may touch and the programs they may name.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// Bytes of arena.
    pub arena: u32,
    /// Bytes of weights.
    pub weights: u32,
    /// How many operands each program takes.
    pub programs: &'a dyn Programs,
}

/// Knows how many operands a program takes.
pub trait Programs: core::fmt::Debug {
    /// `None`: no such program, or not one of this domain.
    fn inputs(&self, program: u32, domain: Domain) -> Option<usize>;
    /// Instructions of a program; 0: no such program.
    fn length(&self, program: u32) -> u64;
}

/// Why a step does not pass; its place is added by the caller.
pub(crate) enum Fault {
    Bounds,
    Geometry,
}

impl Fault {
    fn at(self, step: u32) -> PlanError {
        match self {
            Self::Bounds => PlanError::OutOfBounds { step },
            Self::Geometry => PlanError::Geometry { step },
        }
    }
}

pub(crate) type Checked = Result<(), Fault>;

pub(crate) fn sound(ok: bool) -> Checked {
    if ok { Ok(()) } else { Err(Fault::Geometry) }
}

/// Extents that no memory bounds, because their strides may be 0, are counted in 32 bits by a guest.
pub(crate) fn countable(extents: &[u32]) -> Checked {
    let product = extents.iter().fold(1u64, |all, &n| all.saturating_mul(u64::from(n)));
    sound(extents.iter().all(|&n| n >= 1) && product <= i32::MAX as u64)
}

pub(crate) fn times(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |a, &b| a.saturating_mul(b))
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Bounds<'_> {
    fn reach(&self, at: At, low: i64, high: i64, size: u32, access: Access) -> Checked {
        let memory = if at.is_weights() { self.weights } else { self.arena };
        let place = |element: i64| element.saturating_mul(i64::from(size)).saturating_add(i64::from(at.offset()));
        let inside = place(low) >= 0 && place(high) <= i64::from(memory);
        let writable = access == Access::Read || !at.is_weights();
        let aligned = at.offset().is_multiple_of(size);
        if inside && writable && aligned { Ok(()) } else { Err(Fault::Bounds) }
    }

    pub(crate) fn span(&self, at: At, elements: u64, size: u32, access: Access) -> Checked {
        self.reach(at, 0, i64::try_from(elements).unwrap_or(i64::MAX), size, access)
    }

    fn floats(&self, at: At, elements: u64, access: Access) -> Checked {
        self.span(at, elements, 4, access)
    }

    pub(crate) fn scratch(&self, at: At, bytes: u64) -> Checked {
        if bytes == 0 { Ok(()) } else { self.floats(at, bytes.div_ceil(4), Access::Write) }
    }

    fn strided(&self, at: At, dims: &[u32; MAX_DIMS], strides: &[i32; MAX_DIMS], size: u32, access: Access) -> Checked {
        let (mut low, mut high) = (0i64, 1i64);
        for (&d, &s) in dims.iter().zip(strides) {
            let reach = (i64::from(d) - 1).saturating_mul(i64::from(s));
            low = low.saturating_add(reach.min(0));
            high = high.saturating_add(reach.max(0));
        }
        self.reach(at, low, high, size, access)
    }

    fn epilogue(&self, e: &Epilogue, batch: u64, rows: u64, cols: u64) -> Checked {
        match e.bias_of {
            BiasOf::None => {}
            BiasOf::Row => self.floats(e.bias, rows, Access::Read)?,
            BiasOf::Column => self.floats(e.bias, cols, Access::Read)?,
        }
        sound(!e.low.is_nan() && !e.high.is_nan())?;
        let operands = e.operands.as_slice();
        match e.program.checked_sub(1) {
            None => sound(operands.is_empty())?,
            Some(program) => sound(self.programs.inputs(program, Domain::F32) == Some(1 + operands.len()))?,
        }
        for operand in operands {
            sound(operand.col <= 1)?;
            let last = |n: u64, stride: u32| times(&[n - 1, u64::from(stride)]);
            let reach = last(batch, operand.batch)
                .saturating_add(last(rows, operand.row))
                .saturating_add(last(cols, operand.col))
                .saturating_add(1);
            self.floats(operand.at, reach, Access::Read)?;
        }
        Ok(())
    }

    fn matrix(&self, matrix: &Matrix, batch: u32, rows: u32, cols: u32, packed: u64) -> Checked {
        let one = match matrix.layout {
            Layout::Packed => packed,
            Layout::Strided => times(&[u64::from(rows) - 1, u64::from(matrix.row)])
                .saturating_add(times(&[u64::from(cols) - 1, u64::from(matrix.col)]))
                .saturating_add(1),
        };
        let reach = times(&[u64::from(batch) - 1, u64::from(matrix.batch)]).saturating_add(one);
        self.floats(matrix.at, reach, Access::Read)
    }

    fn gemm(&self, g: &Gemm) -> Checked {
        [g.batch, g.m, g.n, g.k].iter().try_for_each(|&n| countable(&[n]))?;
        let [m, n, k] = [g.m, g.n, g.k].map(u64::from);
        self.matrix(&g.left, g.batch, g.m, g.k, p4_floats(m, k))?;
        self.matrix(&g.right, g.batch, g.k, g.n, p16_floats(k, n))?;
        let reach = times(&[u64::from(g.batch) - 1, u64::from(g.out_batch)])
            .saturating_add(times(&[m - 1, u64::from(g.out_row)]))
            .saturating_add(n);
        self.floats(g.out, reach, Access::Write)?;
        self.epilogue(&g.epilogue, u64::from(g.batch), m, n)?;
        self.scratch(g.scratch, g.scratch_bytes())
    }

    fn planes(&self, window: &Window, planes: u64, input: At, out: At) -> Checked {
        sound(window.is_sane() && planes >= 1)?;
        self.floats(input, times(&[planes, u64::from(window.ih), u64::from(window.iw)]), Access::Read)?;
        self.floats(out, times(&[planes, window.pixels()]), Access::Write)
    }

    fn conv(&self, c: &Conv) -> Checked {
        sound([c.batch, c.groups, c.ic, c.oc].iter().all(|&n| n >= 1) && c.epilogue.bias_of != BiasOf::Column)?;
        let [batch, groups, ic, oc] = [c.batch, c.groups, c.ic, c.oc].map(u64::from);
        sound(c.window.is_sane())?;
        let (w, pixels) = (&c.window, c.window.pixels());
        let input = times(&[batch, groups, ic, u64::from(w.ih), u64::from(w.iw)]);
        self.floats(c.input, input, Access::Read)?;
        self.floats(c.weights, times(&[groups, c.group_floats()]), Access::Read)?;
        self.floats(c.out, times(&[batch, groups, oc, pixels]), Access::Write)?;
        self.epilogue(&c.epilogue, batch, times(&[groups, oc]), pixels)?;
        self.scratch(c.scratch, c.scratch_bytes())
    }

    fn depthwise(&self, d: &Depthwise) -> Checked {
        sound(d.batch >= 1 && d.epilogue.bias_of != BiasOf::Column)?;
        let [batch, planes] = [d.batch, d.planes].map(u64::from);
        self.planes(&d.window, times(&[batch, planes]), d.input, d.out)?;
        self.floats(d.weights, times(&[planes, d.window.taps()]), Access::Read)?;
        self.epilogue(&d.epilogue, batch, planes, d.window.pixels())?;
        self.scratch(d.scratch, d.window.plane_bytes())
    }

    fn elt(&self, e: &Elt, domain: Domain) -> Checked {
        countable(&e.dims)?;
        let operands = e.operands.as_slice();
        sound(self.programs.inputs(e.program, domain) == Some(operands.len()))?;
        for operand in operands {
            let size = operand.dtype.size() as u32;
            self.strided(operand.at, &e.dims, &operand.strides, size, Access::Read)?;
        }
        let elements = e.dims.iter().fold(1u64, |a, &d| a.saturating_mul(u64::from(d)));
        self.span(e.out, elements, e.dtype.size() as u32, Access::Write)
    }

    /// Every index of the result with every one that is joined.
    fn side(&self, side: &Side, c: &Contract) -> Checked {
        let (mut low, mut high) = (0i64, 1i64);
        let outer = c.outer.iter().zip(&side.outer);
        for (&d, &s) in outer.chain(c.inner.iter().zip(&side.inner)) {
            let reach = (i64::from(d) - 1).saturating_mul(i64::from(s));
            low = low.saturating_add(reach.min(0));
            high = high.saturating_add(reach.max(0));
        }
        self.reach(side.at, low, high, side.dtype.size() as u32, Access::Read)
    }

    fn contract(&self, c: &Contract) -> Checked {
        countable(&c.outer)?;
        countable(&c.inner)?;
        self.side(&c.left, c)?;
        for right in c.right.as_slice() {
            sound(matches!(c.kind, ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Product))?;
            self.side(right, c)?;
        }
        let elements = c.outer.iter().fold(1u64, |a, &d| a.saturating_mul(u64::from(d)));
        self.span(c.out, elements, c.dtype.size() as u32, Access::Write)
    }

    fn top(&self, t: &Top) -> Checked {
        let [outer, len, inner, k] = [t.outer, t.len, t.inner, t.k].map(u64::from);
        sound(outer >= 1 && inner >= 1 && (1..=len).contains(&k) && t.largest <= 1 && t.last <= 1 && t.nan_first <= 1)?;
        let size = t.dtype.size() as u32;
        self.span(t.input, times(&[outer, len, inner]), size, Access::Read)?;
        for &values in t.values.as_slice() {
            self.span(values, times(&[outer, k, inner]), size, Access::Write)?;
        }
        self.span(t.indices, times(&[outer, k, inner]), 8, Access::Write)?;
        match t.scratch_bytes() {
            0 => Ok(()),
            bytes => self.span(t.scratch, bytes / 8, 8, Access::Write),
        }
    }

    fn address(&self, a: &Address) -> Checked {
        let components = a.components.as_slice();
        sound(a.dims.iter().all(|&d| d >= 1) && a.slice >= 1 && components.iter().all(|c| c.extent >= 1))?;
        sound(matches!(a.dtype, DType::I32 | DType::I64))?;
        let numbers = times(&[a.tuples(), components.len() as u64]);
        self.span(a.indices, numbers, a.dtype.size() as u32, Access::Read)
    }

    fn check(&self, step: &Step) -> Checked {
        match step {
            Step::Fill(f) => self.span(f.out, u64::from(f.words), 4, Access::Write),
            Step::Copy(c) => {
                sound(matches!(c.size, 1 | 2 | 4 | 8))?;
                countable(&c.dims)?;
                self.strided(c.input, &c.dims, &c.input_strides, c.size, Access::Read)?;
                self.strided(c.out, &c.dims, &c.out_strides, c.size, Access::Write)
            }
            Step::Elt(e) => self.elt(e, Domain::F32),
            Step::Contract(c) => self.contract(c),
            Step::Scan(s) => {
                let [outer, len, inner] = [s.outer, s.len, s.inner].map(u64::from);
                sound(outer >= 1 && len >= 1 && inner >= 1 && s.exclusive <= 1 && s.reverse <= 1)?;
                let (elements, size) = (times(&[outer, len, inner]), s.dtype.size() as u32);
                self.span(s.input, elements, size, Access::Read)?;
                self.span(s.out, elements, size, Access::Write)
            }
            Step::Top(t) => self.top(t),
            Step::Pick(p) => {
                sound(matches!(p.size, 1 | 2 | 4 | 8))?;
                self.address(&p.address)?;
                self.span(p.input, p.address.reach(), p.size, Access::Read)?;
                self.span(p.out, times(&[p.address.tuples(), p.address.slice.into()]), p.size, Access::Write)
            }
            Step::Put(p) => {
                let size = p.dtype.size() as u32;
                self.address(&p.address)?;
                self.span(p.updates, times(&[p.address.tuples(), p.address.slice.into()]), size, Access::Read)?;
                self.span(p.out, p.address.reach(), size, Access::Write)
            }
            Step::Wide(w) => {
                sound(w.domain != Domain::F32)?;
                self.elt(&w.elt, w.domain)
            }
            Step::Gemm(g) => self.gemm(g),
            Step::Conv(c) => self.conv(c),
            Step::Depthwise(d) => self.depthwise(d),
            Step::Pool(p) => {
                self.planes(&p.window, u64::from(p.planes), p.input, p.out)?;
                sound(p.padded.iter().all(|&n| (1..1 << 18).contains(&n)))?;
                self.scratch(p.scratch, p.window.plane_bytes())
            }
            Step::Reduce(r) => {
                let [outer, len, inner] = [r.outer, r.len, r.inner].map(u64::from);
                sound(outer >= 1 && len >= 1 && inner >= 1)?;
                self.floats(r.input, times(&[outer, len, inner]), Access::Read)?;
                self.floats(r.out, times(&[outer, inner]), Access::Write)
            }
            Step::Softmax(s) => {
                let [outer, len, inner] = [s.outer, s.len, s.inner].map(u64::from);
                sound(outer >= 1 && len >= 1 && inner >= 1 && s.log <= 1)?;
                self.floats(s.input, times(&[outer, len, inner]), Access::Read)?;
                self.floats(s.out, times(&[outer, len, inner]), Access::Write)
            }
            Step::Gather(g) => {
                let [outer, axis, bytes, count] = [g.outer, g.axis, g.bytes, g.count].map(u64::from);
                sound(outer >= 1 && axis >= 1 && bytes >= 1 && count >= 1)?;
                sound(matches!(g.dtype, DType::I32 | DType::I64))?;
                self.span(g.indices, count, g.dtype.size() as u32, Access::Read)?;
                self.span(g.input, times(&[outer, axis, bytes]), 1, Access::Read)?;
                self.span(g.out, times(&[outer, count, bytes]), 1, Access::Write)
            }
            Step::IntGemm(g) => self.int_gemm(g),
            Step::IntConv(c) => self.int_conv(c),
            Step::IntDepthwise(d) => self.int_depthwise(d),
            Step::Lookup(l) => self.lookup(l),
            Step::NonZero(s) => self.non_zero(s),
            Step::Suppress(s) => self.suppress(s),
            Step::Unique(s) => self.unique(s),
        }
    }

    fn slide(&self, slide: &Slide, count: u32) -> Checked {
        sound(slide.bytes >= 1)?;
        let reach = |at: At, step: i32, access: Access| {
            let last = (i64::from(count) - 1).saturating_mul(i64::from(step));
            self.reach(at, last.min(0), last.max(0).saturating_add(i64::from(slide.bytes)), 1, access)
        };
        reach(slide.from, slide.from_step, Access::Read)?;
        reach(slide.to, slide.to_step, Access::Write)
    }

    fn repeat(&self, repeat: &Repeat<'_>) -> Checked {
        sound(repeat.count >= 1)?;
        if let Some(gate) = repeat.gate {
            self.span(gate, 1, 1, Access::Read)?;
        }
        repeat.before().chain(repeat.after()).try_for_each(|slide| self.slide(&slide, repeat.count))
    }

    /// Passes only lists of which every step, in every round, passes [`Bounds::step`]; nested and repeated within bounds, and
    /// no more work than [`MAX_WORK`].
    pub fn items(&self, items: Items<'_>) -> Result<(), PlanError> {
        self.nested(items, 0, &mut 0)?;
        // After the above, since only then the recursion is known to end.
        if work(items, self.programs) > MAX_WORK { Err(PlanError::TooMuchWork) } else { Ok(()) }
    }

    /// How many steps and slides a run of the list carries out. Recursion ends at [`MAX_NESTING`].
    fn nested(&self, mut items: Items<'_>, depth: usize, index: &mut u32) -> Result<u64, PlanError> {
        if depth > MAX_NESTING {
            return Err(PlanError::Nesting);
        }
        let mut executed = 0u64;
        while let Some(item) = items.read()? {
            let here = *index;
            *index = index.saturating_add(1);
            let more = match item {
                Item::Step(step) => self.step(&step, here).map(|()| 1)?,
                Item::Repeat(repeat) => {
                    self.repeat(&repeat).map_err(|fault| fault.at(here))?;
                    let slides = repeat.before().chain(repeat.after()).count() as u64;
                    let round = self.nested(repeat.body(), depth + 1, index)?.saturating_add(slides).saturating_add(1);
                    round.saturating_mul(u64::from(repeat.count))
                }
                Item::Branch(branch) => {
                    self.span(branch.condition, 1, 1, Access::Read).map_err(|fault| fault.at(here))?;
                    let then = self.nested(branch.then(), depth + 1, index)?;
                    then.max(self.nested(branch.otherwise(), depth + 1, index)?).saturating_add(1)
                }
            };
            executed = executed.saturating_add(more);
            if executed > MAX_EXECUTED {
                return Err(PlanError::TooManySteps);
            }
        }
        Ok(executed)
    }

    /// Passes only what stays inside arena and weights, writes no weights and names a program that exists. `index` is the
    /// step's place, for the error.
    pub fn step(&self, step: &Step, index: u32) -> Result<(), PlanError> {
        self.check(step).map_err(|fault| fault.at(index))
    }
}
