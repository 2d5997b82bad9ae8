//! Steps over bytes: products, convolutions, tables.

use ballast_kernels::quantized::pack_pairs;
use ballast_plan::quantized::{Bytes, IntConv, IntDepthwise, IntGemm, Lookup, Packing, Requantize};
use ballast_plan::{At, DType as PlanType};

use crate::ir::{DType, Node, Op, Tensor, ValueId, Window};

use super::integer::{After, Integer, Side, Zero};
use super::place::Places;
use super::window::plan_window;
use super::{LowerError, Lowering, Source, plan_type, refuse};

/// Bytes that are read, and where their zero point is.
#[derive(Clone, Copy)]
struct Read {
    source: Source,
    zero: Source,
    dtype: PlanType,
}

impl Read {
    fn bytes(self, places: &Places, [row, col, batch]: [usize; 3]) -> Bytes {
        let [row, col, batch] = [row, col, batch].map(|n| n as u32);
        Bytes { at: self.source.at(places), dtype: self.dtype, zero: self.zero.at(places), row, col, batch }
    }
}

impl Lowering<'_> {
    pub(super) fn integer(&mut self, p: &Integer) -> Result<(), LowerError> {
        let graph = self.graph;
        let node = &graph.nodes[p.node];
        match &node.op {
            Op::Conv { window, groups } => self.int_conv(p, node, window, *groups),
            Op::MatMul => self.int_matmul(p, node),
            _ => Err(refuse(node, "not a product")),
        }
    }

    fn read(&mut self, value: ValueId, zero: Zero) -> Read {
        let dtype = self.graph.value(value).dtype;
        let zero = match zero {
            Zero::Known(zero) => Source::Weights(self.weights.add(&[zero as u8])),
            Zero::Value(zero) => self.source(zero),
        };
        Read { source: self.source(value), zero, dtype: plan_type(dtype) }
    }

    fn after(&mut self, p: &Integer, rows: usize) -> Requantize {
        let mut after = Requantize { dtype: PlanType::I32, ..Requantize::default() };
        if let Some(bias) = &p.bias {
            let bytes: Vec<u8> = bias.iter().flat_map(|b| b.to_le_bytes()).collect();
            (after.biased, after.bias) = (1, self.weights.add(&bytes));
        }
        match &p.after {
            After::Sums => {}
            After::Floats(factors) => {
                after.dtype = PlanType::F32;
                after.factors = self.weights.floats(factors.iter().copied());
            }
            After::Bytes { dtype, factors, zero, low, high } => {
                after.dtype = plan_type(*dtype);
                after.factors = self.weights.floats(factors.iter().copied());
                (after.zero, after.low, after.high) = (*zero, *low, *high);
            }
        }
        debug_assert!(p.bias.as_ref().is_none_or(|b| b.len() == rows));
        after
    }

    /// A matrix as P4 pairs: of bytes where all of it fits them.
    fn pairs(
        &mut self,
        matrices: &[(usize, usize)],
        all: &[i64],
        at: impl Fn(usize, usize, usize) -> i64,
    ) -> (Packing, At) {
        let packed = matrices
            .iter()
            .enumerate()
            .flat_map(|(i, &(m, k))| pack_pairs(m, k, |r, c| at(i, r, c) as i16).collect::<Vec<_>>());
        if all.iter().all(|v| i8::try_from(*v).is_ok()) {
            let bytes: Vec<u8> = packed.map(|v| v as u8).collect();
            (Packing::Bytes, self.weights.add(&bytes))
        } else {
            let bytes: Vec<u8> = packed.flat_map(i16::to_le_bytes).collect();
            (Packing::Words, self.weights.add(&bytes))
        }
    }

    fn int_conv(&mut self, p: &Integer, node: &Node, window: &Window, groups: usize) -> Result<(), LowerError> {
        let graph = self.graph;
        let (x, y) = (graph.value(node.inputs[0]), graph.value(node.outputs[0]));
        let [Side::Bytes { value, zero }, Side::Known(weights)] = &p.sides else {
            return Err(refuse(node, "weights that are not constant"));
        };
        let (&[batch, channels, ih, iw], &[_, planes, oh, ow]) = (x.shape.as_slice(), y.shape.as_slice()) else {
            return Err(refuse(node, "not two-dimensional"));
        };
        let plan = plan_window(window, [ih, iw], [oh, ow]).ok_or_else(|| refuse(node, "a window beyond 65,535"))?;
        let depth = channels / groups * window.kernel[0] * window.kernel[1];
        self.flop += 2 * (y.len() * depth) as u64;
        let after = self.after(p, planes);
        let read = self.read(*value, *zero);
        let out = self.target(p.output);
        let sources = [read.source, read.zero];
        let data = weights.ints();
        let dtype = read.dtype;
        if groups == channels && groups == planes {
            let odd = depth % 2 == 1;
            let taps = |plane: &[i64]| plane.iter().copied().chain(odd.then_some(0)).collect::<Vec<_>>();
            let pairs: Vec<u8> =
                data.chunks_exact(depth).flat_map(taps).flat_map(|v| (v as i16).to_le_bytes()).collect();
            let weights = self.weights.add(&pairs);
            let (batch, planes) = (batch as u32, planes as u32);
            let step = IntDepthwise { batch, planes, window: plan, dtype, weights, after, ..IntDepthwise::default() };
            self.push(&sources, out, step.scratch_bytes(), move |places, scratch| {
                let (input, zero) = (read.source.at(places), read.zero.at(places));
                vec![IntDepthwise { input, zero, out: places.at(out), scratch, ..step }.into()]
            });
            return Ok(());
        }
        let group = planes / groups;
        let matrices = vec![(group, depth); groups];
        let (packing, weights) = self.pairs(&matrices, data, |g, r, c| data[(g * group + r) * depth + c]);
        let step = IntConv {
            batch: batch as u32,
            groups: groups as u32,
            ic: (channels / groups) as u32,
            oc: group as u32,
            window: plan,
            dtype,
            packing,
            weights,
            after,
            ..IntConv::default()
        };
        self.push(&sources, out, step.scratch_bytes(), move |places, scratch| {
            let (input, zero) = (read.source.at(places), read.zero.at(places));
            vec![IntConv { input, zero, out: places.at(out), scratch, ..step }.into()]
        });
        Ok(())
    }

    /// What has the channels is on the left: the transpose of the right side, unless the left side is weights.
    fn int_matmul(&mut self, p: &Integer, node: &Node) -> Result<(), LowerError> {
        let graph = self.graph;
        let [a, b, y] = [node.inputs[0], node.inputs[1], node.outputs[0]].map(|id| &graph.value(id).shape);
        let (Some((lead, &[m, n])), Some(&k)) = (y.split_last_chunk::<2>(), a.last()) else {
            return Err(refuse(node, "shapes"));
        };
        let batch: usize = lead.iter().product();
        self.flop += 2 * (batch * m * n * k) as u64;
        let count = |shape: &[usize]| shape.iter().rev().skip(2).product::<usize>();
        let step_of = |shape: &[usize], one: usize| match count(shape) {
            1 => Ok(0),
            many if many == batch => Ok(one),
            _ => Err(refuse(node, "batches of which both sides repeat some")),
        };
        let rows = if matches!(p.sides[0], Side::Known(_)) { m } else { n };
        let after = self.after(p, rows);
        let out = self.target(p.output);
        let mut step = IntGemm { batch: batch as u32, k: k as u32, after, ..IntGemm::default() };
        let (left, left_strides, right, right_strides): (Option<Read>, _, Read, _);
        match &p.sides {
            [Side::Known(weights), Side::Bytes { value, zero }] => {
                let data = single(weights).ok_or_else(|| refuse(node, "several constant matrices"))?;
                (step.packing, step.left.at) = self.pairs(&[(m, k)], data, |_, r, c| data[r * k + c]);
                (left, left_strides) = (None, [0; 3]);
                (right, right_strides) = (self.read(*value, *zero), [n, 1, step_of(b, k * n)?]);
                (step.m, step.n, step.out_row, step.out_col) = (m as u32, n as u32, n as u32, 1);
            }
            [Side::Bytes { value, zero }, other] => {
                right = self.read(*value, *zero);
                // One matrix for all: the rows of the batch are those of one product.
                let one = count(b) == 1 && count(a) == batch;
                let rows = if one { batch * m } else { m };
                right_strides = [1, k, if one { 0 } else { step_of(a, m * k)? }];
                if one {
                    step.batch = 1;
                }
                match other {
                    Side::Known(weights) => {
                        let data = single(weights).ok_or_else(|| refuse(node, "several constant matrices"))?;
                        (step.packing, step.left.at) = self.pairs(&[(n, k)], data, |_, r, c| data[c * n + r]);
                        (left, left_strides) = (None, [0; 3]);
                    }
                    Side::Bytes { value, zero } => {
                        left = Some(self.read(*value, *zero));
                        left_strides = [1, n, if one { 0 } else { step_of(b, k * n)? }];
                    }
                }
                (step.m, step.n, step.out_row, step.out_col) = (n as u32, rows as u32, 1, n as u32);
            }
            [Side::Known(_), Side::Known(_)] => return Err(refuse(node, "a product of constants")),
        }
        step.out_batch = (m * n) as u32;
        let sources: Vec<Source> =
            left.iter().chain([&right]).flat_map(|read: &Read| [read.source, read.zero]).collect();
        self.push(&sources, out, step.scratch_bytes(), move |places, scratch| {
            let left = left.map_or(step.left, |left| left.bytes(places, left_strides));
            let right = right.bytes(places, right_strides);
            vec![IntGemm { left, right, out: places.at(out), scratch, ..step }.into()]
        });
        Ok(())
    }

    /// A constant table of bytes, indexed by bytes that were widened for it.
    pub(super) fn lookup(&mut self, table: &Tensor, bytes: ValueId, output: ValueId) {
        let (source, out) = (self.source(bytes), self.target(output));
        let table = self.weights.add(&table.to_bytes());
        let step = Lookup { count: self.graph.value(bytes).len() as u32, table, ..Lookup::default() };
        self.push(&[source], out, 0, move |places, _| {
            vec![Lookup { input: source.at(places), out: places.at(out), ..step }.into()]
        });
        self.last_in_place(source);
    }
}

/// The elements of one matrix.
fn single(tensor: &Tensor) -> Option<&[i64]> {
    tensor.shape.iter().rev().skip(2).all(|d| *d == 1).then(|| tensor.ints())
}

/// The bytes that index a table of 256, if a node is that: signed ones count from the end, which is where their two's complement
/// points.
pub(super) fn table_index(graph: &crate::ir::Graph, node: &Node, cast: &Node) -> Option<ValueId> {
    let table = graph.value(*node.inputs.first()?);
    let is_table = node.op == Op::Gather { axis: 0 }
        && table.constant.is_some()
        && table.shape == [256]
        && matches!(table.dtype, DType::U8 | DType::I8);
    let bytes = *cast.inputs.first()?;
    (is_table && cast.op == Op::Cast && matches!(graph.value(bytes).dtype, DType::U8 | DType::I8)).then_some(bytes)
}
