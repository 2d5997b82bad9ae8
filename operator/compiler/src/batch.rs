//! Proof that a batch is its single runs: rows of a batch must not see each other. Only then may a gateway take a batch apart.
//!
//! The model is compiled for one row. Here it is imported once more with several, both are evaluated on the same seeded rows, and
//! every output of the batch must be the outputs of its rows side by side.

use ballast_bundle::{Batch, DataType, Digest, TensorSpec, Tolerance};

use crate::golden::Random;
use crate::import;
use crate::ir::{DType, Graph, Tensor};
use crate::{CompileRequest, InputOverride, cost};

/// Rows of the batch that is tried: with two, a mean over the batch could still be one row's.
const ROWS: usize = 3;
/// Batches that are tried, with rows of another kind each.
const TRIALS: u64 = 2;
/// Most work that the proof may be, in floating-point operations: a minute of the scalar evaluator.
const MAX_WORK: u64 = 60_000_000_000;
/// Most rows that a client may send at once.
const MAX_ROWS: u32 = 64;
/// What a whole batch may take on a gateway, inputs and outputs together, bytes.
const MAX_BATCH_BYTES: u64 = 64 << 20;

/// Whether the user says that inputs have a batch axis.
pub(crate) fn is_asked(inputs: &[InputOverride]) -> bool {
    inputs.iter().any(|i| i.batch_axis.is_some())
}

/// The batch axes of a model that was imported for one row. `Err` is a sentence for the user.
pub(crate) fn prove(request: &CompileRequest, single: &Graph) -> Result<Batch, String> {
    let names = single.inputs.iter().map(|id| single.value(*id).name.as_str());
    let axes: Vec<Option<usize>> = names
        .map(|name| request.inputs.iter().find(|o| o.name == name)?.batch_axis.map(|axis| axis as usize))
        .collect();
    let many = rows_of(request, single, &axes)?;
    let outputs = output_axes(single, &many)?;
    let work = cost::cost(single).flop.saturating_mul(2 * ROWS as u64);
    if work > MAX_WORK {
        return Err(format!(
            "the model is too large to show that its rows do not see each other ({:.0} GFLOP, at most {:.0}); leave batchAxis out \
             and send one row at a time",
            work as f64 / 1e9,
            MAX_WORK as f64 / 1e9
        ));
    }
    for trial in 0..if work * TRIALS > MAX_WORK { 1 } else { TRIALS } {
        one_batch(request, single, &many, &axes, &outputs, trial)?;
    }
    let bytes = |graph: &Graph| {
        let all = graph.inputs.iter().chain(&graph.outputs).map(|id| graph.value(*id));
        all.map(|v| (v.len() * v.dtype.size()) as u64).fold(0, u64::saturating_add)
    };
    let max = (MAX_BATCH_BYTES / bytes(single).max(1)).clamp(1, u64::from(MAX_ROWS)) as u32;
    let narrow = |axis: usize| u32::try_from(axis).unwrap_or(u32::MAX);
    Ok(Batch {
        inputs: axes.iter().map(|axis| axis.map(narrow)).collect(),
        outputs: outputs.into_iter().map(narrow).collect(),
        max,
    })
}

/// The model for several rows.
fn rows_of(request: &CompileRequest, single: &Graph, axes: &[Option<usize>]) -> Result<Graph, String> {
    let mut inputs = request.inputs.clone();
    for (id, axis) in single.inputs.iter().zip(axes) {
        let value = single.value(*id);
        let Some(axis) = axis else { continue };
        let mut shape: Vec<u64> = value.shape.iter().map(|d| *d as u64).collect();
        match shape.get_mut(*axis) {
            Some(extent @ 1) => *extent = ROWS as u64,
            Some(extent) => {
                return Err(format!(
                    "input {:?} has {extent} rows along batchAxis {axis}: a gateway runs one at a time, so write 1 there",
                    value.name
                ));
            }
            None => {
                return Err(format!(
                    "input {:?} of shape {:?} has no axis {axis}: batchAxis counts from 0",
                    value.name, value.shape
                ));
            }
        }
        match inputs.iter_mut().find(|o| o.name == value.name) {
            Some(known) => known.shape = Some(shape),
            None => {
                inputs.push(InputOverride { name: value.name.clone(), shape: Some(shape), ..InputOverride::default() })
            }
        }
    }
    let imported = import::import(&request.model, &inputs, &request.target.deny).map_err(|findings| {
        let why = findings.message();
        let first = why.lines().find(|line| line.starts_with("- ")).unwrap_or(&why);
        format!(
            "the model cannot be had for {ROWS} rows, so it has no batch to take apart; leave batchAxis out or export it with an \
             open batch dimension ({})",
            first.trim_start_matches("- ")
        )
    })?;
    let many = imported.graph;
    if many.inputs.len() != single.inputs.len() || many.outputs.len() != single.outputs.len() {
        return Err(format!("with {ROWS} rows the model has other inputs or outputs"));
    }
    for ((one, more), axis) in single.inputs.iter().zip(&many.inputs).zip(axes) {
        let (one, more) = (single.value(*one), many.value(*more));
        if one.name != more.name || (axis.is_none() && one.shape != more.shape) {
            return Err(format!(
                "input {:?} grows with the batch ({:?} for one row, {:?} for {ROWS}): give it a batchAxis too",
                one.name, one.shape, more.shape
            ));
        }
    }
    Ok(many)
}

