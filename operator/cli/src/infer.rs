//! `ballast infer`: one answer, from the sandbox here or from a gateway.

use std::path::Path;

use anyhow::Context as _;
use ballast_bundle::golden::{Golden, MAX_GOLDEN_BYTES};
use ballast_bundle::{Contract, TensorSpec};
use hyper::Method;
use serde_json::{Value, json};

use crate::args::Infer;
use crate::bundles::Bundle;
use crate::exit::Failure;
use crate::fleet::text;
use crate::output::{Table, print};
use crate::tensors::{Given, numbers};
use crate::{compile, http, models, sandbox};

/// Values that a table shows of one output.
const SHOWN: usize = 10;

/// `infer`.
pub fn run(command: &Infer) -> Result<(), Failure> {
    let answer = if command.source.contains("://") { remote(command)? } else { local(command)? };
    print(command.output.format, &answer, table)
}

fn local(command: &Infer) -> Result<Value, Failure> {
    let path = Path::new(&command.source);
    let (plan, weights, contract) = if path.is_dir() {
        let bundle = Bundle::read(path)?;
        let contract = bundle.contract()?;
        (bundle.plan, bundle.weights, contract)
    } else {
        let request = models::request(path, models::host()?, &models::plain(&command.shapes), None, "0.0.0")?;
        let artifacts = compile::built(&request).map_err(|failure| match failure {
            Failure::No(Some(why)) => Failure::No(Some(format!("{}: {why}", path.display()))),
            Failure::BadInput(Some(why)) => Failure::BadInput(Some(format!("{}: {why}", path.display()))),
            other => other,
        })?;
        let contract: Contract = serde_json::from_slice(&artifacts.contract).context("the compiler's contract")?;
        (artifacts.plan, artifacts.weights, contract)
    };
    let inputs = inputs(command, &contract.inputs, &contract.outputs, |t| {
        contract.state_input(&t.name).and_then(|s| s.initial_bytes(t))
    })?;
    let answer = sandbox::run(&plan, &weights, &contract, &inputs)?;
    let outputs: Vec<Value> = contract
        .outputs
        .iter()
        .zip(&answer.outputs)
        .map(|(t, bytes)| json!({"name": t.name, "datatype": t.datatype, "shape": t.shape, "data": numbers(t.datatype, bytes)}))
        .collect();
    Ok(json!({
        "model_name": contract.model,
        "model_version": contract.version,
        "outputs": outputs,
        "parameters": {"compute_micros": u64::try_from(answer.compute.as_micros()).unwrap_or(u64::MAX)},
    }))
}

fn remote(command: &Infer) -> Result<Value, Failure> {
    let model = command.model.as_deref().ok_or_else(|| Failure::Failed("which model? add --model NAME".into()))?;
    let base = format!("/v2/models/{}", http::segment(model));
    let metadata = http::gateway(&command.source, Method::GET, &base, None)?;
    let specs = |key: &str| -> Result<Vec<TensorSpec>, Failure> {
        let tensors = metadata[key].as_array().map(Vec::as_slice).unwrap_or_default();
        // -1 is as many rows as one likes: this asks for one. Of several shapes golden vectors have the first.
        let first = &metadata["parameters"]["shapes"][0][key];
        let extent = |d: &Value| if *d == -1 { json!(1) } else { d.clone() };
        let spec = |t: &Value| {
            let own = t["name"].as_str().and_then(|name| first.get(name)).unwrap_or(&t["shape"]);
            let shape: Vec<Value> = own.as_array().into_iter().flatten().map(extent).collect();
            serde_json::from_value(json!({"name": t["name"], "datatype": t["datatype"], "shape": shape}))
        };
        let specs = tensors.iter().map(spec).collect::<Result<_, _>>();
        Ok(specs.with_context(|| format!("the gateway says of {model} what this version does not read"))?)
    };
    let tensors = specs("inputs")?;
    let given = inputs(command, &tensors, &specs("outputs")?, |_| None)?;
    let inputs: Vec<Value> = tensors
        .iter()
        .zip(&given)
        .map(|(t, bytes)| json!({"name": t.name, "datatype": t.datatype, "shape": t.shape, "data": numbers(t.datatype, bytes)}))
        .collect();
    let mut request = json!({"inputs": inputs});
    let config = http::gateway(&command.source, Method::GET, &format!("{base}/config"), None);
    if config.is_ok_and(|config| config.get("sequence_batching").is_some()) {
        // One request is a whole sequence; its name is nobody else's.
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let id = format!("ballast-infer-{}-{}", std::process::id(), time.as_nanos());
        request["parameters"] = json!({"sequence_id": id, "sequence_start": true, "sequence_end": true});
    }
    http::gateway(&command.source, Method::POST, &format!("{base}/infer"), Some(&request))
}

