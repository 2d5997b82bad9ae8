//! Nodes that become plain loops over a domain: what must be exact, and what is picked, put and put in order.

use ballast_plan::generic::{Address, Combine, Component, Contract, MAX_INNER, Pick, Put, Scan, Side, Top};
use ballast_plan::record::List;
use ballast_plan::step::{self, Elt, Fill, MAX_DIMS, Operand, Wide};
use ballast_plan::{At, Domain, EltInstr, EltOp};

use crate::ir::{DType, Node, ReduceKind, Scatter, ValueId, Window};

use super::movement::Move;
use super::place::Buffer;
use super::shape::{Walk, broadcast, dense};
use super::window::plan_kind;
use super::{LowerError, Lowering, Source, plan_type, refuse};

/// What is exact for a type.
pub(super) fn exact(dtype: DType) -> Domain {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => Domain::F32,
        DType::F64 => Domain::F64,
        _ => Domain::I64,
    }
}

fn product(dims: &[usize]) -> usize {
    dims.iter().product()
}

/// Outer, own and inner extent of an axis, as steps have them.
fn around(shape: &[usize], axis: usize) -> [u32; 3] {
    [product(&shape[..axis]), shape[axis], product(&shape[axis + 1..])].map(|n| n as u32)
}

/// A contraction whose places are not known yet: extents, and for each side its strides.
pub(super) struct Contraction<'a> {
    pub(super) kind: step::ReduceKind,
    /// Extents of the result.
    pub(super) outer: &'a [usize],
    /// Extents of what is joined.
    pub(super) inner: &'a [usize],
    /// Sides: first element, strides over `outer`, strides over `inner`.
    pub(super) sides: Vec<(Source, DType, Vec<i64>, Vec<i64>)>,
    pub(super) out: (Buffer, DType),
}

