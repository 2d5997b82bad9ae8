//! A few shapes that share weights: what each is imported with, and the proof that filling a short request up changes nothing.

use ballast_bundle::buckets::{Buckets, MAX_BUCKETS, Shapes, holds};
use ballast_bundle::{Contract, Golden, GoldenMatch, TensorSpec};

use crate::cost::Cost;
use crate::eval::evaluate;
use crate::ir::{Graph, Tensor, ValueId};
use crate::{CompileRequest, InputOverride};

/// Most work that the proof of padding may be, in floating-point operations: a minute of the scalar evaluator.
const MAX_WORK: u64 = 60_000_000_000;
/// Work that is spent on it, unless one vector for each pair of shapes is more.
const WORK: u64 = 4_000_000_000;

/// What the model is imported with, once for each shape; once as it is where there are no `shapes`.
pub(crate) fn inputs_of(inputs: &[InputOverride]) -> Result<Vec<Vec<InputOverride>>, String> {
    let mut counts = inputs.iter().filter(|o| !o.shapes.is_empty()).map(|o| (&o.name, o.shapes.len()));
    let Some((first, count)) = counts.next() else { return Ok(vec![inputs.to_vec()]) };
    if let Some((other, more)) = counts.find(|(_, more)| *more != count) {
        return Err(format!(
            "input {first:?} is given {count} shapes and input {other:?} {more}: the first of one goes with the first of the other, \
             and so on"
        ));
    }
    if count > MAX_BUCKETS {
        return Err(format!("input {first:?} is given {count} shapes; there may be {MAX_BUCKETS}"));
    }
    let mixed = inputs.iter().find(|o| o.batch_axis.is_some() || (!o.shapes.is_empty() && o.shape.is_some()));
    if let Some(mixed) = mixed {
        return Err(format!(
            "input {:?} has shape or batchAxis where shapes are given: write the whole shapes, and send one row at a time",
            mixed.name
        ));
    }
    if let Some(carried) = inputs.iter().find(|o| o.state.is_some()) {
        return Err(format!(
            "input {:?} has state where shapes are given: what a sequence carries has one shape, so write shape or shapes without state",
            carried.name
        ));
    }
    for input in inputs {
        let Some(padding) = &input.padding else { continue };
        let mask = inputs.iter().find(|o| o.name == padding.mask && o.name != input.name);
        if input.shapes.is_empty() || mask.is_none_or(|mask| mask.shapes.is_empty()) {
            return Err(format!(
                "input {:?} is filled up and hidden by {:?}: both need shapes, as {:?} has to say what is real",
                input.name, padding.mask, padding.mask
            ));
        }
    }
    let one = |n: usize| {
        let with = |o: &InputOverride| match o.shapes.get(n) {
            Some(shape) => InputOverride { shape: Some(shape.clone()), shapes: Vec::new(), padding: None, ..o.clone() },
            None => o.clone(),
        };
        inputs.iter().map(with).collect()
    };
    Ok((0..count).map(one).collect())
}

/// Whether graphs of all shapes are the same model to its clients.
pub(crate) fn alike(graphs: &[Graph]) -> Result<(), String> {
    let Some((first, rest)) = graphs.split_first() else { return Ok(()) };
    let face = |graph: &Graph| {
        let inputs = graph.inputs.iter().map(|id| graph.value(*id));
        let outputs = graph.outputs.iter().map(|id| graph.value(*id)).zip(&graph.output_names);
        let inputs: Vec<_> = inputs.map(|v| (v.name.clone(), v.dtype, v.shape.len())).collect();
        let outputs: Vec<_> = outputs.map(|(v, name)| (name.clone(), v.dtype, v.shape.len())).collect();
        (inputs, outputs)
    };
    let wanted = face(first);
    match rest.iter().position(|graph| face(graph) != wanted) {
        Some(n) => {
            Err(format!("with its shape number {} the model has other inputs or outputs than with the first", n + 2))
        }
        None => Ok(()),
    }
}

fn shape(graph: &Graph, id: ValueId) -> Vec<u64> {
    graph.value(id).shape.iter().map(|d| *d as u64).collect()
}

/// The shapes besides the first, for the contract.
pub(crate) fn buckets(request: &CompileRequest, graphs: &[(Graph, Cost)]) -> Option<Buckets> {
    let ((first, _), rest) = graphs.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let more = rest.iter().map(|(graph, _)| Shapes {
        inputs: graph.inputs.iter().map(|id| shape(graph, *id)).collect(),
        outputs: graph.outputs.iter().map(|id| shape(graph, *id)).collect(),
    });
    Some(Buckets {
        more: more.collect(),
        padding: first.inputs.iter().map(|id| padding_of(&request.inputs, &first.value(*id).name)).collect(),
    })
}

/// What an input is filled up with: a mask with nothing.
pub(crate) fn padding_of(inputs: &[InputOverride], name: &str) -> Option<i64> {
    let own = inputs.iter().find(|o| o.name == name)?.padding.as_ref().map(|p| p.value);
    own.or_else(|| inputs.iter().any(|o| o.padding.as_ref().is_some_and(|p| p.mask == name)).then_some(0))
}