/// The bytes of every input, in the model's order; `without` has those of an input that may be left out.
fn inputs(
    command: &Infer,
    tensors: &[TensorSpec],
    outputs: &[TensorSpec],
    without: impl Fn(&TensorSpec) -> Option<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, Failure> {
    if let Some(path) = &command.golden {
        let bytes = models::read(path, MAX_GOLDEN_BYTES as u64)?;
        let golden = Golden::parse(&bytes, tensors, outputs).with_context(|| format!("{}", path.display()))?;
        let vector = command.vector;
        let of = |t: &TensorSpec| golden.input(vector, &t.name).map(<[u8]>::to_vec);
        let all: Option<Vec<_>> = tensors.iter().map(of).collect();
        return all
            .ok_or_else(|| Failure::Failed(format!("there is no vector {vector}: the file has {}", golden.len())));
    }
    let given: Vec<Given> = command.inputs.iter().map(|a| Given::parse(a)).collect::<anyhow::Result<_>>()?;
    if let Some(unknown) = given.iter().find(|g| tensors.iter().all(|t| t.name != g.name)) {
        return Err(Failure::Failed(format!("the model has no input {:?}; {}", unknown.name, wants(tensors))));
    }
    tensors
        .iter()
        .map(|t| {
            let missing = || Failure::Failed(format!("input {:?} is missing; {}", t.name, wants(tensors)));
            match given.iter().find(|g| g.name == t.name) {
                Some(found) => Ok(found.bytes(t)?),
                None => without(t).ok_or_else(missing),
            }
        })
        .collect()
}

fn wants(tensors: &[TensorSpec]) -> String {
    let one = |t: &TensorSpec| format!("--input {}=… ({:?} {:?})", t.name, t.datatype, t.shape);
    format!("it takes {}", tensors.iter().map(one).collect::<Vec<_>>().join(" "))
}

fn table(answer: &Value) -> String {
    let mut out = Table::new(&["OUTPUT", "TYPE", "SHAPE", "LARGEST", "VALUES"]);
    for output in answer["outputs"].as_array().into_iter().flatten() {
        let data = output["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut values: Vec<String> = data.iter().take(SHOWN).map(short).collect();
        if data.len() > SHOWN {
            values.push(format!("… ({} values)", data.len()));
        }
        out.row([
            text(output, "name"),
            text(output, "datatype"),
            text(output, "shape"),
            largest(data).map_or("-".into(), |i| format!("[{i}]")),
            values.join(" "),
        ]);
    }
    let parameters = &answer["parameters"];
    let mut last = format!("{} {}", text(answer, "model_name"), text(answer, "model_version"));
    if let Some(micros) = parameters["compute_micros"].as_u64() {
        last.push_str(&format!(", {:.2} ms in the sandbox", micros as f64 / 1000.0));
    }
    if let Some(by) = parameters["ballast_answered_by"].as_str() {
        last.push_str(&format!(", answered by {by}"));
    }
    format!("{out}\n{last}\n")
}

fn short(value: &Value) -> String {
    match value.as_f64() {
        Some(x) if !value.is_i64() && !value.is_u64() => {
            let text = format!("{x:.5}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    }
}

/// The index of the largest number; none where one is NaN.
fn largest(data: &[Value]) -> Option<usize> {
    let numbers: Option<Vec<f64>> = data.iter().map(Value::as_f64).collect();
    let numbers = numbers?;
    (0..numbers.len()).max_by(|a, b| numbers[*a].total_cmp(&numbers[*b]).then(b.cmp(a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_line_per_output() {
        let answer = json!({
            "model_name": "digits", "model_version": "2.0.0",
            "outputs": [
                {"name": "scores", "datatype": "FP32", "shape": [1, 3], "data": [0.1, 0.70000001, 0.2]},
                {"name": "broken", "datatype": "FP32", "shape": [2], "data": [1.0, "NaN"]},
                {"name": "labels", "datatype": "INT64", "shape": [12], "data": [0,1,2,3,4,5,6,7,8,9,10,11]},
            ],
            "parameters": {"compute_micros": 1234},
        });
        insta::assert_snapshot!(table(&answer), @r"
        OUTPUT  TYPE   SHAPE  LARGEST  VALUES
        scores  FP32   [1,3]  [1]      0.1 0.7 0.2
        broken  FP32   [2]    -        1 NaN
        labels  INT64  [12]   [11]     0 1 2 3 4 5 6 7 8 9 … (12 values)

        digits 2.0.0, 1.23 ms in the sandbox
        ");
    }
}
