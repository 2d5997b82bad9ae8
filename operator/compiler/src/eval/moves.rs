//! What moves elements without computing on them (and resampling, which nearly does not).

use crate::ir::{DType, Data, PadMode, Scatter, Tensor};

use super::elementwise::{max, max_f64, min, min_f64, rounded};
use super::{strides, wrap};

/// Walks a shape in index order and gives a linear place for each element.
#[derive(Clone)]
pub(super) struct Walk {
    shape: Vec<usize>,
    steps: Vec<usize>,
    index: Vec<usize>,
    place: usize,
    left: usize,
}

impl Walk {
    pub(super) fn new(shape: &[usize], steps: Vec<usize>, start: usize) -> Self {
        Self { index: vec![0; shape.len()], left: shape.iter().product(), shape: shape.to_vec(), steps, place: start }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let place = self.place;
        for d in (0..self.shape.len()).rev() {
            self.index[d] += 1;
            // Steps below zero are kept as their two's complement.
            self.place = self.place.wrapping_add(self.steps[d]);
            if self.index[d] < self.shape[d] {
                break;
            }
            self.place = self.place.wrapping_sub(self.steps[d].wrapping_mul(self.shape[d]));
            self.index[d] = 0;
        }
        Some(place)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// For each element of `to` in order, the element of `from` that numpy's broadcasting reads.
pub(super) fn broadcast_offsets(from: &[usize], to: &[usize]) -> Walk {
    let missing = to.len() - from.len();
    let own = strides(from);
    let steps =
        (0..to.len()).map(|d| if d < missing || from[d - missing] == 1 { 0 } else { own[d - missing] }).collect();
    Walk::new(to, steps, 0)
}

pub(super) fn pick(x: &Tensor, places: impl Iterator<Item = usize>) -> Data {
    match &x.data {
        Data::F32(v) => Data::F32(places.map(|i| v[i]).collect()),
        Data::F64(v) => Data::F64(places.map(|i| v[i]).collect()),
        Data::Int(v) => Data::Int(places.map(|i| v[i]).collect()),
    }
}

pub(super) fn transpose(x: &Tensor, perm: &[usize], shape: &[usize]) -> Data {
    let own = strides(&x.shape);
    pick(x, Walk::new(shape, perm.iter().map(|p| own[*p]).collect(), 0))
}

pub(super) fn expand(x: &Tensor, shape: &[usize]) -> Data {
    pick(x, broadcast_offsets(&x.shape, shape))
}

pub(super) fn concat(inputs: &[&Tensor], axis: usize) -> Data {
    let outer: usize = inputs[0].shape[..axis].iter().product();
    let rows = |t: &Tensor| t.shape[axis..].iter().product::<usize>();
    macro_rules! join {
        ($read:ident) => {
            (0..outer)
                .flat_map(|o| inputs.iter().flat_map(move |t| t.$read()[o * rows(t)..][..rows(t)].iter().copied()))
                .collect()
        };
    }
    match inputs[0].data {
        Data::F32(_) => Data::F32(join!(floats)),
        Data::F64(_) => Data::F64(join!(doubles)),
        Data::Int(_) => Data::Int(join!(ints)),
    }
}

pub(super) fn slice(x: &Tensor, starts: &[usize], steps: &[isize], shape: &[usize]) -> Data {
    let own = strides(&x.shape);
    let start = starts.iter().zip(&own).map(|(s, o)| s * o).sum();
    let steps = steps.iter().zip(&own).map(|(s, o)| (*o as isize).wrapping_mul(*s) as usize).collect();
    pick(x, Walk::new(shape, steps, start))
}

/// Calls `f` with every index of `shape`, in order.
fn each_index(shape: &[usize], mut f: impl FnMut(&[usize])) {
    let mut index = vec![0; shape.len()];
    for _ in 0..shape.iter().product() {
        f(&index);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

pub(super) fn pad(x: &Tensor, before: &[isize], mode: PadMode, shape: &[usize]) -> Data {
    let own = strides(&x.shape);
    let mut places = Vec::with_capacity(shape.iter().product());
    each_index(shape, |index| {
        let place = index.iter().enumerate().try_fold(0, |place, (d, i)| {
            let extent = x.shape[d] as isize;
            let i = *i as isize - before[d];
            let i = match mode {
                PadMode::Constant(_) => (0..extent).contains(&i).then_some(i)?,
                PadMode::Reflect if i < 0 => -i,
                PadMode::Reflect if i >= extent => 2 * (extent - 1) - i,
                PadMode::Reflect => i,
                PadMode::Edge => i.clamp(0, extent - 1),
                PadMode::Wrap => i.rem_euclid(extent),
            };
            Some(place + i as usize * own[d])
        });
        places.push(place);
    });
    let fill = if let PadMode::Constant(fill) = mode { fill } else { 0.0 };
    match &x.data {
        Data::F32(v) => {
            let fill = rounded(x.dtype, fill as f32);
            Data::F32(places.into_iter().map(|p| p.map_or(fill, |p| v[p])).collect())
        }
        Data::F64(v) => Data::F64(places.into_iter().map(|p| p.map_or(fill, |p| v[p])).collect()),
        Data::Int(v) => Data::Int(places.into_iter().map(|p| p.map_or(wrap(x.dtype, fill as i64), |p| v[p])).collect()),
    }
}

/// Below zero counts from the end; outside is held at the ends.
fn resolve(index: i64, extent: usize) -> usize {
    let index = if index < 0 { index.saturating_add(extent as i64) } else { index };
    index.clamp(0, extent as i64 - 1) as usize
}

pub(super) fn gather(x: &Tensor, indices: &Tensor, axis: usize) -> Data {
    let outer: usize = x.shape[..axis].iter().product();
    let inner: usize = x.shape[axis + 1..].iter().product();
    let extent = x.shape[axis];
    let places = (0..outer).flat_map(|o| {
        indices.ints().iter().flat_map(move |i| {
            let start = (o * extent + resolve(*i, extent)) * inner;
            start..start + inner
        })
    });
    pick(x, places)
}

/// For each index in order, the place in a tensor of `shape` that it addresses along `axis`.
fn element_places(shape: &[usize], indices: &Tensor, axis: usize) -> Vec<usize> {
    let own = strides(shape);
    let mut places = Vec::with_capacity(indices.len());
    let mut next = indices.ints().iter();
    each_index(&indices.shape, |index| {
        let at = next.next().map_or(0, |i| resolve(*i, shape[axis]));
        places.push(index.iter().zip(&own).enumerate().map(|(d, (i, s))| if d == axis { at * s } else { i * s }).sum());
    });
    places
}

pub(super) fn gather_elements(x: &Tensor, indices: &Tensor, axis: usize) -> Data {
    pick(x, element_places(&x.shape, indices, axis).into_iter())
}

/// For each tuple of indices in order, the first element and the number of elements that it addresses.
fn nd_places(shape: &[usize], indices: &Tensor, batch: usize) -> (Vec<usize>, usize) {
    let q = indices.shape.last().copied().unwrap_or(0);
    let tuples: usize = indices.shape[..indices.shape.len() - 1].iter().product();
    let batches: usize = shape[..batch].iter().product();
    let per_batch = tuples.checked_div(batches).unwrap_or(0).max(1);
    let own = strides(shape);
    let batch_size: usize = shape[batch..].iter().product();
    let place = |t: usize| {
        let tuple = &indices.ints()[t * q..(t + 1) * q];
        let inside: usize = tuple.iter().enumerate().map(|(d, i)| resolve(*i, shape[batch + d]) * own[batch + d]).sum();
        t / per_batch * batch_size + inside
    };
    ((0..tuples).map(place).collect(), shape[batch + q..].iter().product())
}

pub(super) fn gather_nd(x: &Tensor, indices: &Tensor, batch: usize) -> Data {
    let (places, len) = nd_places(&x.shape, indices, batch);
    pick(x, places.into_iter().flat_map(|p| p..p + len))
}

fn scatter(x: &Tensor, updates: &Tensor, places: impl Iterator<Item = usize>, combine: Scatter) -> Data {
    macro_rules! floats {
        ($v:expr, $u:expr, $min:ident, $max:ident) => {{
            let mut out = $v.clone();
            for (place, u) in places.zip($u) {
                let o = &mut out[place];
                *o = match combine {
                    Scatter::Set => *u,
                    Scatter::Add => *o + u,
                    Scatter::Mul => *o * u,
                    Scatter::Min => $min(*o, *u),
                    Scatter::Max => $max(*o, *u),
                };
            }
            out
        }};
    }
    match (&x.data, &updates.data) {
        (Data::F32(v), Data::F32(u)) => Data::F32(floats!(v, u, min, max)),
        (Data::F64(v), Data::F64(u)) => Data::F64(floats!(v, u, min_f64, max_f64)),
        (Data::Int(v), Data::Int(u)) => {
            let mut out = v.clone();
            for (place, u) in places.zip(u) {
                let o = &mut out[place];
                let combined = match combine {
                    Scatter::Set => *u,
                    Scatter::Add => o.wrapping_add(*u),
                    Scatter::Mul => o.wrapping_mul(*u),
                    Scatter::Min if x.dtype == DType::U64 => o.cast_unsigned().min(u.cast_unsigned()).cast_signed(),
                    Scatter::Max if x.dtype == DType::U64 => o.cast_unsigned().max(u.cast_unsigned()).cast_signed(),
                    Scatter::Min => (*o).min(*u),
                    Scatter::Max => (*o).max(*u),
                };
                *o = wrap(x.dtype, combined);
            }
            Data::Int(out)
        }
        _ => unreachable!("the shape rule wants equal types"),
    }
}

pub(super) fn scatter_elements(x: &Tensor, indices: &Tensor, updates: &Tensor, axis: usize, combine: Scatter) -> Data {
    scatter(x, updates, element_places(&x.shape, indices, axis).into_iter(), combine)
}

pub(super) fn scatter_nd(x: &Tensor, indices: &Tensor, updates: &Tensor, combine: Scatter) -> Data {
    let (places, len) = nd_places(&x.shape, indices, 0);
    scatter(x, updates, places.into_iter().flat_map(|p| p..p + len), combine)
}

pub(super) fn resample(x: &Tensor, axis: usize, taps: usize, indices: &[u32], weights: &[f32]) -> Data {
    let outer: usize = x.shape[..axis].iter().product();
    let inner: usize = x.shape[axis + 1..].iter().product();
    let extent = x.shape[axis];
    let outputs = indices.len() / taps;
    let place = |o: usize, t: usize, i: usize| (o * extent + indices[t] as usize) * inner + i;
    let walk = (0..outer).flat_map(|o| (0..outputs).flat_map(move |y| (0..inner).map(move |i| (o, y, i))));
    match &x.data {
        Data::F32(v) if taps == 1 && weights.iter().all(|w| *w == 1.0) => {
            Data::F32(walk.map(|(o, y, i)| v[place(o, y, i)]).collect())
        }
        Data::F32(v) => Data::F32(
            walk.map(|(o, y, i)| {
                (0..taps).fold(0.0, |sum, t| sum + weights[y * taps + t] * v[place(o, y * taps + t, i)])
            })
            .collect(),
        ),
        Data::F64(v) => Data::F64(
            walk.map(|(o, y, i)| {
                (0..taps).fold(0.0, |sum, t| sum + f64::from(weights[y * taps + t]) * v[place(o, y * taps + t, i)])
            })
            .collect(),
        ),
        Data::Int(v) => Data::Int(walk.map(|(o, y, i)| v[place(o, y, i)]).collect()),
    }
}
