//! Pooling, reductions, softmax.

use ballast_plan::step::{self, Pool, Reduce, Softmax};

use crate::ir::{DType, Node, PoolKind, ReduceKind, Window};

use super::{LowerError, Lowering, refuse};

/// A window as a step has it; `None` when a number is beyond its range.
pub(super) fn plan_window(w: &Window, [ih, iw]: [usize; 2], [oh, ow]: [usize; 2]) -> Option<step::Window> {
    let n = |v: usize| u32::try_from(v).ok();
    let window = step::Window {
        ih: n(ih)?,
        iw: n(iw)?,
        oh: n(oh)?,
        ow: n(ow)?,
        kh: n(w.kernel[0])?,
        kw: n(w.kernel[1])?,
        sh: n(w.strides[0])?,
        sw: n(w.strides[1])?,
        pt: n(w.pads[0])?,
        pl: n(w.pads[1])?,
        dh: n(w.dilations[0])?,
        dw: n(w.dilations[1])?,
    };
    window.is_sane().then_some(window)
}

pub(super) fn plan_kind(kind: ReduceKind) -> step::ReduceKind {
    match kind {
        ReduceKind::Sum => step::ReduceKind::Sum,
        ReduceKind::Mean => step::ReduceKind::Mean,
        ReduceKind::Max => step::ReduceKind::Max,
        ReduceKind::Min => step::ReduceKind::Min,
        ReduceKind::Product => step::ReduceKind::Product,
        ReduceKind::SumSquares => step::ReduceKind::SumSquares,
        ReduceKind::SumAbs => step::ReduceKind::SumAbs,
    }
}

impl Lowering<'_> {
    pub(super) fn pool(&mut self, node: &Node, kind: PoolKind, window: &Window) -> Result<(), LowerError> {
        let (x, y) = (self.graph.value(node.inputs[0]), self.graph.value(node.outputs[0]));
        let (&[n, c, ih, iw], &[_, _, oh, ow]) = (x.shape.as_slice(), y.shape.as_slice()) else {
            return Err(refuse(node, "not two-dimensional"));
        };
        let whole = window.kernel == [ih, iw] && window.dilations == [1, 1] && window.pads == [0; 4] && oh * ow == 1;
        let (source, out) = (self.source(node.inputs[0]), self.target(node.outputs[0]));
        self.flop += (y.len() * window.kernel[0] * window.kernel[1]) as u64;
        if whole {
            let kind = if kind == PoolKind::Max { step::ReduceKind::Max } else { step::ReduceKind::Mean };
            let step = Reduce { kind, outer: (n * c) as u32, len: (ih * iw) as u32, inner: 1, ..Reduce::default() };
            self.push(&[source], out, 0, move |places, _| {
                vec![Reduce { input: source.at(places), out: places.at(out), ..step }.into()]
            });
            return Ok(());
        }
        let plan = plan_window(window, [ih, iw], [oh, ow]).ok_or_else(|| refuse(node, "a window beyond 65,535"))?;
        let kind = match kind {
            PoolKind::Max => step::PoolKind::Max,
            PoolKind::Mean => step::PoolKind::Mean,
            PoolKind::MeanPadded => step::PoolKind::MeanPadded,
        };
        let [top, left, bottom, right] = window.pads;
        let padded = [(ih + top + bottom) as u32, (iw + left + right) as u32];
        let step = Pool { kind, planes: (n * c) as u32, window: plan, padded, ..Pool::default() };
        self.push(&[source], out, plan.plane_bytes(), move |places, scratch| {
            vec![Pool { input: source.at(places), out: places.at(out), scratch, ..step }.into()]
        });
        Ok(())
    }

    /// One step for each run of neighbouring axes, the last one first.
    pub(super) fn reduce(&mut self, node: &Node, kind: ReduceKind, axes: &[usize]) -> Result<(), LowerError> {
        let x = self.graph.value(node.inputs[0]);
        if x.dtype != DType::F32 || x.is_empty() {
            return self.reduce_exact(node, kind, axes);
        }
        let mut shape = x.shape.clone();
        let mut source = self.source(node.inputs[0]);
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (axis, _) in shape.iter().enumerate().filter(|(d, extent)| axes.contains(d) && **extent != 1) {
            match runs.last_mut() {
                Some((_, end)) if shape[*end..axis].iter().all(|&d| d == 1) => *end = axis + 1,
                _ => runs.push((axis, axis + 1)),
            }
        }
        if runs.is_empty() {
            runs.push((0, 0));
        }
        self.flop += x.len() as u64;
        let mut kind = plan_kind(kind);
        while let Some((from, to)) = runs.pop() {
            let [outer, len, inner] =
                [&shape[..from], &shape[from..to], &shape[to..]].map(|dims| dims.iter().product::<usize>());
            let out = match runs.is_empty() {
                true => self.target(node.outputs[0]),
                false => self.buffers.add((outer * inner * 4) as u64),
            };
            let step = Reduce { kind, outer: outer as u32, len: len as u32, inner: inner as u32, ..Reduce::default() };
            self.push(&[source], out, 0, move |places, _| {
                vec![Reduce { input: source.at(places), out: places.at(out), ..step }.into()]
            });
            shape[from..to].fill(1);
            source = super::Source::Buffer(out);
            // Squares and absolute values were taken by the first step; the others add up.
            if matches!(kind, step::ReduceKind::SumSquares | step::ReduceKind::SumAbs) {
                kind = step::ReduceKind::Sum;
            }
        }
        Ok(())
    }

    pub(super) fn softmax(&mut self, node: &Node, axis: usize, log: bool) -> Result<(), LowerError> {
        let x = self.graph.value(node.inputs[0]);
        let product = |dims: &[usize]| dims.iter().product::<usize>() as u32;
        let step = Softmax {
            outer: product(&x.shape[..axis]),
            len: x.shape[axis] as u32,
            inner: product(&x.shape[axis + 1..]),
            log: u32::from(log),
            ..Softmax::default()
        };
        // Exponential, difference, sum, quotient.
        self.flop += 8 * x.len() as u64;
        let (source, out) = (self.source(node.inputs[0]), self.target(node.outputs[0]));
        self.push(&[source], out, 0, move |places, _| {
            vec![Softmax { input: source.at(places), out: places.at(out), ..step }.into()]
        });
        self.last_in_place(source);
        Ok(())
    }
}
