//! What a compile worker returns is as hostile as the model that it read. Nothing is signed that does not hold here.

use ballast_bundle::{Contract, Golden, StateInput, Tally, TensorSpec};
use ballast_plan::Plan;

use crate::golden::accuracy;
use crate::{Accuracy, Artifacts, CompileRequest, InputOverride, VerdictReason, buckets};

/// Most that a contract's JSON may take.
const MAX_CONTRACT_BYTES: usize = 1 << 20;

/// Whether artifacts are sound in themselves and belong to the request. `Ok` has how the user's golden vectors are met.
pub(super) fn artifacts(request: &CompileRequest, artifacts: &Artifacts) -> Result<Option<Accuracy>, String> {
    let verdict = &artifacts.verdict;
    if !verdict.fits || verdict.reason != VerdictReason::Fits {
        return Err("it built a model that does not fit".to_owned());
    }
    if artifacts.contract.len() > MAX_CONTRACT_BYTES {
        return Err("the contract is too long".to_owned());
    }
    let contract: Contract =
        serde_json::from_slice(&artifacts.contract).map_err(|e| format!("the contract cannot be read: {e}"))?;
    let belongs = contract.model == request.model_name
        && contract.version == request.version
        && contract.variant == request.variant
        && contract.target == request.target.name;
    if !belongs {
        return Err("the contract is of another model, version, variant or target".to_owned());
    }
    let limits = &contract.limits;
    let within = limits.memory_bytes <= request.runtime.memory_limit.min(request.target.memory_bytes)
        && limits.instances == request.runtime.instances
        && limits.max_queue == request.runtime.max_queue
        && request.runtime.deadline_millis.is_none_or(|asked| limits.deadline_millis == asked);
    if !within {
        return Err("the contract's limits are not those that were asked for".to_owned());
    }
    let (asked, given) = (&request.verification, &contract.verification);
    let verified = given.golden_match == asked.golden_match
        && given.min_matching_per_mille == asked.min_matching_per_mille
        && given.tolerance == asked.tolerance
        && given.finite_outputs == asked.finite_outputs
        && given.max_latency_p99_millis == asked.max_latency_p99_millis
        && given.user_golden == request.golden.is_some();
    if !verified {
        return Err("the contract's verification is not the one that was asked for".to_owned());
    }
    let axes = |name: &str| request.inputs.iter().find(|o| o.name == name).and_then(|o| o.batch_axis);
    let batched = match &contract.batch {
        Some(batch) => {
            batch.fits(&contract) && contract.inputs.iter().zip(&batch.inputs).all(|(t, axis)| axes(&t.name) == *axis)
        }
        None => request.inputs.iter().all(|o| o.batch_axis.is_none()),
    };
    if !batched {
        return Err("the contract's batch axes are not those that were asked for".to_owned());
    }
    let asked = |name: &str| request.inputs.iter().find(|o| o.name == name).and_then(|o| o.state.as_ref());
    let carried = match &contract.state {
        Some(state) => {
            let limits = &request.runtime.sequences;
            let same = |s: &StateInput| {
                asked(&s.input).is_some_and(|a| a.output == s.output && a.reset == s.reset && a.initial == s.initial)
            };
            state.fits(&contract)
                && (state.max_sequences, state.max_idle_millis) == (limits.max, limits.max_idle_millis)
                && state.inputs.iter().all(same)
                && state.inputs.len() == request.inputs.iter().filter(|o| o.state.is_some()).count()
        }
        None => request.inputs.iter().all(|o| o.state.is_none()),
    };
    if !carried {
        return Err("the contract's state is not the one that was asked for".to_owned());
    }
    let shaped = buckets::inputs_of(&request.inputs)?;
    let bucketed = match &contract.buckets {
        Some(shipped) => {
            let asked = |t: &TensorSpec| buckets::padding_of(&request.inputs, &t.name);
            shipped.fits(&contract)
                && shaped.len() == contract.entries()
                && contract.inputs.iter().zip(&shipped.padding).all(|(t, padding)| asked(t) == *padding)
                && shaped.iter().enumerate().all(|(n, inputs)| has_shapes(&contract, n, inputs))
        }
        None => shaped.len() == 1,
    };
    if !bucketed {
        return Err("the contract's shapes are not those that were asked for".to_owned());
    }
    let shipped = Golden::of_entries(&artifacts.golden, &contract).map_err(|e| e.to_string())?;
    let accuracy = match (&request.golden, shipped.first()) {
        (Some(asked), Some(shipped)) => {
            let first = Golden::first_part(&artifacts.golden, &contract).map_err(|e| e.to_string())?;
            Some(users_golden(asked, &first, shipped, &contract.of_entry(0))?)
        }
        (Some(_), None) => return Err("it ships no golden vectors".to_owned()),
        (None, _) => None,
    };
    let plan = Plan::parse(&artifacts.plan).map_err(|e| e.to_string())?;
    if plan.entries().count() != contract.entries() {
        return Err("the plan has not an entry for every shape".to_owned());
    }
    if u64::from(plan.weights_bytes()) != artifacts.weights.len() as u64 {
        return Err(format!(
            "the plan has {} bytes of weights, and there are {}",
            plan.weights_bytes(),
            artifacts.weights.len()
        ));
    }
    Ok(accuracy)
}

/// Whether the inputs of an entry have the shapes that were asked for.
fn has_shapes(contract: &Contract, n: usize, asked: &[InputOverride]) -> bool {
    let (inputs, _) = contract.entry(n);
    inputs.iter().all(|t| {
        let shape = asked.iter().find(|o| o.name == t.name).and_then(|o| o.shape.as_ref());
        shape.is_none_or(|shape| *shape == t.shape)
    })
}

/// Whether what a bundle ships is the user's acceptance test, passed: every vector with its inputs and labels, and outputs that
/// meet what the user asks of them. The plan is then proved against those very outputs.
fn users_golden(asked: &[u8], bytes: &[u8], shipped: &Golden, contract: &Contract) -> Result<Accuracy, String> {
    let asked = Golden::of_contract(asked, contract)
        .and_then(|asked| asked.can_judge(contract).map(|()| asked))
        .map_err(|e| format!("it took golden vectors that cannot be used: {e}"))?;
    if asked.len() != shipped.len() {
        return Err(format!("the user gave {} golden vectors, and it ships {}", asked.len(), shipped.len()));
    }
    let mut outputs: Vec<Vec<u8>> = vec![Vec::new(); contract.outputs.len()];
    let mut tally = Tally::default();
    for vector in 0..asked.len() {
        if contract.inputs.iter().any(|t| asked.input(vector, &t.name) != shipped.input(vector, &t.name)) {
            return Err(format!("golden vector {vector} does not have the user's inputs"));
        }
        let pairs: Vec<(&TensorSpec, &[u8])> =
            contract.outputs.iter().filter_map(|t| Some((t, shipped.output(vector, &t.name)?))).collect();
        outputs.iter_mut().zip(&pairs).for_each(|(all, (_, one))| all.extend_from_slice(one));
        tally.add(asked.check_users(vector, &pairs, contract));
    }
    tally.judge_users(contract).map_err(|e| format!("its golden vectors do not pass the user's: {e}"))?;
    // The whole file is the user's with those outputs: labels too, and nothing beside it.
    if asked.with_outputs(contract, &outputs) != bytes {
        return Err("its golden vectors do not have the user's labels".to_owned());
    }
    Ok(accuracy(&tally, contract))
}
