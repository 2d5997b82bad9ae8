//! Graphs that run again and again.

use super::run;
use crate::ir::{DType, Data, Repeat, Tensor};

/// See [`Repeat`].
pub(super) fn repeat(repeat: &Repeat, inputs: &[&Tensor], outputs: &[(DType, Vec<usize>)]) -> Vec<Tensor> {
    let (first, rest) = inputs.split_at(repeat.carries);
    let (scans, captured) = rest.split_at(repeat.scans.len());
    let mut carries: Vec<Tensor> = first.iter().map(|t| (*t).clone()).collect();
    let mut stacked: Vec<Tensor> = outputs[repeat.carries..].iter().map(zeros).collect();
    for round in 0..repeat.count {
        if repeat.gated && carries[0].ints()[0] == 0 {
            break;
        }
        let rows: Vec<Tensor> =
            scans.iter().zip(&repeat.scans).map(|(t, backward)| row(t, repeat.row(round, *backward))).collect();
        let given: Vec<&Tensor> = carries.iter().chain(&rows).chain(captured.iter().copied()).collect();
        let mut made = run(&repeat.body, &given);
        let rows = made.split_off(repeat.carries);
        carries = made;
        for ((all, row), backward) in stacked.iter_mut().zip(&rows).zip(&repeat.stacked) {
            put(all, row, repeat.row(round, *backward));
        }
    }
    carries.into_iter().chain(stacked).collect()
}

fn zeros((dtype, shape): &(DType, Vec<usize>)) -> Tensor {
    let count = shape.iter().product();
    let data = match dtype {
        DType::F32 | DType::F16 | DType::BF16 => Data::F32(vec![0.0; count]),
        DType::F64 => Data::F64(vec![0.0; count]),
        _ => Data::Int(vec![0; count]),
    };
    Tensor { dtype: *dtype, shape: shape.clone(), data }
}

fn row(tensor: &Tensor, index: usize) -> Tensor {
    let shape = tensor.shape[1..].to_vec();
    let size: usize = shape.iter().product();
    let range = index * size..(index + 1) * size;
    let data = match &tensor.data {
        Data::F32(v) => Data::F32(v[range].to_vec()),
        Data::F64(v) => Data::F64(v[range].to_vec()),
        Data::Int(v) => Data::Int(v[range].to_vec()),
    };
    Tensor { dtype: tensor.dtype, shape, data }
}

fn put(all: &mut Tensor, row: &Tensor, index: usize) {
    let size = row.len();
    let range = index * size..(index + 1) * size;
    match (&mut all.data, &row.data) {
        (Data::F32(all), Data::F32(row)) => all[range].copy_from_slice(row),
        (Data::F64(all), Data::F64(row)) => all[range].copy_from_slice(row),
        (Data::Int(all), Data::Int(row)) => all[range].copy_from_slice(row),
        _ => {}
    }
}
