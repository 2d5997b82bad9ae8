//! A few shapes that share weights: which of them answers a request, what a shorter request is filled up with, and where its
//! answer ends.

use serde::{Deserialize, Serialize};

use crate::{Contract, DataType, GoldenMatch, TensorSpec, half};

/// Most shapes of one model, the first included.
pub const MAX_BUCKETS: usize = 8;
/// Extents of one tensor that an error text shows.
const SHOWN: usize = 16;

/// The shapes of one entry of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shapes {
    /// One per input of the contract.
    pub inputs: Vec<Vec<u64>>,
    /// One per output of the contract.
    pub outputs: Vec<Vec<u64>>,
}

/// Shapes besides those of the contract's own inputs and outputs, which are entry 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Buckets {
    /// Entries 1, 2, … of the plan.
    pub more: Vec<Shapes>,
    /// One per input: what a shorter one is filled up with at its ends, along the axes on which entries differ; `None` where
    /// extents must be a bucket's.
    pub padding: Vec<Option<i64>>,
}

impl Buckets {
    /// Whether they speak of this contract: as many tensors of as many dimensions, no two entries with the same inputs, and none
    /// whose sizes overflow. Rows are sent one at a time, and nothing is carried between requests.
    pub fn fits(&self, contract: &Contract) -> bool {
        let alike = |shapes: &[Vec<u64>], specs: &[TensorSpec]| {
            shapes.len() == specs.len()
                && shapes.iter().zip(specs).all(|(shape, spec)| {
                    let sized = TensorSpec { shape: shape.clone(), ..spec.clone() };
                    shape.len() == spec.shape.len() && sized.bytes().is_some()
                })
        };
        let own: Vec<&Vec<u64>> = contract.inputs.iter().map(|spec| &spec.shape).collect();
        let different = |(n, shapes): (usize, &Shapes)| {
            let earlier = self.more.iter().take(n).any(|other| other.inputs == shapes.inputs);
            !earlier && own.iter().zip(&shapes.inputs).any(|(own, other)| *own != other)
        };
        contract.batch.is_none()
            && contract.state.is_none()
            && !self.more.is_empty()
            && self.more.len() < MAX_BUCKETS
            && self.padding.len() == contract.inputs.len()
            && self.padding.iter().zip(&contract.inputs).all(|(p, spec)| p.is_none_or(|p| holds(spec.datatype, p)))
            && self.more.iter().all(|s| alike(&s.inputs, &contract.inputs) && alike(&s.outputs, &contract.outputs))
            && self.more.iter().enumerate().all(different)
    }
}

impl Contract {
    /// Entries of the plan that answer requests.
    pub fn entries(&self) -> usize {
        self.buckets.as_ref().map_or(1, |b| b.more.len().saturating_add(1))
    }

    /// Inputs and outputs of an entry; of entry 0 where there is none of that number.
    pub fn entry(&self, n: usize) -> (Vec<TensorSpec>, Vec<TensorSpec>) {
        let shapes = n.checked_sub(1).and_then(|n| self.buckets.as_ref()?.more.get(n));
        let Some(shapes) = shapes else { return (self.inputs.clone(), self.outputs.clone()) };
        let with = |specs: &[TensorSpec], shapes: &[Vec<u64>]| {
            let each = specs.iter().zip(shapes);
            each.map(|(spec, shape)| TensorSpec { shape: shape.clone(), ..spec.clone() }).collect()
        };
        (with(&self.inputs, &shapes.inputs), with(&self.outputs, &shapes.outputs))
    }

    /// The contract of one entry, as if the model had no other. A user's labels are those of entry 0: what others are held to are
    /// the numbers of the reference evaluator.
    pub fn of_entry(&self, n: usize) -> Self {
        let (inputs, outputs) = self.entry(n);
        let mut of = Self { inputs, outputs, buckets: None, ..self.clone() };
        if n > 0 {
            of.verification.golden_match = GoldenMatch::Values;
            of.verification.user_golden = false;
        }
        of
    }

    /// The shape of an input in an entry.
    fn input(&self, entry: usize, input: usize) -> Option<&[u64]> {
        match entry.checked_sub(1) {
            None => self.inputs.get(input).map(|spec| spec.shape.as_slice()),
            Some(n) => self.buckets.as_ref()?.more.get(n)?.inputs.get(input).map(Vec::as_slice),
        }
    }

    fn output(&self, entry: usize, output: usize) -> Option<&[u64]> {
        match entry.checked_sub(1) {
            None => self.outputs.get(output).map(|spec| spec.shape.as_slice()),
            Some(n) => self.buckets.as_ref()?.more.get(n)?.outputs.get(output).map(Vec::as_slice),
        }
    }