impl Lowering<'_> {
    pub(super) fn contract(&mut self, node: &Node, c: Contraction<'_>) -> Result<(), LowerError> {
        let (out, dtype) = c.out;
        // Of nothing comes what nothing is joined to.
        if c.inner.contains(&0) {
            let value = match c.kind {
                step::ReduceKind::Sum | step::ReduceKind::SumSquares | step::ReduceKind::SumAbs => 0.0,
                step::ReduceKind::Product => 1.0,
                step::ReduceKind::Mean => f64::NAN,
                step::ReduceKind::Max => f64::NEG_INFINITY,
                step::ReduceKind::Min => f64::INFINITY,
            };
            self.fill(out, dtype, product(c.outer), held(dtype, value));
            return Ok(());
        }
        let many = || refuse(node, "more dimensions that do not merge than a step has");
        let strides: Vec<Vec<i64>> = c.sides.iter().map(|side| side.2.clone()).chain([dense(c.outer)]).collect();
        let outer = Walk::merged(c.outer, &strides).ok_or_else(many)?;
        let strides: Vec<Vec<i64>> = c.sides.iter().map(|side| side.3.clone()).collect();
        let inner = Walk::merged(c.inner, &strides).ok_or_else(many)?;
        let last = |dims: &[u32; MAX_DIMS]| dims.last_chunk::<MAX_INNER>().copied().unwrap_or_default();
        if inner.dims[..MAX_DIMS - MAX_INNER].iter().any(|&d| d != 1) {
            return Err(many());
        }
        let sides: Vec<(Source, Side)> = c
            .sides
            .iter()
            .enumerate()
            .map(|(i, &(source, dtype, ..))| {
                let inner = inner.strides[i].last_chunk::<MAX_INNER>().copied().unwrap_or_default();
                (source, Side { at: At::default(), dtype: plan_type(dtype), outer: outer.strides[i], inner })
            })
            .collect();
        let step = Contract {
            domain: exact(dtype),
            kind: c.kind,
            outer: outer.dims,
            inner: last(&inner.dims),
            dtype: plan_type(dtype),
            ..Contract::default()
        };
        let work = product(c.outer).saturating_mul(product(c.inner)) as u64;
        self.flop += work * sides.len() as u64;
        let reads: Vec<Source> = sides.iter().map(|(source, _)| *source).collect();
        self.push(&reads, out, 0, move |places, _| {
            let at = |&(source, side): &(Source, Side)| Side { at: source.at(places), ..side };
            let left = sides.first().map(at).unwrap_or_default();
            let right = List::new(&sides.iter().skip(1).map(at).collect::<Vec<_>>()).unwrap_or_default();
            vec![Contract { left, right, out: places.at(out), ..step }.into()]
        });
        Ok(())
    }

    /// Any convolution: the input is padded, then windows are walked by strides.
    pub(super) fn conv_exact(&mut self, node: &Node, window: &Window, groups: usize) -> Result<(), LowerError> {
        let [x, w] = [node.inputs[0], node.inputs[1]].map(|id| self.graph.value(id));
        let y = self.graph.value(node.outputs[0]);
        let (&[n, c, ih, iw], &[planes, ic, kh, kw], &[_, _, oh, ow]) =
            (x.shape.as_slice(), w.shape.as_slice(), y.shape.as_slice())
        else {
            return Err(refuse(node, "not two-dimensional"));
        };
        let dtype = x.dtype;
        let [top, left, bottom, right] = window.pads;
        let padded = [n, c, ih + top + bottom, iw + left + right];
        let to = dense(&padded);
        let mut source = self.source(node.inputs[0]);
        if window.pads != [0; 4] && c > 0 {
            let size = product(&padded) * dtype.size();
            let buffer = self.buffers.add(size as u64);
            let fill = Fill { words: size.div_ceil(4) as u32, ..Fill::default() };
            let first = top as i64 * to[2] + left as i64;
            let how = Move { dims: &x.shape, from: (0, dense(&x.shape)), to: (first, to.clone()) };
            self.copy(node, source, buffer, dtype, Some(fill), how)?;
            source = Source::Buffer(buffer);
        }
        let (taps, group) = (kh * kw, planes / groups);
        let by = |stride: usize, dim: usize| stride as i64 * to[dim];
        let [sh, sw] = window.strides;
        let [dh, dw] = window.dilations;
        let over = vec![to[0], by(ic, 1), 0, by(sh, 2), by(sw, 3)];
        let weights = vec![0, (group * ic * taps) as i64, (ic * taps) as i64, 0, 0];
        let sides = vec![
            (source, dtype, over, vec![to[1], by(dh, 2), by(dw, 3)]),
            (self.source(node.inputs[1]), dtype, weights, vec![taps as i64, kw as i64, 1]),
        ];
        let bias = node.inputs.get(2).copied();
        let out = self.target(node.outputs[0]);
        let sum = if bias.is_some() { self.buffers.add((y.len() * dtype.size()) as u64) } else { out };
        let (outer, inner) = ([n, groups, group, oh, ow], [ic, kh, kw]);
        let kind = step::ReduceKind::Sum;
        self.contract(node, Contraction { kind, outer: &outer, inner: &inner, sides, out: (sum, dtype) })?;
        let Some(bias) = bias else { return Ok(()) };
        let bias = self.source(bias);
        let operand = move |strides| Operand { at: At::default(), dtype: plan_type(dtype), strides };
        let code = [EltInstr { op: EltOp::Add, dst: 2, src: [0, 1, 0], imm: 0.0 }];
        let step = Elt {
            program: self.builder.program(2, 3, &code),
            dims: [1, 1, 1, n as u32, planes as u32, (oh * ow) as u32],
            dtype: plan_type(dtype),
            ..Elt::default()
        };
        let [image, plane] = [planes * oh * ow, oh * ow].map(|n| n as i32);
        self.push(&[Source::Buffer(sum), bias], out, 0, move |places, _| {
            let operands = [
                Operand { at: places.at(sum), ..operand([0, 0, 0, image, plane, 1]) },
                Operand { at: bias.at(places), ..operand([0, 0, 0, 0, 1, 0]) },
            ];
            let elt = Elt { out: places.at(out), operands: List::new(&operands).unwrap_or_default(), ..step };
            vec![match exact(dtype) {
                Domain::F32 => elt.into(),
                domain => Wide { domain, elt }.into(),
            }]
        });
        self.last_in_place(Source::Buffer(sum));
        Ok(())
    }

    /// Over any axes at once.
    pub(super) fn reduce_exact(&mut self, node: &Node, kind: ReduceKind, axes: &[usize]) -> Result<(), LowerError> {
        let x = self.graph.value(node.inputs[0]);
        let strides = dense(&x.shape);
        let of = |wanted: bool| -> (Vec<usize>, Vec<i64>) {
            (0..x.shape.len()).filter(|d| axes.contains(d) == wanted).map(|d| (x.shape[d], strides[d])).unzip()
        };
        let ((outer, over), (inner, joined)) = (of(false), of(true));
        let (dtype, source, out) = (x.dtype, self.source(node.inputs[0]), self.target(node.outputs[0]));
        if kind == ReduceKind::Mean && dtype == DType::U64 {
            return Err(refuse(node, "a mean of u64"));
        }
        let kind = match kind {
            // Numbers without a sign are their own size; two's complement is not what says so.
            ReduceKind::SumAbs if dtype == DType::U64 => step::ReduceKind::Sum,
            kind => plan_kind(kind),
        };
        let sides = vec![(source, dtype, over, joined)];
        self.contract(node, Contraction { kind, outer: &outer, inner: &inner, sides, out: (out, dtype) })
    }

    /// `[.., m, k] · [.., k, n]`, batches broadcast.
    pub(super) fn matmul_exact(&mut self, node: &Node) -> Result<(), LowerError> {
        let [a, b] = [node.inputs[0], node.inputs[1]].map(|id| self.graph.value(id));
        let y = self.graph.value(node.outputs[0]);
        let rank = y.shape.len();
        let k = a.shape[a.shape.len() - 1];
        // The rows of one and the columns of the other repeat.
        let lead = |shape: &[usize]| {
            let own = &shape[..shape.len() - 2];
            let size = (shape[shape.len() - 2] * shape[shape.len() - 1]) as i64;
            broadcast(own, &y.shape[..rank - 2]).into_iter().map(|s| s * size).collect::<Vec<i64>>()
        };
        let n = b.shape[b.shape.len() - 1];
        let (mut left, mut right) = (lead(&a.shape), lead(&b.shape));
        left.extend([k as i64, 0]);
        right.extend([0, 1]);
        let (dtype, outer) = (y.dtype, y.shape.clone());
        let sides = vec![
            (self.source(node.inputs[0]), dtype, left, vec![1]),
            (self.source(node.inputs[1]), dtype, right, vec![n as i64]),
        ];
        let out = (self.target(node.outputs[0]), dtype);
        self.contract(node, Contraction { kind: step::ReduceKind::Sum, outer: &outer, inner: &[k], sides, out })
    }

    pub(super) fn cumsum(&mut self, node: &Node, axis: usize, exclusive: bool, reverse: bool) {
        let x = self.graph.value(node.inputs[0]);
        let [outer, len, inner] = around(&x.shape, axis);
        let step = Scan {
            domain: exact(x.dtype),
            dtype: plan_type(x.dtype),
            outer,
            len,
            inner,
            exclusive: exclusive.into(),
            reverse: reverse.into(),
            ..Scan::default()
        };
        self.flop += x.len() as u64;
        let (source, out) = (self.source(node.inputs[0]), self.target(node.outputs[0]));
        self.push(&[source], out, 0, move |places, _| {
            vec![Scan { input: source.at(places), out: places.at(out), ..step }.into()]
        });
        self.last_in_place(source);
    }

    pub(super) fn arg_reduce(&mut self, node: &Node, largest: bool, axis: usize, last: bool) {
        let x = self.graph.value(node.inputs[0]);
        let [outer, len, inner] = around(&x.shape, axis);
        let step = Top {
            dtype: plan_type(x.dtype),
            outer,
            len,
            inner,
            k: 1,
            largest: largest.into(),
            last: last.into(),
            nan_first: 1,
            ..Top::default()
        };
        self.flop += x.len() as u64;
        let (source, out) = (self.source(node.inputs[0]), self.target(node.outputs[0]));
        self.push(&[source], out, 0, move |places, _| {
            vec![Top { input: source.at(places), indices: places.at(out), ..step }.into()]
        });
    }

    pub(super) fn top_k(&mut self, node: &Node, axis: usize, largest: bool) {
        let (x, y) = (self.graph.value(node.inputs[0]), self.graph.value(node.outputs[0]));
        let [outer, len, inner] = around(&x.shape, axis);
        let k = y.shape[axis] as u32;
        let step = Top { dtype: plan_type(x.dtype), outer, len, inner, k, largest: largest.into(), ..Top::default() };
        self.flop += sorting(x.len(), y.len(), x.shape[axis]);
        let source = self.source(node.inputs[0]);
        let [values, indices] = [node.outputs[0], node.outputs[1]].map(|id| self.target(id));
        self.push(&[source], values, step.scratch_bytes(), move |places, scratch| {
            let (input, indices) = (source.at(places), places.at(indices));
            let values = List::new(&[places.at(values)]).unwrap_or_default();
            vec![Top { input, values, indices, scratch, ..step }.into()]
        });
        if let Some(unit) = self.units.last_mut() {
            unit.writes.push(indices);
        }
    }

    /// The address of [`crate::ir::Op::GatherElements`]: one number for each element, along `axis`.
    fn elements(&mut self, node: &Node, shape: &[usize], axis: usize) -> Result<(Address, Source), LowerError> {
        let id = node.inputs[1];
        let indices = self.graph.value(id).shape.clone();
        let strides = dense(shape);
        let base: Vec<i64> = (0..shape.len()).map(|d| if d == axis { 0 } else { strides[d] }).collect();
        self.address(node, id, (&indices, base), &[(shape[axis], strides[axis])], 1)
    }

    /// The address of [`crate::ir::Op::GatherNd`]: tuples of numbers.
    fn tuples(&mut self, node: &Node, shape: &[usize], batch: usize) -> Result<(Address, Source), LowerError> {
        let id = node.inputs[1];
        let indices = self.graph.value(id).shape.clone();
        let Some((&q, lead)) = indices.split_last() else { return Err(refuse(node, "indices without a dimension")) };
        let strides = dense(shape);
        let base = (0..lead.len()).map(|d| if d < batch { strides[d] } else { 0 }).collect();
        let components: Vec<(usize, i64)> = (batch..batch + q).map(|d| (shape[d], strides[d])).collect();
        self.address(node, id, (lead, base), &components, product(&shape[batch + q..]))
    }

    fn address(
        &mut self,
        node: &Node,
        indices: ValueId,
        (dims, base): (&[usize], Vec<i64>),
        components: &[(usize, i64)],
        slice: usize,
    ) -> Result<(Address, Source), LowerError> {
        let dtype = self.graph.value(indices).dtype;
        let walk = Walk::merged(dims, &[base, dense(dims)]);
        let walk = walk.ok_or_else(|| refuse(node, "more than six dimensions that do not merge"))?;
        let component = |&(extent, stride): &(usize, i64)| Component { extent: extent as u32, stride: stride as u32 };
        let components = List::new(&components.iter().map(component).collect::<Vec<_>>());
        let address = Address {
            dims: walk.dims,
            base: walk.strides[0].map(i32::unsigned_abs),
            components: components.ok_or_else(|| refuse(node, "more than eight numbers for an index"))?,
            slice: slice as u32,
            dtype: plan_type(dtype),
            indices: At::default(),
        };
        Ok((address, self.source(indices)))
    }

    pub(super) fn gather_elements(&mut self, node: &Node, axis: usize) -> Result<(), LowerError> {
        let x = self.graph.value(node.inputs[0]);
        let (shape, size) = (x.shape.clone(), x.dtype.size());
        let address = self.elements(node, &shape, axis)?;
        self.pick_at(node, address, size);
        Ok(())
    }

    pub(super) fn gather_nd(&mut self, node: &Node, batch: usize) -> Result<(), LowerError> {
        let x = self.graph.value(node.inputs[0]);
        let (shape, size) = (x.shape.clone(), x.dtype.size());
        let address = self.tuples(node, &shape, batch)?;
        self.pick_at(node, address, size);
        Ok(())
    }

    fn pick_at(&mut self, node: &Node, (address, indices): (Address, Source), size: usize) {
        let (source, out) = (self.source(node.inputs[0]), self.target(node.outputs[0]));
        let step = Pick { address, size: size as u32, ..Pick::default() };
        self.push(&[source, indices], out, 0, move |places, _| {
            let address = Address { indices: indices.at(places), ..step.address };
            vec![Pick { address, input: source.at(places), out: places.at(out), ..step }.into()]
        });
    }

    pub(super) fn scatter_elements(&mut self, node: &Node, axis: usize, combine: Scatter) -> Result<(), LowerError> {
        let shape = self.graph.value(node.inputs[0]).shape.clone();
        let address = self.elements(node, &shape, axis)?;
        self.put_at(node, address, combine);
        Ok(())
    }

    pub(super) fn scatter_nd(&mut self, node: &Node, combine: Scatter) -> Result<(), LowerError> {
        let shape = self.graph.value(node.inputs[0]).shape.clone();
        let address = self.tuples(node, &shape, 0)?;
        self.put_at(node, address, combine);
        Ok(())
    }

    /// The whole is copied, then written into: where there are updates.
    fn put_at(&mut self, node: &Node, (address, indices): (Address, Source), combine: Scatter) {
        let x = self.graph.value(node.inputs[0]);
        let (dtype, len) = (x.dtype, x.len());
        let (source, out) = (self.source(node.inputs[0]), self.target(node.outputs[0]));
        let updates = self.source(node.inputs[2]);
        self.copy_all(source, out, len, dtype);
        self.last_in_place(source);
        if self.graph.value(node.inputs[2]).is_empty() {
            return;
        }
        self.flop += self.graph.value(node.inputs[2]).len() as u64;
        let combine = match combine {
            Scatter::Set => Combine::Set,
            Scatter::Add => Combine::Add,
            Scatter::Mul => Combine::Mul,
            Scatter::Min => Combine::Min,
            Scatter::Max => Combine::Max,
        };
        let step = Put { address, combine, domain: exact(dtype), dtype: plan_type(dtype), ..Put::default() };
        self.push(&[indices, updates, Source::Buffer(out)], out, 0, move |places, _| {
            let address = Address { indices: indices.at(places), ..step.address };
            vec![Put { address, updates: updates.at(places), out: places.at(out), ..step }.into()]
        });
    }
}

/// What a type has of a number: the ends of it, in the place of infinities.
fn held(dtype: DType, value: f64) -> f64 {
    if dtype.is_float() { value } else { crate::eval::saturate(dtype, value) as f64 }
}

/// Comparisons of a heap of each row from which the first are taken.
fn sorting(read: usize, taken: usize, len: usize) -> u64 {
    (2 * read + 2 * taken * len.max(2).ilog2() as usize) as u64
}
