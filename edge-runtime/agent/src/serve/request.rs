//! An inference request: JSON, then raw tensors in order (the binary tensor extension), checked against the contract.

use std::time::Duration;

use ballast_bundle::{Contract, TensorSpec};
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::numbers;
use super::sequence::Ask;
use crate::loaded::Question;

/// Tensors that one request names at most.
const MAX_TENSORS: usize = 64;
/// An id is echoed; a UUID has 36 characters.
const MAX_ID: usize = 256;

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    inputs: Vec<WireInput<'a>>,
    #[serde(default)]
    outputs: Vec<WireOutput>,
}

#[derive(Deserialize)]
struct WireInput<'a> {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireOutput {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// The parameters that mean something here; others are ignored, as the protocol allows.
#[derive(Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    binary_data_size: Option<u64>,
    #[serde(default)]
    binary_data_output: Option<bool>,
    #[serde(default)]
    binary_data: Option<bool>,
    // Looked at where the model carries state; whatever they are elsewhere is ignored.
    #[serde(default, deserialize_with = "scalar")]
    sequence_id: Option<Value>,
    #[serde(default, deserialize_with = "scalar")]
    sequence_start: Option<Value>,
    #[serde(default, deserialize_with = "scalar")]
    sequence_end: Option<Value>,
    /// Microseconds; 0 is none.
    #[serde(default)]
    timeout: Option<u64>,
    /// Of extensions that are not there: better refused than answered as if they had not been asked for.
    #[serde(default)]
    shared_memory_region: Option<String>,
    #[serde(default)]
    classification: Option<u64>,
}

/// A value whose elements, if it has any, are not kept: they would take a hundred times the memory of their text.
fn scalar<'de, D: Deserializer<'de>>(read: D) -> Result<Option<Value>, D::Error> {
    let raw = <&RawValue>::deserialize(read)?;
    match raw.get().bytes().next() {
        Some(b'[') => Ok(Some(Value::Array(Vec::new()))),
        Some(b'{') => Ok(Some(Value::Object(serde_json::Map::new()))),
        _ => serde_json::from_str(raw.get()).map_err(serde::de::Error::custom),
    }
}

impl Parameters {
    /// Asks for something that is not there.
    fn refused(&self, tensor: &str) -> Result<(), String> {
        let what = match self {
            Self { shared_memory_region: Some(_), .. } => "shared memory; send and fetch tensors by value",
            Self { classification: Some(1..), .. } => "classification; ask for the scores themselves",
            _ => return Ok(()),
        };
        Err(format!("tensor {:?} asks for an extension that is not served: {what}", bounded(tensor)))
    }
}

/// Text that one element takes at most: a float of 64 bits in full has 25 characters, the rest is white space of clients
/// that indent.
const MAX_ELEMENT: u64 = 64;
/// Names, parameters and outputs.
const MAX_HEAD: u64 = 64 << 10;

/// Bytes of the longest request that a contract needs, be it in JSON or binary.
pub(crate) fn longest(contract: &Contract) -> u64 {
    let elements = |n: usize| {
        let (inputs, _) = contract.entry(n);
        inputs.iter().map(|t| t.elements().unwrap_or(u64::MAX)).fold(0, u64::saturating_add)
    };
    let elements = (0..contract.entries()).map(elements).max().unwrap_or(0);
    let rows = contract.batch.as_ref().map_or(1, |batch| u64::from(batch.max));
    elements.saturating_mul(rows).saturating_mul(MAX_ELEMENT).saturating_add(MAX_HEAD)
}

/// A request that fits its contract.
#[derive(Debug, PartialEq)]
pub(crate) struct Inference {
    /// Echoed.
    pub(crate) id: Option<String>,
    /// Inputs in the contract's order, all rows of each, filled up where they were shorter than their entry's; empty where the
    /// gateway fills them in.
    pub(crate) question: Question,
    /// How many rows the inputs with a batch axis have; 1 where the contract has none.
    pub(crate) rows: u64,
    /// Shapes of the answer, one per output of the contract; what lies beyond them answers what was filled up.
    pub(crate) shapes: Vec<Vec<u64>>,
    /// Index into the contract's outputs, and whether it is wanted as raw bytes.
    pub(crate) outputs: Vec<(usize, bool)>,
    /// Its place in a sequence, of a model that carries state.
    pub(crate) ask: Ask,
    /// After so long its client does not wait any more.
    pub(crate) timeout: Option<Duration>,
}

