//! One ONNX node while it is imported: its attributes, its inputs, and where the result goes.

use std::collections::BTreeMap;

use crate::ir::{DType, Tensor, ValueId};
use crate::onnx::{self, Attribute, Node};

use super::attributes::{Asked, Kind};
use super::build::{Builder, Problem, Result, invalid, unsupported};

/// The attributes that a function's caller gave, with the function's defaults.
pub(crate) type Given<'m> = BTreeMap<String, &'m Attribute<'m>>;

/// A node with its inputs found.
pub(crate) struct Call<'a, 'm> {
    pub(crate) b: &'a mut Builder,
    pub(crate) node: &'m Node<'m>,
    pub(crate) given: Option<&'a Given<'m>>,
    pub(crate) inputs: Vec<Option<ValueId>>,
    /// Version of ONNX's own operator set.
    pub(crate) opset: i64,
    /// Which attributes were read.
    pub(crate) asked: Asked,
}

impl<'m> Call<'_, 'm> {
    /// An attribute of whatever kind; whether it is there.
    pub(crate) fn attribute(&self, name: &str) -> Option<&'m Attribute<'m>> {
        self.asked.find(self.node, self.given, name)
    }

    fn of_kind(&self, name: &str, kind: Kind) -> Option<&'m Attribute<'m>> {
        self.attribute(name).and_then(|a| self.asked.check(a, kind))
    }

    /// What is wrong with how attributes were read, after all that is wanted was: one of another kind, or one that is passed
    /// over.
    pub(crate) fn complaint(&self, failed: bool) -> Option<Problem> {
        if let Some(wrong) = self.asked.wrong() {
            return Some(Problem::Invalid(wrong));
        }
        // Who failed had no time to read them all.
        let name = if failed { None } else { self.asked.passed_over(self.node, self.given) }?;
        Some(Problem::Unsupported(format!(
            "its attribute {name:?}, which the compiler does not know; leave it out if its default will do"
        )))
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.integer(name).unwrap_or(default)
    }

    /// An integer without a default.
    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        self.of_kind(name, Kind::Int).map(|a| a.int)
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.int(name, i64::from(default)) != 0
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> f64 {
        f64::from(self.of_kind(name, Kind::Float).map_or(default, |a| a.float))
    }

    pub(crate) fn ints(&self, name: &str) -> Option<&'m [i64]> {
        self.of_kind(name, Kind::Ints).map(|a| &a.ints[..])
    }

    pub(crate) fn floats(&self, name: &str) -> Option<&'m [f32]> {
        self.of_kind(name, Kind::Floats).map(|a| &a.floats[..])
    }

    pub(crate) fn texts(&self, name: &str) -> Option<&'m [&'m [u8]]> {
        self.of_kind(name, Kind::Texts).map(|a| &a.texts[..])
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&'m onnx::Tensor<'m>> {
        self.of_kind(name, Kind::Tensor).and_then(|a| a.tensor.as_ref())
    }

    pub(crate) fn text(&self, name: &str, default: &str) -> String {
        self.of_kind(name, Kind::Text)
            .map_or_else(|| default.to_owned(), |a| String::from_utf8_lossy(a.text).into_owned())
    }

    /// Input `i`, which must be there.
    pub(crate) fn input(&self, i: usize) -> Result<ValueId> {
        match self.inputs.get(i) {
            Some(Some(id)) => Ok(*id),
            _ => invalid(format!("input {i} is missing")),
        }
    }

    /// Input `i`, if it is there.
    pub(crate) fn optional(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    pub(crate) fn shape(&self, i: usize) -> Result<Vec<usize>> {
        self.input(i).map(|id| self.b.shape(id).to_vec())
    }

    /// The elements of input `i`, if it is there; it must be known.
    pub(crate) fn known(&self, i: usize) -> Result<Option<std::sync::Arc<Tensor>>> {
        let Some(id) = self.optional(i) else { return Ok(None) };
        match self.b.known(id) {
            Some(tensor) => Ok(Some(tensor.clone())),
            None => unsupported(format!(
                "its input {i} is computed from the model's inputs, and must be known: fix the input that decides it \
                 (model.inputs[].value, --value NAME=NUMBER), or export it as a constant"
            )),
        }
    }

    /// The integers of input `i`, if it is there; they must be known.
    pub(crate) fn known_ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        let Some(tensor) = self.known(i)? else { return Ok(None) };
        if tensor.dtype == DType::F32 {
            return invalid(format!("input {i} should be integers"));
        }
        Ok(Some(tensor.ints().to_vec()))
    }

    /// The floats of input `i`, if it is there; they must be known.
    pub(crate) fn known_floats(&self, i: usize) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.known(i)? else { return Ok(None) };
        if tensor.dtype != DType::F32 {
            return invalid(format!("input {i} should be floats"));
        }
        Ok(Some(tensor.floats().to_vec()))
    }

    /// An attribute of older operator sets, or the input that took its place.
    pub(crate) fn ints_or_input(&self, name: &str, i: usize) -> Result<Option<Vec<i64>>> {
        match self.ints(name) {
            Some(ints) => Ok(Some(ints.to_vec())),
            None => self.known_ints(i),
        }
    }

    /// A dimension of a tensor of this rank; below zero it counts from the end.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        resolve_axis(axis, rank)
    }

    /// Whether output `i` is wanted.
    pub(crate) fn wants(&self, i: usize) -> bool {
        self.node.outputs.get(i).is_some_and(|name| !name.is_empty())
    }
}

pub(crate) fn resolve_axis(axis: i64, rank: usize) -> Result<usize> {
    let resolved = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    match usize::try_from(resolved) {
        Ok(a) if a < rank => Ok(a),
        _ => invalid(format!("axis {axis} of a tensor of {rank} dimensions")),
    }
}

/// Sorted and distinct.
pub(crate) fn resolve_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut resolved = axes.iter().map(|a| resolve_axis(*a, rank)).collect::<Result<Vec<_>>>()?;
    resolved.sort_unstable();
    resolved.dedup();
    if resolved.len() == axes.len() { Ok(resolved) } else { invalid(format!("axes {axes:?} name a dimension twice")) }
}

/// An extent.
pub(crate) fn extent(x: i64) -> Result<usize> {
    match usize::try_from(x) {
        Ok(n) if n <= crate::shape::MAX_ELEMENTS => Ok(n),
        _ => invalid(format!("{x} is no extent of a tensor")),
    }
}
