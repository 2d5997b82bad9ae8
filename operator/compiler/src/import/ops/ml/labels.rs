//! Numbers that stand for something, told apart by comparing them with each that is known.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, Tensor, UnaryOp, ValueId};

use super::super::super::build::{Builder, Result, invalid, unsupported};
use super::super::super::call::Call;
use super::super::super::tensor;
use super::integers;

/// Most comparisons that are written out: 16 MiB of f32.
const MAX_COMPARED: usize = 1 << 22;

const STRINGS: &str = "it is about strings, and strings are no tensors of numbers; encode them before the request \
                       (sklearn.preprocessing.OrdinalEncoder) and give integers to the model";

/// `x` compared with each key: `[.., k]` (Boolean).
fn compared(b: &mut Builder, x: ValueId, keys: ValueId) -> Result<ValueId> {
    let mut shape = b.shape(x).to_vec();
    shape.push(1);
    let total = b.graph.value(x).len().saturating_mul(b.graph.value(keys).len());
    if total > MAX_COMPARED {
        return unsupported(format!("{total} comparisons with its keys"));
    }
    let x = b.reshape(x, shape)?;
    b.binary(BinaryOp::Equal, x, keys)
}

/// 1 where the element is that category, for each of them. What is no category is 0 everywhere.
pub(super) fn one_hot(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let categories = integers(call, "cats_int64s");
    if categories.is_empty() {
        return unsupported(STRINGS);
    }
    if !call.flag("zeros", true) {
        let note =
            "OneHotEncoder: a value that is no category gives zeros, where zeros = 0 asks for a failure".to_owned();
        call.b.notes.insert(note);
    }
    let x = call.input(0)?;
    let shape = call.shape(0)?;
    let x = call.b.cast(x, DType::I64)?;
    let keys = call.b.constant(Tensor::int(DType::I64, vec![categories.len()], categories.to_vec()));
    let equal = compared(call.b, x, keys)?;
    let y = call.b.cast(equal, DType::F32)?;
    let mut shape = shape;
    shape.push(categories.len());
    Ok(vec![call.b.reshape(y, shape)?])
}

/// Keys, values or the default as a tensor, whichever of the attributes there is.
fn listed(call: &Call<'_, '_>, what: &str) -> Result<Option<Tensor>> {
    if let Some(proto) = call.tensor(&format!("{what}_tensor")) {
        return match tensor::tensor(proto) {
            Ok(tensor) => Ok(Some(tensor)),
            Err(_) if proto.data_type == 8 => unsupported(STRINGS),
            Err(e) => invalid(e),
        };
    }
    if let Some(ints) = call.ints(&format!("{what}_int64s")) {
        return Ok(Some(Tensor::int(DType::I64, vec![ints.len()], ints.to_vec())));
    }
    if let Some(floats) = call.floats(&format!("{what}_floats")) {
        return Ok(Some(Tensor::f32(vec![floats.len()], floats.to_vec())));
    }
    if call.attribute(&format!("{what}_strings")).is_some() { unsupported(STRINGS) } else { Ok(None) }
}

/// Each element replaced by the value of its key; what is no key by the default.
pub(super) fn encoder(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    if call.attribute("classes_strings").is_some() {
        return unsupported(STRINGS);
    }
    let (Some(keys), Some(values)) = (listed(call, "keys")?, listed(call, "values")?) else {
        return invalid("it has no keys or no values");
    };
    let x = call.input(0)?;
    let count = keys.len();
    if count != values.len() || count == 0 || count >= 1 << 24 || keys.dtype != call.b.dtype(x) {
        return invalid(format!("{count} keys of {} for {} values", keys.dtype, values.len()));
    }
    let default = match call.tensor("default_tensor") {
        Some(proto) => tensor::tensor(proto)?,
        None if values.dtype == DType::F32 => Tensor::f32(vec![1], vec![call.float("default_float", -0.0) as f32]),
        None => Tensor::int(DType::I64, vec![1], vec![call.int("default_int64", -1)]),
    };
    if default.len() != 1 || default.dtype != values.dtype {
        return invalid("a default of another type than its values");
    }
    let shape = call.shape(0)?;
    let last = shape.len();
    let nan = keys.floats().iter().position(|k| k.is_nan());
    let b = &mut *call.b;
    let keys = b.constant(Tensor { shape: vec![count], ..keys });
    let mut equal = compared(b, x, keys)?;
    if let Some(nan) = nan {
        // NaN as a key is meant to be found.
        let place =
            b.constant(Tensor::int(DType::Bool, vec![count], (0..count).map(|i| i64::from(i == nan)).collect()));
        let column = b.reshape(x, [&shape[..], &[1]].concat())?;
        let missing = b.unary(UnaryOp::IsNan, column)?;
        let missing = b.binary(BinaryOp::And, missing, place)?;
        equal = b.binary(BinaryOp::Or, equal, missing)?;
    }
    // The first key that is equal; one further than all where none is.
    let numbers = b.numbers(DType::F32, count);
    let none = b.scalar(DType::F32, count as f64);
    let index = b.select(equal, numbers, none)?;
    let index = b.one(Op::Reduce { kind: ReduceKind::Min, axes: vec![last] }, &[index], None)?;
    let index = b.cast(index, DType::I32)?;
    let index = b.reshape(index, shape)?;
    let values = b.constant(Tensor { shape: vec![count], ..values });
    let default = b.constant(Tensor { shape: vec![1], ..default });
    let table = b.concat(&[values, default], 0)?;
    Ok(vec![b.one(Op::Gather { axis: 0 }, &[table, index], None)?])
}
