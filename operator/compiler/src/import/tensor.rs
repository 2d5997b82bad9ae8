//! Constants as they lie in the file, turned into tensors.

use ballast_bundle::half;

use crate::ir::{DType, Data, Tensor};
use crate::onnx;

/// The type that elements of a `TensorProto.DataType` are stored in.
pub(crate) const fn stored(data_type: i32) -> Option<DType> {
    Some(match data_type {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        16 => DType::BF16,
        _ => return None,
    })
}

/// The type that they are computed in: halves are numbers of f32 wherever they are not stored.
pub(crate) const fn dtype(data_type: i32) -> Option<DType> {
    match stored(data_type) {
        Some(dtype) => Some(computed(dtype)),
        None => None,
    }
}

/// The type that a stored one is computed in.
pub(crate) const fn computed(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

/// ONNX's name of a `TensorProto.DataType`.
pub(crate) fn type_name(data_type: i32) -> String {
    let names = [
        "not a tensor",
        "float",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "double",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
        "float8e4m3fn",
        "float8e4m3fnuz",
        "float8e5m2",
        "float8e5m2fnuz",
        "uint4",
        "int4",
        "float4e2m1",
    ];
    usize::try_from(data_type)
        .ok()
        .and_then(|i| names.get(i))
        .map_or_else(|| format!("type {data_type}"), |n| (*n).to_owned())
}

/// The tensor, or why it cannot be used.
pub(crate) fn tensor(proto: &onnx::Tensor<'_>) -> Result<Tensor, String> {
    if let Some(external) = &proto.external {
        return Err(format!(
            "its elements are in the file {:?}, which is read for initializers only; save the model with everything in one \
             file",
            external.location
        ));
    }
    let dtype = dtype(proto.data_type).ok_or_else(|| format!("it is of type {}", type_name(proto.data_type)))?;
    let shape = proto
        .dims
        .iter()
        .map(|d| usize::try_from(*d).map_err(|_| format!("its shape is {:?}", proto.dims)))
        .collect::<Result<Vec<_>, _>>()?;
    let count = crate::shape::elements(&shape)?;
    let wrong = |found: usize| format!("its shape {shape:?} asks for {count} elements, the file has {found}");
    let data = match (proto.raw, proto.data_type) {
        (Some(raw), 10 | 16) => {
            let convert = if proto.data_type == 10 { half::from_fp16 } else { half::from_bf16 };
            Data::F32(raw.as_chunks::<2>().0.iter().map(|c| convert(u16::from_le_bytes(*c))).collect())
        }
        (Some(raw), _) => {
            return Tensor::from_bytes(dtype, shape.clone(), raw).ok_or_else(|| wrong(raw.len() / dtype.size()));
        }
        (None, 1) => Data::F32(proto.floats.clone()),
        (None, 10) => Data::F32(proto.ints.iter().map(|x| half::from_fp16(*x as u16)).collect()),
        (None, 16) => Data::F32(proto.ints.iter().map(|x| half::from_bf16(*x as u16)).collect()),
        (None, 11) => Data::F64(proto.doubles.clone()),
        (None, _) => Data::Int(proto.ints.iter().map(|x| crate::eval::wrap(dtype, *x)).collect()),
    };
    let tensor = Tensor { dtype, shape: shape.clone(), data };
    if tensor.len() == count { Ok(tensor) } else { Err(wrong(tensor.len())) }
}