    /// Extents of an axis by entry; `None` where they are the same in all of them.
    fn varying<'c>(&'c self, shape: impl Fn(usize) -> Option<&'c [u64]>, axis: usize) -> Option<Vec<u64>> {
        let extents: Option<Vec<u64>> = (0..self.entries()).map(|n| shape(n)?.get(axis).copied()).collect();
        extents.filter(|extents| extents.iter().any(|extent| Some(extent) != extents.first()))
    }

    /// Axes of inputs along which requests may be shorter than an entry: input, axis, extents by entry.
    fn padded_axes(&self) -> Vec<(usize, usize, Vec<u64>)> {
        let padding = self.buckets.as_ref().map(|b| b.padding.as_slice()).unwrap_or_default();
        let inputs = self.inputs.iter().zip(padding).enumerate().filter(|(_, (_, padding))| padding.is_some());
        let axes = inputs.flat_map(|(i, (spec, _))| (0..spec.shape.len()).map(move |axis| (i, axis)));
        axes.filter_map(|(i, axis)| Some((i, axis, self.varying(|n| self.input(n, i), axis)?))).collect()
    }

    /// An input that has no padding and grows with one that has, in all entries alike; and that one. Nothing could be sent for it.
    pub fn left_unpadded(&self) -> Option<(&str, &str)> {
        let padded = self.padded_axes();
        let name = |i: usize| self.inputs.get(i).map(|spec| spec.name.as_str());
        let bare = self.inputs.iter().enumerate().filter(|(i, _)| padded.iter().all(|(other, _, _)| other != i));
        let mut axes = bare.flat_map(|(i, spec)| (0..spec.shape.len()).map(move |axis| (i, axis)));
        axes.find_map(|(i, axis)| {
            let extents = self.varying(|n| self.input(n, i), axis)?;
            let (with, _, _) = padded.iter().find(|(_, _, other)| *other == extents)?;
            Some((name(i)?, name(*with)?))
        })
    }

    /// Whether inputs of these shapes are answered by an entry: exactly its own, or shorter where that is allowed.
    fn takes(&self, entry: usize, sent: &[Vec<u64>], padded: &[(usize, usize, Vec<u64>)]) -> bool {
        let axis = |i: usize, a: usize| padded.iter().any(|(input, axis, _)| (*input, *axis) == (i, a));
        sent.len() == self.inputs.len()
            && sent.iter().enumerate().all(|(i, sent)| {
                let shape = self.input(entry, i).unwrap_or_default();
                let mut extents = shape.iter().zip(sent).enumerate();
                shape.len() == sent.len()
                    && extents.all(|(a, (is, sent))| is == sent || (axis(i, a) && (1..=*is).contains(sent)))
            })
    }

    /// The smallest entry that inputs of these shapes fit, exactly or filled up where that is allowed. `Err` lists the shapes.
    pub fn smallest_entry(&self, sent: &[Vec<u64>]) -> Result<usize, String> {
        let padded = self.padded_axes();
        // Inputs that grow together are one sequence: a mask that is longer than what it masks would let filling through.
        for (i, axis, extents) in &padded {
            let of = |i: usize, axis: usize| sent.get(i).and_then(|shape| shape.get(axis)).copied();
            let own = of(*i, *axis);
            let other = padded.iter().find(|(j, b, e)| e == extents && of(*j, *b) != own);
            if let (Some((j, b, _)), Some(own)) = (other, own)
                && let (Some(theirs), Some(one), Some(two)) = (of(*j, *b), self.inputs.get(*i), self.inputs.get(*j))
            {
                return Err(format!(
                    "input {:?} has {own} along axis {axis} and input {:?} {theirs} along axis {b}: they are of one length, send as \
                     many of both",
                    one.name, two.name
                ));
            }
        }
        let size = |n: usize| {
            let each = (0..self.inputs.len()).map(|i| self.input(n, i).unwrap_or_default());
            each.map(|shape| shape.iter().fold(1u64, |n, d| n.saturating_mul(*d))).fold(0, u64::saturating_add)
        };
        let fits = (0..self.entries()).filter(|n| self.takes(*n, sent, &padded));
        fits.min_by_key(|n| size(*n)).ok_or_else(|| {
            let known: Vec<String> =
                (0..self.entries()).map(|n| self.named(|i| self.input(n, i).unwrap_or_default())).collect();
            let up = if padded.is_empty() { "" } else { " (shorter ones are filled up where padding says so)" };
            let sent = self.named(|i| sent.get(i).map(Vec::as_slice).unwrap_or_default());
            format!("the model takes {}{up}; {sent} was sent", known.join(", or "))
        })
    }

    /// Inputs with their shapes, in words.
    pub fn named<'s>(&self, shape: impl Fn(usize) -> &'s [u64]) -> String {
        let each = self.inputs.iter().enumerate().map(|(i, spec)| {
            let shown: Vec<_> = shape(i).iter().take(SHOWN).collect();
            format!("{} {shown:?}", spec.name)
        });
        each.collect::<Vec<_>>().join(" with ")
    }

    /// Entries other than `small` that requests of its shapes could be filled up for.
    pub fn larger_than(&self, small: usize) -> Vec<usize> {
        let padded = self.padded_axes();
        let sent: Vec<Vec<u64>> =
            (0..self.inputs.len()).map(|i| self.input(small, i).unwrap_or_default().to_vec()).collect();
        (0..self.entries()).filter(|n| *n != small && self.takes(*n, &sent, &padded)).collect()
    }

    /// Inputs of these shapes as an entry takes them.
    pub fn filled_up<B: AsRef<[u8]>>(&self, entry: usize, sent: &[Vec<u64>], inputs: &[B]) -> Vec<Vec<u8>> {
        let padding = self.buckets.as_ref().map(|b| b.padding.as_slice()).unwrap_or_default();
        let each = inputs.iter().zip(&self.inputs).zip(sent).enumerate();
        each.map(|(i, ((bytes, spec), sent))| {
            let value = padding.get(i).copied().flatten().unwrap_or(0);
            pad(spec.datatype, sent, self.input(entry, i).unwrap_or_default(), bytes.as_ref(), value)
        })
        .collect()
    }

    /// The shapes of the outputs that belong to inputs of these shapes: the entry's, cut along every axis that goes with a padded
    /// axis of an input in all entries.
    pub fn outputs_for(&self, entry: usize, sent: &[Vec<u64>]) -> Vec<Vec<u64>> {
        let padded = self.padded_axes();
        let cut = |o: usize, axis: usize, is: u64| {
            let extents = self.varying(|n| self.output(n, o), axis)?;
            let (input, along, _) = padded.iter().find(|(_, _, other)| *other == extents)?;
            Some((*sent.get(*input)?.get(*along)?).min(is))
        };
        let shape = |o: usize| -> Vec<u64> {
            let shape = self.output(entry, o).unwrap_or_default().iter().enumerate();
            shape.map(|(axis, is)| cut(o, axis, *is).unwrap_or(*is)).collect()
        };
        (0..self.outputs.len()).map(shape).collect()
    }

    /// An entry's output, of which `shape` is asked.
    pub fn cut_back(&self, entry: usize, output: usize, shape: &[u64], bytes: &[u8]) -> Vec<u8> {
        let datatype = self.outputs.get(output).map_or(DataType::Uint8, |spec| spec.datatype);
        crop(datatype, self.output(entry, output).unwrap_or_default(), shape, bytes)
    }
}

