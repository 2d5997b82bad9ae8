//! Products and convolutions: kernel, packing, bias.

use ballast_kernels::product::{pack_left, pack_right};
use ballast_plan::At;
use ballast_plan::record::List;
use ballast_plan::step::{BiasOf, Conv, Depthwise, Epilogue, EpilogueOperand, Gemm, Layout, Matrix};

use crate::ir::{Node, Op, Tensor, ValueId, Window};

use super::fuse::{self, over_view};
use super::movement::Move;
use super::place::Places;
use super::shape::{broadcast, dense as strides};
use super::window::plan_window;
use super::{LowerError, Lowering, Source, refuse};

/// An epilogue whose places are not known yet.
struct Tail {
    fixed: Epilogue,
    operands: Vec<(Source, [u32; 3])>,
}

impl Tail {
    fn at(&self, places: &Places) -> Epilogue {
        let operands: Vec<EpilogueOperand> = self
            .operands
            .iter()
            .map(|&(source, [batch, row, col])| EpilogueOperand { at: source.at(places), batch, row, col })
            .collect();
        Epilogue { operands: List::new(&operands).unwrap_or_default(), ..self.fixed }
    }

    fn sources(&self) -> impl Iterator<Item = Source> {
        self.operands.iter().map(|(source, _)| *source)
    }
}