/// Names of inputs that say what of others is real.
pub(crate) fn masks_of(inputs: &[InputOverride]) -> Vec<String> {
    inputs.iter().filter_map(|o| Some(o.padding.as_ref()?.mask.clone())).collect()
}

/// Whether padding can be what the contract says: numbers of each input's type, and none forgotten.
pub(crate) fn padding_fits(contract: &Contract) -> Result<(), String> {
    let Some(buckets) = &contract.buckets else { return Ok(()) };
    for (spec, value) in contract.inputs.iter().zip(&buckets.padding) {
        if let Some(value) = value.filter(|value| !holds(spec.datatype, *value)) {
            return Err(format!("{value} is no {:?}, which input {:?} is filled up with", spec.datatype, spec.name));
        }
    }
    if let Some((bare, with)) = contract.left_unpadded() {
        return Err(format!("input {bare:?} grows with {with:?}: give it padding too"));
    }
    let grows = |n: usize| !contract.larger_than(n).is_empty();
    if buckets.padding.iter().any(Option::is_some) && !(0..contract.entries()).any(grows) {
        return Err(
            "no shape can be filled up to another one: what has no padding differs between all of them".to_owned()
        );
    }
    Ok(())
}

/// Runs golden vectors as they are and filled up, by the reference evaluator: the answers must be the same. `goldens` are of the
/// graphs, one each.
pub(crate) fn prove_padding(contract: &Contract, graphs: &[(Graph, Cost)], goldens: &[Golden]) -> Result<(), String> {
    let pairs = (0..graphs.len()).flat_map(|small| contract.larger_than(small));
    let work = pairs.filter_map(|large| graphs.get(large)).map(|(_, cost)| cost.flop).fold(0, u64::saturating_add);
    if work > MAX_WORK {
        return Err(format!(
            "the model is too large to show that padding changes nothing ({:.0} GFLOP over all shapes, at most {:.0}); leave padding \
             out and send whole shapes",
            work as f64 / 1e9,
            MAX_WORK as f64 / 1e9
        ));
    }
    let most = usize::try_from(WORK / work.max(1)).unwrap_or(usize::MAX).max(1);
    each_filled_up(contract, goldens, most, |entry, inputs| {
        let (graph, _) = graphs.get(entry).ok_or("there is no such shape")?;
        let tensor = |(id, bytes): (&ValueId, &Vec<u8>)| {
            let value = graph.value(*id);
            Tensor::from_bytes(value.dtype, value.shape.clone(), bytes).ok_or("padding makes no tensor")
        };
        let inputs: Vec<Tensor> = graph.inputs.iter().zip(&inputs).map(tensor).collect::<Result<_, _>>()?;
        let outputs = evaluate(graph, &inputs).map_err(|e| format!("the model cannot be run for the proof: {e}"))?;
        Ok(outputs.iter().map(Tensor::to_bytes).collect())
    })
}

/// Golden vectors of every entry (`most` of each), filled up for every larger one that requests like them may take, answered by
/// `run` and cut back: they must be what they were.
pub(crate) fn each_filled_up(
    contract: &Contract,
    goldens: &[Golden],
    most: usize,
    mut run: impl FnMut(usize, Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, String>,
) -> Result<(), String> {
    for (small, golden) in goldens.iter().enumerate() {
        let mut own = contract.of_entry(small);
        own.verification.golden_match = GoldenMatch::Values;
        let sent: Vec<Vec<u64>> = own.inputs.iter().map(|t| t.shape.clone()).collect();
        for large in contract.larger_than(small) {
            let (inputs, _) = contract.entry(large);
            let as_is = contract.named(|i| own.inputs.get(i).map(|t| t.shape.as_slice()).unwrap_or_default());
            let filled = contract.named(|i| inputs.get(i).map(|t| t.shape.as_slice()).unwrap_or_default());
            let shapes = contract.outputs_for(large, &sent);
            if let Some((spec, shape)) = own.outputs.iter().zip(&shapes).find(|(spec, shape)| spec.shape != **shape) {
                return Err(format!(
                    "output {:?} has shape {:?} for {as_is}, and {shape:?} is left of it when that is filled up to {filled}: nothing \
                     says where it ends; leave padding out",
                    spec.name, spec.shape
                ));
            }
            for vector in 0..golden.len().min(most) {
                let asked: Option<Vec<&[u8]>> = own.inputs.iter().map(|t| golden.input(vector, &t.name)).collect();
                let asked = asked.ok_or_else(|| format!("golden vector {vector} lacks an input"))?;
                let answer = run(large, contract.filled_up(large, &sent, &asked))?;
                let cut: Vec<Vec<u8>> = answer
                    .iter()
                    .zip(&shapes)
                    .enumerate()
                    .map(|(o, (bytes, shape))| contract.cut_back(large, o, shape, bytes))
                    .collect();
                let pairs: Vec<(&TensorSpec, &[u8])> = own.outputs.iter().zip(cut.iter().map(Vec::as_slice)).collect();
                if let Some(wrong) = golden.check(vector, &pairs, &own).values {
                    return Err(format!(
                        "padding changes answers: with {as_is} filled up to {filled}, {wrong}; the model does not heed its mask \
                         everywhere, leave padding out"
                    ));
                }
            }
        }
    }
    Ok(())
}