/// A tensor of shape `from` as the beginning of one of shape `to`, the rest filled with `value`. Both have as many dimensions.
fn pad(datatype: DataType, from: &[u64], to: &[u64], bytes: &[u8], value: i64) -> Vec<u8> {
    let Some(bytes_of_all) = (TensorSpec { name: String::new(), datatype, shape: to.to_vec() }).bytes() else {
        return Vec::new();
    };
    let count = usize::try_from(bytes_of_all).unwrap_or(0) / datatype.size().max(1);
    let mut out = element(datatype, value).repeat(count);
    runs(datatype.size(), to, from, &mut |whole, part, length| {
        let (Some(place), Some(source)) =
            (out.get_mut(whole..whole.saturating_add(length)), bytes.get(part..part.saturating_add(length)))
        else {
            return;
        };
        place.copy_from_slice(source);
    });
    out
}

/// The beginning, of shape `to`, of a tensor of shape `from`. Both have as many dimensions.
fn crop(datatype: DataType, from: &[u64], to: &[u64], bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    runs(datatype.size(), from, to, &mut |whole, _, length| {
        out.extend_from_slice(bytes.get(whole..whole.saturating_add(length)).unwrap_or_default());
    });
    out
}

/// Walks the rows of a `part` at the beginning of a `whole`: where each lies in either, and how long it is; bytes.
fn runs(size: usize, whole: &[u64], part: &[u64], each: &mut dyn FnMut(usize, usize, usize)) {
    let narrow = |d: &u64| usize::try_from(*d).unwrap_or(usize::MAX);
    let (Some(last_whole), Some(last_part)) = (whole.last().map(narrow), part.last().map(narrow)) else {
        return each(0, 0, size);
    };
    let outer: Vec<(usize, usize)> =
        whole.iter().zip(part).take(whole.len().saturating_sub(1)).map(|(w, p)| (narrow(w), narrow(p))).collect();
    let rows = outer.iter().fold(1usize, |n, (_, p)| n.saturating_mul(*p));
    let length = last_part.saturating_mul(size);
    if length == 0 {
        return; // however many rows of nothing there are
    }
    for row in 0..rows {
        // The row's place in the whole, by its coordinates in the part.
        let (mut rest, mut at, mut stride) = (row, 0usize, 1usize);
        for (w, p) in outer.iter().rev() {
            at = at.saturating_add((rest % (*p).max(1)).saturating_mul(stride));
            rest /= (*p).max(1);
            stride = stride.saturating_mul(*w);
        }
        each(at.saturating_mul(last_whole).saturating_mul(size), row.saturating_mul(length), length);
    }
}