impl Lowering<'_> {
    pub(super) fn product(&mut self, p: &fuse::Product) -> Result<(), LowerError> {
        let node = &self.graph.nodes[p.node];
        match &node.op {
            Op::Conv { window, groups } => self.conv(p, node, window, *groups),
            Op::MatMul => self.matmul(p, node),
            _ => Err(refuse(node, "not a product")),
        }
    }

    fn tail(&mut self, p: &fuse::Product, node: &Node, bias_of: BiasOf) -> Result<Tail, LowerError> {
        let mut fixed = Epilogue { low: p.low, high: p.high, ..Epilogue::default() };
        if let Some(bias) = &p.bias {
            fixed.bias_of = bias_of;
            fixed.bias = self.weights.floats(bias.iter().copied());
        }
        let mut operands = Vec::new();
        if let Some(program) = &p.program {
            fixed.program = 1 + self.builder.program(program.inputs.len(), program.registers, &program.code);
            let shape = &self.graph.value(p.output).shape;
            for &id in &program.inputs[1..] {
                let strides = broadcast(&self.graph.value(id).shape, shape);
                let view = fuse::view(self.graph, node).and_then(|view| over_view(shape, &strides, view));
                operands.push((self.source(id), view.ok_or_else(|| refuse(node, "operands of what follows it"))?));
            }
            self.flop += (self.graph.value(p.output).len() * program.code.len()) as u64;
        }
        Ok(Tail { fixed, operands })
    }

    fn constant(&self, node: &Node, id: ValueId) -> Result<std::sync::Arc<Tensor>, LowerError> {
        self.graph.value(id).constant.clone().ok_or_else(|| refuse(node, "weights that are not constant"))
    }

    fn conv(&mut self, p: &fuse::Product, node: &Node, window: &Window, groups: usize) -> Result<(), LowerError> {
        let (x, y) = (self.graph.value(node.inputs[0]), self.graph.value(node.outputs[0]));
        let weights = self.constant(node, node.inputs[1])?;
        let (&[batch, channels, ih, iw], &[_, planes, oh, ow]) = (x.shape.as_slice(), y.shape.as_slice()) else {
            return Err(refuse(node, "not two-dimensional"));
        };
        let plan = plan_window(window, [ih, iw], [oh, ow]).ok_or_else(|| refuse(node, "a window beyond 65,535"))?;
        let depth = channels / groups * window.kernel[0] * window.kernel[1];
        let scaled = |plane: usize, i: usize| {
            weights.floats()[plane * depth + i] * p.scale.as_ref().map_or(1.0, |scale| scale[plane])
        };
        self.flop += 2 * (y.len() * depth) as u64;
        let tail = self.tail(p, node, BiasOf::Row)?;
        let source = self.source(node.inputs[0]);
        let out = self.target(p.output);
        let reads: Vec<Source> = std::iter::once(source).chain(tail.sources()).collect();

        if groups == channels && groups == planes {
            let weights = self.weights.floats((0..planes * depth).map(|i| scaled(i / depth, i % depth)));
            let step =
                Depthwise { batch: batch as u32, planes: planes as u32, window: plan, weights, ..Depthwise::default() };
            self.push(&reads, out, plan.plane_bytes(), move |places, scratch| {
                let epilogue = tail.at(places);
                vec![Depthwise { input: source.at(places), out: places.at(out), epilogue, scratch, ..step }.into()]
            });
            return Ok(());
        }
        let group = planes / groups;
        let packed = (0..groups).flat_map(|g| pack_left(group, depth, move |r, c| scaled(g * group + r, c)));
        let weights = self.weights.floats(packed);
        let pixels = oh * ow;
        let plain = window.pads == [0; 4] && groups == 1;
        let pointwise = plain && window.kernel == [1, 1] && window.strides == [1, 1];
        // A window over the whole plane has one pixel: a matrix times a vector.
        let whole = plain && window.kernel == [ih, iw] && window.dilations == [1, 1] && pixels == 1;
        if pointwise || whole {
            let right = Matrix { row: pixels as u32, col: 1, batch: (channels * ih * iw) as u32, ..Matrix::default() };
            let step = Gemm {
                batch: batch as u32,
                m: planes as u32,
                n: pixels as u32,
                k: depth as u32,
                left: Matrix { at: weights, layout: Layout::Packed, ..Matrix::default() },
                right,
                out_row: pixels as u32,
                out_batch: (planes * pixels) as u32,
                ..Gemm::default()
            };
            self.push(&reads, out, step.scratch_bytes(), move |places, scratch| {
                let right = Matrix { at: source.at(places), ..right };
                vec![Gemm { right, out: places.at(out), epilogue: tail.at(places), scratch, ..step }.into()]
            });
            return Ok(());
        }
        let step = Conv {
            batch: batch as u32,
            groups: groups as u32,
            ic: (channels / groups) as u32,
            oc: group as u32,
            window: plan,
            weights,
            ..Conv::default()
        };
        self.push(&reads, out, step.scratch_bytes(), move |places, scratch| {
            let epilogue = tail.at(places);
            vec![Conv { input: source.at(places), out: places.at(out), epilogue, scratch, ..step }.into()]
        });
        Ok(())
    }

    /// One side of a product with one matrix, or with all `batch` of them: where both sides repeat some, they are copied.
    fn batches(&mut self, node: &Node, side: usize, batch: usize) -> Result<Source, LowerError> {
        let (x, y) = (self.graph.value(node.inputs[side]), self.graph.value(node.outputs[0]));
        let source = self.source(node.inputs[side]);
        let (lead, matrix) = x.shape.split_at(x.shape.len() - 2);
        let many = lead.iter().product::<usize>();
        if many == 1 || many == batch || batch == 1 {
            return Ok(source);
        }
        let all = [&y.shape[..y.shape.len() - 2], matrix].concat();
        let out = self.buffers.add((all.iter().product::<usize>() * x.dtype.size()) as u64);
        let how = Move { dims: &all, from: (0, broadcast(&x.shape, &all)), to: (0, strides(&all)) };
        self.copy(node, source, out, x.dtype, None, how)?;
        Ok(Source::Buffer(out))
    }

    fn matmul(&mut self, p: &fuse::Product, node: &Node) -> Result<(), LowerError> {
        let graph = self.graph;
        let (a, b) = (graph.value(node.inputs[0]), graph.value(node.inputs[1]));
        let view @ [batch, m, n] = fuse::view(graph, node).ok_or_else(|| refuse(node, "shapes"))?;
        let k = a.shape[a.shape.len() - 1];
        self.flop += 2 * (batch * m * n * k) as u64;
        let is_vector = view[2] == 1 && b.shape[b.shape.len() - 1] != 1;
        let tail = self.tail(p, node, if is_vector { BiasOf::Row } else { BiasOf::Column })?;
        let base = Gemm {
            batch: batch as u32,
            m: m as u32,
            n: n as u32,
            k: k as u32,
            out_row: n as u32,
            out_batch: (m * n) as u32,
            ..Gemm::default()
        };
        let out = self.target(p.output);
        let scale = |col: usize| p.scale.as_ref().map_or(1.0, |scale| scale[col]);
        // Elements from one product to the next of a side that has as many as the batch, or one for all.
        let step_of = |shape: &[usize], one: usize| match shape[..shape.len() - 2].iter().product::<usize>() {
            1 => 0,
            _ => one as u32,
        };
        let dense = |row: usize, batch: u32| Matrix { row: row as u32, col: 1, batch, ..Matrix::default() };
        let packed = |at: At| Matrix { at, layout: Layout::Packed, ..Matrix::default() };

        let (left, right, left_source, right_source);
        if is_vector {
            // The transpose, so that weights are on the left and the vector is the only column.
            let tensor = self.constant(node, node.inputs[1])?;
            let weights = self.weights.floats(pack_left(m, k, |r, c| tensor.floats()[c * m + r] * scale(r)));
            (left, left_source) = (packed(weights), None);
            (right, right_source) = (dense(1, 0), Some(self.source(node.inputs[0])));
        } else {
            let shared_left = a.constant.is_some() && batch == 1;
            (left, left_source) = if let (true, Some(tensor)) = (shared_left, &a.constant) {
                (packed(self.weights.floats(pack_left(m, k, |r, c| tensor.floats()[r * k + c]))), None)
            } else {
                let step = if batch == 1 { 0 } else { step_of(&a.shape, m * k) };
                (dense(k, step), Some(self.batches(node, 0, batch)?))
            };
            let shared_right = b.len() == k * n;
            (right, right_source) = if let (true, Some(tensor)) = (shared_right, &b.constant) {
                (packed(self.weights.floats(pack_right(k, n, |r, c| tensor.floats()[r * n + c] * scale(c)))), None)
            } else {
                if p.scale.is_some() {
                    return Err(refuse(node, "a scale of several matrices"));
                }
                (dense(n, step_of(&b.shape, k * n)), Some(self.batches(node, 1, batch)?))
            };
        }
        let base = Gemm { left, right, ..base };
        let reads: Vec<Source> = left_source.into_iter().chain(right_source).chain(tail.sources()).collect();
        self.push(&reads, out, base.scratch_bytes(), move |places, scratch| {
            let side = |matrix: Matrix, source: Option<Source>| Matrix {
                at: source.map_or(matrix.at, |s| s.at(places)),
                ..matrix
            };
            let (left, right) = (side(left, left_source), side(right, right_source));
            vec![Gemm { left, right, out: places.at(out), epilogue: tail.at(places), scratch, ..base }.into()]
        });
        Ok(())
    }
}