/// Reads a body; `header` is `Inference-Header-Content-Length` where the client sent it. `Err` is what a person reads.
pub(crate) fn read(body: &Bytes, header: Option<usize>, contract: &Contract) -> Result<Inference, String> {
    let length = header.unwrap_or(body.len());
    let json = body.get(..length).ok_or_else(|| {
        format!("Inference-Header-Content-Length is {length}, and the whole body has {} bytes", body.len())
    })?;
    let wire: Wire<'_> =
        serde_json::from_slice(json).map_err(|e| format!("the request is not what this call takes: {e}"))?;
    if wire.id.as_ref().is_some_and(|id| id.len() > MAX_ID) {
        return Err(format!("the id is longer than {MAX_ID} bytes"));
    }
    if wire.inputs.len() > MAX_TENSORS || wire.outputs.len() > MAX_TENSORS {
        return Err(format!("more than {MAX_TENSORS} tensors"));
    }
    let mut inputs: Vec<Option<Bytes>> = vec![None; contract.inputs.len()];
    let mut at = length;
    let mut rows: Option<(&str, u64)> = None;
    let bucket = contract.buckets.as_ref().map(|_| bucket(&wire.inputs, contract)).transpose()?;
    for input in &wire.inputs {
        let found = contract.inputs.iter().position(|t| t.name == input.name);
        let Some((n, place, spec)) = found.and_then(|n| Some((n, inputs.get_mut(n)?, contract.inputs.get(n)?))) else {
            return Err(format!(
                "there is no input {:?}; the model has {}",
                bounded(&input.name),
                names(&contract.inputs)
            ));
        };
        if contract.state_input(&spec.name).is_some() {
            return Err(format!("input {:?} is state, which the gateway fills in: leave it out", spec.name));
        }
        input.parameters.refused(&spec.name)?;
        if place.is_some() {
            return Err(format!("input {:?} is there twice", spec.name));
        }
        let sent = match &bucket {
            // It was compared with all of the contract's.
            Some(_) => TensorSpec { shape: input.shape.clone(), ..spec.clone() },
            None => with_rows(input, spec, contract)?,
        };
        let axis = contract.batch.as_ref().and_then(|b| b.inputs.get(n).copied().flatten());
        if let Some(axis) = axis {
            let found = sent.shape.get(axis as usize).copied().unwrap_or(1);
            match rows {
                Some((first, known)) if known != found => {
                    return Err(format!("input {:?} has {found} rows, and {first:?} has {known}", spec.name));
                }
                _ => rows = Some((spec.name.as_str(), found)),
            }
        }
        *place = Some(tensor(input, &sent, body, &mut at, contract.verification.finite_outputs)?);
    }
    if at != body.len() && header.is_some() {
        return Err(format!("{} bytes follow the last binary tensor", body.len() - at));
    }
    for (place, spec) in inputs.iter_mut().zip(&contract.inputs) {
        if contract.state_input(&spec.name).is_some() {
            *place = Some(Bytes::new());
        }
    }
    let given = inputs.iter().zip(&contract.inputs);
    let missing: Vec<_> = given.filter(|(i, _)| i.is_none()).map(|(_, spec)| spec.name.as_str()).collect();
    if !missing.is_empty() {
        return Err(format!("input {} is missing", missing.join(", ")));
    }
    let binary = wire.parameters.binary_data_output.unwrap_or(false);
    let mut outputs = Vec::new();
    for output in &wire.outputs {
        let n = contract.outputs.iter().position(|t| t.name == output.name);
        let n = n.ok_or_else(|| {
            format!("there is no output {:?}; the model has {}", bounded(&output.name), names(&contract.outputs))
        })?;
        output.parameters.refused(&output.name)?;
        if outputs.iter().any(|(other, _)| *other == n) {
            return Err(format!("output {:?} is asked for twice", bounded(&output.name)));
        }
        outputs.push((n, output.parameters.binary_data.unwrap_or(binary)));
    }
    if outputs.is_empty() {
        let told = |(_, spec): &(usize, &TensorSpec)| !contract.is_state_output(&spec.name);
        outputs = contract.outputs.iter().enumerate().filter(told).map(|(n, _)| (n, binary)).collect();
    }
    let ask = match &contract.state {
        Some(state) if state.needs_sequences() => {
            let given = &wire.parameters;
            Ask::read(given.sequence_id.as_ref(), given.sequence_start.as_ref(), given.sequence_end.as_ref())?
        }
        Some(_) | None => Ask::default(),
    };
    let rows = rows.map_or(1, |(_, rows)| rows);
    let timeout = wire.parameters.timeout.filter(|micros| *micros > 0).map(Duration::from_micros);
    let mut inputs: Vec<Bytes> = inputs.into_iter().flatten().collect();
    let (mut entry, mut answers): (_, Vec<_>) = (0, contract.outputs.iter().map(|t| t.shape.clone()).collect());
    if let Some(batch) = &contract.batch {
        for (shape, axis) in answers.iter_mut().zip(&batch.outputs) {
            shape.get_mut(*axis as usize).into_iter().for_each(|extent| *extent = rows);
        }
    }
    if let Some((smallest, shapes)) = bucket {
        entry = smallest;
        // What has its entry's shapes is asked as it came.
        if !contract.entry(entry).0.iter().map(|t| &t.shape).eq(&shapes) {
            inputs = contract.filled_up(entry, &shapes, &inputs).into_iter().map(Bytes::from).collect();
        }
        answers = contract.outputs_for(entry, &shapes);
    }
    Ok(Inference { id: wire.id, question: Question { entry, inputs }, rows, shapes: answers, outputs, ask, timeout })
}

