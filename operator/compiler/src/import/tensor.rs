//! Constants as they lie in the file, turned into tensors.

use crate::ir::{DType, Data, Tensor};
use crate::onnx;

/// What a `TensorProto.DataType` becomes. The halves and doubles of a model are computed in f32.
pub(crate) const fn dtype(data_type: i32) -> Option<DType> {
    Some(match data_type {
        1 | 10 | 11 | 16 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        9 => DType::Bool,
        12 => DType::U32,
        _ => return None,
    })
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

/// IEEE 754 half precision.
fn half(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    match exponent {
        // Zero and subnormals: fraction · 2⁻²⁴, exact in f32.
        0 => {
            let x = fraction as f32 / 16_777_216.0;
            if sign == 0 { x } else { -x }
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

fn bfloat(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
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
            let convert = if proto.data_type == 10 { half } else { bfloat };
            Data::F32(raw.as_chunks::<2>().0.iter().map(|c| convert(u16::from_le_bytes(*c))).collect())
        }
        (Some(raw), 11) => Data::F32(raw.as_chunks::<8>().0.iter().map(|c| f64::from_le_bytes(*c) as f32).collect()),
        (Some(raw), _) => {
            return Tensor::from_bytes(dtype, shape.clone(), raw).ok_or_else(|| wrong(raw.len() / dtype.size()));
        }
        (None, 1) => Data::F32(proto.floats.clone()),
        (None, 10) => Data::F32(proto.ints.iter().map(|x| half(*x as u16)).collect()),
        (None, 16) => Data::F32(proto.ints.iter().map(|x| bfloat(*x as u16)).collect()),
        (None, 11) => Data::F32(proto.doubles.iter().map(|x| *x as f32).collect()),
        (None, _) => Data::Int(proto.ints.iter().map(|x| crate::eval::wrap(dtype, *x)).collect()),
    };
    let tensor = Tensor { dtype, shape: shape.clone(), data };
    if tensor.len() == count { Ok(tensor) } else { Err(wrong(tensor.len())) }
}