/// One element, little-endian; of a value that [`holds`] allows.
pub(crate) fn element(datatype: DataType, value: i64) -> Vec<u8> {
    match datatype {
        DataType::Fp32 => (value as f32).to_le_bytes().to_vec(),
        DataType::Fp64 => (value as f64).to_le_bytes().to_vec(),
        DataType::Fp16 => half::to_fp16(value as f32).to_le_bytes().to_vec(),
        DataType::Bf16 => half::to_bf16(value as f32).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().get(..datatype.size()).unwrap_or_default().to_vec(),
    }
}

/// Whether an element of this type can be `value`; floats are rounded to their nearest.
pub fn holds(datatype: DataType, value: i64) -> bool {
    match datatype {
        DataType::Bool => (0..=1).contains(&value),
        DataType::Int8 => i8::try_from(value).is_ok(),
        DataType::Int16 => i16::try_from(value).is_ok(),
        DataType::Int32 => i32::try_from(value).is_ok(),
        DataType::Uint8 => u8::try_from(value).is_ok(),
        DataType::Uint16 => u16::try_from(value).is_ok(),
        DataType::Uint32 => u32::try_from(value).is_ok(),
        DataType::Uint64 => value >= 0,
        DataType::Fp16 => half::from_fp16(half::to_fp16(value as f32)).is_finite(),
        DataType::Int64 | DataType::Fp32 | DataType::Fp64 | DataType::Bf16 => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_rows_of_nothing_is_no_work() {
        let most = u64::from(u32::MAX);
        runs(4, &[most, most, 3], &[most, most, 0], &mut |_, _, _| unreachable!("there is nothing to copy"));
    }

    #[test]
    fn a_padded_tensor_begins_with_the_one_it_was() {
        let small: Vec<u8> = (1..=6).collect();
        let large = pad(DataType::Uint8, &[1, 2, 3], &[1, 3, 4], &small, 9);
        assert_eq!(large, [1, 2, 3, 9, 4, 5, 6, 9, 9, 9, 9, 9]);
        assert_eq!(crop(DataType::Uint8, &[1, 3, 4], &[1, 2, 3], &large), small);
        let halves: Vec<u8> = [1i16, 2].iter().flat_map(|x| x.to_le_bytes()).collect();
        let padded = pad(DataType::Int16, &[2], &[4], &halves, -1);
        assert_eq!(padded, [1, 0, 2, 0, 255, 255, 255, 255]);
        assert_eq!(pad(DataType::Fp32, &[], &[], &1f32.to_le_bytes(), 0), 1f32.to_le_bytes());
        assert_eq!(pad(DataType::Fp32, &[1], &[2], &1f32.to_le_bytes(), -2)[4..], (-2f32).to_le_bytes());
        assert_eq!(pad(DataType::Fp16, &[1], &[2], &[0, 0x3c], 1), [0, 0x3c, 0, 0x3c]);
    }

    #[test]
    fn what_fills_up_must_be_a_number_of_the_type() {
        for (datatype, good, bad) in [
            (DataType::Bool, 1, 2),
            (DataType::Uint8, 255, 256),
            (DataType::Int8, -128, 128),
            (DataType::Uint64, 0, -1),
            (DataType::Fp16, 65_504, 70_000),
        ] {
            assert!(holds(datatype, good) && !holds(datatype, bad), "{datatype:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_there_are_not_read() {
        assert!(crop(DataType::Fp32, &[4, 4], &[2, 2], &[0; 3]).is_empty());
        assert_eq!(pad(DataType::Uint8, &[2, 2], &[2, 3], &[1, 2], 0), [1, 2, 0, 0, 0, 0]);
    }
}