/// The entry that answers, and the shapes that were sent, in the contract's order. Nothing of the data is read before they fit.
fn bucket(sent: &[WireInput<'_>], contract: &Contract) -> Result<(usize, Vec<Vec<u64>>), String> {
    let mut shapes = Vec::with_capacity(contract.inputs.len());
    for spec in &contract.inputs {
        let input = sent.iter().find(|input| input.name == spec.name);
        shapes.push(input.ok_or_else(|| format!("input {} is missing", spec.name))?.shape.clone());
    }
    Ok((contract.smallest_entry(&shapes)?, shapes))
}

/// The tensor that was sent: as the contract has it, or with so many rows along its batch axis.
fn with_rows(input: &WireInput<'_>, spec: &TensorSpec, contract: &Contract) -> Result<TensorSpec, String> {
    if input.shape == spec.shape {
        return Ok(spec.clone());
    }
    let sent = || input.shape.iter().take(16).collect::<Vec<_>>();
    let batch = contract.batch.as_ref();
    let axis = batch.and_then(|b| {
        let n = contract.inputs.iter().position(|t| t.name == spec.name)?;
        Some((b.inputs.get(n).copied().flatten()? as usize, u64::from(b.max)))
    });
    let Some((axis, max)) = axis else {
        return Err(format!("input {:?} has shape {:?}, and {:?} was sent", spec.name, spec.shape, sent()));
    };
    let same = input.shape.len() == spec.shape.len()
        && input.shape.iter().zip(&spec.shape).enumerate().all(|(i, (sent, is))| i == axis || sent == is);
    let rows = input.shape.get(axis).copied().unwrap_or(0);
    if !same || rows == 0 || rows > max {
        return Err(format!(
            "input {:?} has shape {:?} with 1 to {max} rows along axis {axis}, and {:?} was sent",
            spec.name,
            spec.shape,
            sent()
        ));
    }
    Ok(TensorSpec { shape: input.shape.clone(), ..spec.clone() })
}

fn tensor(
    input: &WireInput<'_>,
    spec: &TensorSpec,
    body: &Bytes,
    at: &mut usize,
    finite: bool,
) -> Result<Bytes, String> {
    if input.datatype != numbers::name(spec.datatype) {
        return Err(format!(
            "input {:?} is {}, and {} was sent",
            spec.name,
            numbers::name(spec.datatype),
            bounded(&input.datatype)
        ));
    }
    match (input.parameters.binary_data_size, input.data) {
        (Some(_), Some(_)) => Err(format!("input {:?} has both data and binary_data_size; send one", spec.name)),
        (None, None) => Err(format!("input {:?} has neither data nor binary_data_size", spec.name)),
        (None, Some(data)) => numbers::parse(data.get(), spec).map(Bytes::from),
        (Some(size), None) => {
            let want = spec.bytes().unwrap_or(u64::MAX);
            if size != want {
                return Err(format!("input {:?} has {want} bytes, and binary_data_size is {size}", spec.name));
            }
            let end = usize::try_from(size).ok().and_then(|size| at.checked_add(size)).filter(|end| *end <= body.len());
            let end = end.ok_or_else(|| {
                format!(
                    "the body ends after {} of the {size} bytes of input {:?}",
                    body.len().saturating_sub(*at),
                    spec.name
                )
            })?;
            let bytes = body.slice(*at..end);
            *at = end;
            // A release is judged by whether its answers are finite; what goes in must be, too.
            if finite && !numbers::is_finite(&bytes, spec.datatype) {
                return Err(format!("input {:?} has a value that is not a finite number", spec.name));
            }
            Ok(bytes)
        }
    }
}

fn names(specs: &[TensorSpec]) -> String {
    specs.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn bounded(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use ballast_bundle::{DataType, GoldenMatch, Limits, Tolerance, Verification};

    use super::*;

    pub(crate) fn contract() -> Contract {
        let tensor =
            |name: &str, datatype, shape: &[u64]| TensorSpec { name: name.to_owned(), datatype, shape: shape.to_vec() };
        Contract {
            format: 1,
            model: "m".to_owned(),
            version: "1".to_owned(),
            variant: "fp32".to_owned(),
            target: "x86-64".parse().unwrap(),
            abi: 1 << 16,
            batch: None,
            state: None,
            buckets: None,
            plan_major: 1,
            inputs: vec![tensor("a", DataType::Fp32, &[1, 2]), tensor("b", DataType::Uint8, &[3])],
            outputs: vec![tensor("y", DataType::Fp32, &[1]), tensor("z", DataType::Int64, &[1])],
            counted: vec![],
            limits: Limits { memory_bytes: 1 << 20, deadline_millis: 100, instances: 1, max_queue: 1 },
            verification: Verification {
                golden_match: GoldenMatch::Values,
                min_matching_per_mille: 1000,
                tolerance: Tolerance { absolute: 0.0, relative: 0.0 },
                finite_outputs: true,
                max_latency_p99_millis: None,
                user_golden: false,
            },
        }
    }

    const A: &str = r#"{"name":"a","shape":[1,2],"datatype":"FP32","data":[[1,2]]}"#;
    const B: &str = r#"{"name":"b","shape":[3],"datatype":"UINT8","data":[1,2,3]}"#;

    fn json(text: &str) -> Result<Inference, String> {
        read(&Bytes::copy_from_slice(text.as_bytes()), None, &contract())
    }

    #[test]
    fn order_and_outputs_are_the_clients_choice() {
        let both = json(&format!(r#"{{"id":"7","inputs":[{B},{A}],"outputs":[{{"name":"z"}}]}}"#)).unwrap();
        assert_eq!(both.id.as_deref(), Some("7"));
        assert_eq!(both.question.inputs[1], [1, 2, 3][..]);
        assert_eq!(both.outputs, [(1, false)]);
        assert_eq!(json(&format!(r#"{{"inputs":[{A},{B}]}}"#)).unwrap().outputs, [(0, false), (1, false)]);
    }

    #[test]
    fn binary_tensors_follow_the_json() {
        let head = r#"{"parameters":{"binary_data_output":true},"inputs":[
            {"name":"b","shape":[3],"datatype":"UINT8","parameters":{"binary_data_size":3}},
            {"name":"a","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}"#;
        let mut body = head.as_bytes().to_vec();
        body.extend([7, 8, 9]);
        body.extend([1.5f32, 2.0].iter().flat_map(|f| f.to_le_bytes()));
        let whole = |body: &[u8]| read(&Bytes::copy_from_slice(body), Some(head.len()), &contract());
        let good = whole(&body).unwrap();
        assert_eq!(good.question.inputs[1], [7, 8, 9][..]);
        assert_eq!(good.outputs, [(0, true), (1, true)]);
        assert!(whole(&body[..body.len() - 1]).unwrap_err().contains("the body ends after 7"));
        assert!(whole(&[&body[..], b"x"].concat()).unwrap_err().contains("1 bytes follow"));
        let at = body.len() - 4;
        body[at..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(whole(&body).unwrap_err().contains("not a finite number"));
        assert!(read(&Bytes::from_static(b"{}"), Some(9), &contract()).unwrap_err().contains("whole body"));
    }

    #[test]
    fn rows_are_counted_and_must_be_as_many_everywhere() {
        let mut contract = contract();
        contract.inputs[1].shape = vec![3, 1];
        contract.batch = Some(ballast_bundle::Batch { inputs: vec![Some(0), Some(1)], outputs: vec![0, 0], max: 4 });
        let read = |a: &str, b: &str| {
            let text =
                format!(r#"{{"inputs":[{{"name":"a","datatype":"FP32",{a}}},{{"name":"b","datatype":"UINT8",{b}}}]}}"#);
            read(&Bytes::from(text), None, &contract)
        };
        let two = read(r#""shape":[2,2],"data":[1,2,3,4]"#, r#""shape":[3,2],"data":[1,2,3,4,5,6]"#).unwrap();
        assert_eq!((two.rows, two.question.inputs[1].as_ref()), (2, &[1, 2, 3, 4, 5, 6][..]));
        let one = read(r#""shape":[1,2],"data":[1,2]"#, r#""shape":[3,1],"data":[1,2,3]"#).unwrap();
        assert_eq!(one.rows, 1);
        for (a, b, says) in [
            (
                r#""shape":[2,2],"data":[1,2,3,4]"#,
                r#""shape":[3,1],"data":[1,2,3]"#,
                "\"b\" has 1 rows, and \"a\" has 2",
            ),
            (r#""shape":[5,2],"data":[1]"#, "", "with 1 to 4 rows along axis 0, and [5, 2] was sent"),
            (r#""shape":[0,2],"data":[]"#, "", "with 1 to 4 rows"),
            (r#""shape":[2,3],"data":[1]"#, "", "and [2, 3] was sent"),
            (r#""shape":[2],"data":[1]"#, "", "and [2] was sent"),
            (r#""shape":[2,2],"data":[1,2,3]"#, "", "needs 4"),
        ] {
            let b = if b.is_empty() { r#""shape":[3,1],"data":[1,2,3]"# } else { b };
            let error = read(a, b).unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
    }

    #[test]
    fn what_is_no_sequence_is_not_kept() {
        let text = r#"{"sequence_id":[{"":0},{"":0}],"sequence_start":{"a":[1]},"sequence_end":null}"#;
        let read: Parameters = serde_json::from_str(text).unwrap();
        assert_eq!(read.sequence_id, Some(Value::Array(Vec::new())));
        assert_eq!(read.sequence_start, Some(Value::Object(serde_json::Map::new())));
        assert_eq!(read.sequence_end, None);
        let read: Parameters = serde_json::from_str(r#"{"sequence_id":"a","sequence_end":true}"#).unwrap();
        assert_eq!((read.sequence_id, read.sequence_end), (Some("a".into()), Some(true.into())));
    }

    #[test]
    fn every_mistake_is_named() {
        let long = format!(r#"{{"id":"{}","inputs":[{A},{B}]}}"#, "x".repeat(300));
        let deep = format!(
            r#"{{"inputs":[{A},{{"name":"b","shape":[3],"datatype":"UINT8","data":{}{}}}]}}"#,
            "[".repeat(90_000),
            "]".repeat(90_000)
        );
        let many = format!(r#"{{"inputs":[{}]}}"#, vec![A; 100].join(","));
        for (text, says) in [
            ("", "not what this call takes"),
            ("[1,2", "not what this call takes"),
            ("{}", "missing field `inputs`"),
            (r#"{"inputs":[]}"#, "input a, b is missing"),
            (&format!(r#"{{"inputs":[{A}]}}"#), "input b is missing"),
            (&format!(r#"{{"inputs":[{A},{A},{B}]}}"#), "twice"),
            (
                &format!(r#"{{"inputs":[{A},{B}],"outputs":[{{"name":"y"}},{{"name":"y"}}]}}"#),
                "output \"y\" is asked for twice",
            ),
            (&format!(r#"{{"inputs":[{A},{B}],"outputs":[{{"name":"q"}}]}}"#), "no output \"q\"; the model has y, z"),
            (
                r#"{"inputs":[{"name":"q","shape":[1],"datatype":"FP32","data":[1]}]}"#,
                "no input \"q\"; the model has a, b",
            ),
            (r#"{"inputs":[{"name":"a","shape":[2,1],"datatype":"FP32","data":[1,2]}]}"#, "[1, 2], and [2, 1]"),
            (r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP64","data":[1,2]}]}"#, "is FP32, and FP64"),
            (r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":[1]}]}"#, "1 elements"),
            (r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":[1,NaN]}]}"#, "not what this call takes"),
            (r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32"}]}"#, "neither data nor"),
            (
                r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":9}}]}"#,
                "has 8 bytes",
            ),
            (
                r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}"#,
                "ends after 0",
            ),
            (r#"{"inputs":[{"name":"a","shape":[1,-2],"datatype":"FP32","data":[1]}]}"#, "not what this call takes"),
            (
                r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","parameters":{"shared_memory_region":"r"}}]}"#,
                "\"a\" asks for an extension that is not served: shared memory",
            ),
            (
                &format!(r#"{{"inputs":[{A},{B}],"outputs":[{{"name":"y","parameters":{{"classification":2}}}}]}}"#),
                "\"y\" asks for an extension that is not served: classification",
            ),
            (&format!(r#"{{"inputs":[{A},{B}],"parameters":{{"timeout":-1}}}}"#), "not what this call takes"),
            (&long, "longer than 256"),
            (&deep, "0 elements"),
            (&many, "more than 64"),
        ] {
            let error = json(text).unwrap_err();
            assert!(error.contains(says), "{}: {error}", &text[..text.len().min(200)]);
            assert!(error.len() < 1_000);
        }
    }
}