/// Where each output grows.
fn output_axes(single: &Graph, many: &Graph) -> Result<Vec<usize>, String> {
    let outputs = single.outputs.iter().zip(&many.outputs).zip(&single.output_names);
    outputs
        .map(|((one, more), name)| {
            let (one, more) = (&single.value(*one).shape, &many.value(*more).shape);
            let grows: Vec<usize> = (0..one.len().max(more.len())).filter(|i| one.get(*i) != more.get(*i)).collect();
            match grows.as_slice() {
                [axis] if one.get(*axis) == Some(&1) && more.get(*axis) == Some(&ROWS) => Ok(*axis),
                _ => Err(format!(
                    "output {name:?} is not one row per row of the batch: {one:?} for one row, {more:?} for {ROWS}"
                )),
            }
        })
        .collect()
}

fn one_batch(
    request: &CompileRequest,
    single: &Graph,
    many: &Graph,
    axes: &[Option<usize>],
    outputs: &[usize],
    trial: u64,
) -> Result<(), String> {
    let mut random = Random::new(&Digest::of(&request.model));
    let make = |random: &mut Random, graph: &Graph, i: usize, kind: u64| {
        let value = graph.value(graph.inputs[i]);
        random.tensor(value.dtype, &value.shape, kind)
    };
    // What has no batch axis is the same for every row.
    let shared: Vec<Option<Tensor>> =
        axes.iter().enumerate().map(|(i, axis)| axis.is_none().then(|| make(&mut random, single, i, trial))).collect();
    let mut rows: Vec<Vec<Tensor>> = Vec::with_capacity(ROWS);
    for _ in 0..ROWS {
        let row = shared.iter().enumerate();
        rows.push(row.map(|(i, s)| s.clone().unwrap_or_else(|| make(&mut random, single, i, trial))).collect());
    }
    let run = |graph: &Graph, inputs: &[Tensor]| {
        crate::eval::evaluate(graph, inputs).map_err(|e| format!("the model cannot be run for the proof: {e}"))
    };
    let mut batch = Vec::with_capacity(axes.len());
    for (i, axis) in axes.iter().enumerate() {
        let value = many.value(many.inputs[i]);
        let bytes = match axis {
            None => rows[0][i].to_bytes(),
            Some(axis) => {
                let parts: Vec<Vec<u8>> = rows.iter().map(|row| row[i].to_bytes()).collect();
                ballast_bundle::batch::join(&spec(single, single.inputs[i]), *axis, &parts)
            }
        };
        batch.push(Tensor::from_bytes(value.dtype, value.shape.clone(), &bytes).ok_or("rows do not make a batch")?);
    }
    let together = run(many, &batch)?;
    for (n, row) in rows.iter().enumerate() {
        let alone = run(single, row)?;
        for (i, (alone, axis)) in alone.iter().zip(outputs).enumerate() {
            let spec = spec(single, single.outputs[i]);
            let part = ballast_bundle::batch::part(&spec, *axis, &together[i].to_bytes(), ROWS, n);
            let tolerance = &request.verification.tolerance;
            if let Some(element) = first_difference(alone.dtype, &alone.to_bytes(), &part, tolerance) {
                return Err(format!(
                    "rows of a batch see each other: output {:?} of row {n} is another one in a batch of {ROWS} than alone (element \
                     {element}); leave batchAxis out, or export the model for inference (batch normalisation in training mode \
                     does this)",
                    single.output_names[i]
                ));
            }
        }
    }
    Ok(())
}

fn spec(graph: &Graph, id: crate::ir::ValueId) -> TensorSpec {
    let value = graph.value(id);
    TensorSpec {
        name: value.name.clone(),
        datatype: value.dtype.datatype(),
        shape: value.shape.iter().map(|d| *d as u64).collect(),
    }
}

/// Where two tensors differ by more than is allowed.
fn first_difference(dtype: DType, alone: &[u8], part: &[u8], tolerance: &Tolerance) -> Option<usize> {
    if dtype.datatype() != DataType::Fp32 {
        let size = dtype.size();
        return (alone != part).then(|| alone.iter().zip(part).position(|(a, b)| a != b).unwrap_or(0) / size.max(1));
    }
    let floats = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>();
    let (alone, part) = (floats(alone), floats(part));
    let near = |(a, b): (&f32, &f32)| {
        let (a, b) = (f64::from(*a), f64::from(*b));
        a == b
            || (a.is_nan() && b.is_nan())
            || (a.is_finite() && (a - b).abs() <= tolerance.absolute + tolerance.relative * a.abs())
    };
    if alone.len() != part.len() {
        return Some(0);
    }
    alone.iter().zip(&part).position(|pair| !near(pair))
}
