//! What is asked and what the right answer is: images, and the scores that an independent implementation
//! (ONNX Runtime, by `examples/digits/train.py`) gave for every release.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::Answer;
use crate::safetensors;

/// `|a − b| ≤ ABSOLUTE + RELATIVE · |b|`, the defaults of `spec.verification.tolerance`.
const ABSOLUTE: f32 = 1e-4;
const RELATIVE: f32 = 1e-3;

/// Larger requests go as raw bytes only: as JSON they would be several times as large, and gateways bound a request.
const MAX_JSON: usize = 64 << 10;
/// Different requests to a model whose answers nobody computed beforehand, and how many bytes they may take together.
const SEEDED: usize = 16;
const MAX_SEEDED: usize = 256 << 20;

/// One input of the served model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Input {
    /// As the model names it.
    pub name: String,
    /// By its Open Inference Protocol name.
    pub datatype: String,
    /// Static.
    pub shape: Vec<u64>,
}

/// Requests for one model and how to judge their answers.
#[derive(Debug)]
pub struct Traffic {
    /// The name it is served under.
    pub model: String,
    inputs: Vec<Input>,
    /// Per request: raw bytes per input.
    requests: Vec<Vec<Vec<u8>>>,
    output: String,
    /// Version → request → scores. Empty: nothing is known, and only that an answer is finite is checked.
    expected: BTreeMap<String, Vec<Vec<f32>>>,
}

/// What a right answer said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// `model_version`: the release that gave the answer.
    pub version: String,
    /// Whether the fallback answered for a candidate that failed.
    pub by_fallback: bool,
}

impl Traffic {
    /// The digits example's live images.
    pub fn digits(model: &str) -> Result<Self> {
        Self::from_file(model, &crate::workspace::digits().join("live.safetensors"))
    }

    fn from_file(model: &str, path: &Path) -> Result<Self> {
        let tensors = safetensors::read(path)?;
        let images = tensors.get("images").with_context(|| format!("{} has no images", path.display()))?;
        let requests: Vec<_> = images.rows().into_iter().map(|image| vec![image]).collect();
        let mut expected = BTreeMap::new();
        for (name, tensor) in &tensors {
            if let Some(version) = name.strip_prefix("expected/") {
                let scores = tensor.f32()?;
                ensure!(tensor.shape.first() == Some(&requests.len()), "{name}: one row per image is needed");
                let width = scores.len() / requests.len();
                expected.insert(version.to_owned(), scores.chunks(width).map(<[f32]>::to_vec).collect());
            }
        }
        let shape = images.shape.iter().skip(1).map(|d| *d as u64).collect();
        let input = Input { name: "image".to_owned(), datatype: "FP32".to_owned(), shape };
        Ok(Self { model: model.to_owned(), inputs: vec![input], requests, output: "scores".to_owned(), expected })
    }

    /// Seeded values for a model whose answers nobody computed beforehand. Floats are in 0..1, others zeros.
    pub fn seeded(model: &str, inputs: Vec<Input>, output: String) -> Result<Self> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let mut requests = Vec::new();
        let mut taken = 0;
        while requests.len() < SEEDED && (requests.is_empty() || taken < MAX_SEEDED) {
            let mut tensors = Vec::new();
            for input in &inputs {
                let size = size_of_type(&input.datatype).with_context(|| {
                    format!("the demo has no values for input {} of type {}", input.name, input.datatype)
                })?;
                let elements = usize::try_from(input.shape.iter().product::<u64>())?;
                tensors.push(match input.datatype.as_str() {
                    "FP32" => (0..elements).flat_map(|_| next().to_le_bytes()).collect(),
                    "FP64" => (0..elements).flat_map(|_| f64::from(next()).to_le_bytes()).collect(),
                    _ => vec![0; elements * size],
                });
            }
            taken += tensors.iter().map(Vec::len).sum::<usize>();
            requests.push(tensors);
        }
        Ok(Self { model: model.to_owned(), inputs, requests, output, expected: BTreeMap::new() })
    }

    /// How many different requests there are.
    pub fn count(&self) -> usize {
        self.requests.len()
    }

    /// Whether right answers are known.
    pub fn knows_answers(&self) -> bool {
        !self.expected.is_empty()
    }

    /// Body of request `index` with tensors as raw bytes behind the JSON; and the JSON's length.
    pub fn binary(&self, index: usize) -> (Vec<u8>, usize) {
        let tensors = &self.requests[index];
        let inputs: Vec<Value> = self
            .inputs
            .iter()
            .zip(tensors)
            .map(|(i, bytes)| {
                json!({"name": i.name, "datatype": i.datatype, "shape": i.shape, "parameters": {"binary_data_size": bytes.len()}})
            })
            .collect();
        let outputs = json!([{"name": self.output, "parameters": {"binary_data": true}}]);
        let mut body = json!({"id": index.to_string(), "inputs": inputs, "outputs": outputs}).to_string().into_bytes();
        let length = body.len();
        tensors.iter().for_each(|t| body.extend_from_slice(t));
        (body, length)
    }

    /// Body of request `index` as JSON alone; only for small FP32 inputs.
    pub fn json(&self, index: usize) -> Option<Vec<u8>> {
        let tensors = &self.requests[index];
        if tensors.iter().map(Vec::len).sum::<usize>() > MAX_JSON {
            return None;
        }
        let inputs: Option<Vec<Value>> = self
            .inputs
            .iter()
            .zip(tensors)
            .map(|(i, bytes)| {
                (i.datatype == "FP32")
                    .then(|| json!({"name": i.name, "datatype": i.datatype, "shape": i.shape, "data": floats(bytes)}))
            })
            .collect();
        Some(json!({"id": index.to_string(), "inputs": inputs?}).to_string().into_bytes())
    }

    /// Judges a 200 answer to request `index`; the error says what is wrong with it.
    pub fn judge(&self, index: usize, answer: &Answer) -> Result<Answered> {
        let (head, raw) = answer
            .body
            .split_at_checked(answer.json_length.unwrap_or(answer.body.len()))
            .context("the JSON's length lies")?;
        let head: Head = serde_json::from_slice(head).context("the answer is not an inference response")?;
        let version = head.model_version;
        let output = head
            .outputs
            .into_iter()
            .find(|o| o.name == self.output)
            .with_context(|| format!("no output {:?}", self.output))?;
        let elements: u64 = output.shape.iter().product();
        let (values, scores) = match output.data {
            Some(data) => (data.len(), data.iter().map(number).collect::<Option<Vec<f32>>>()),
            None => values(&output.datatype, raw)?,
        };
        ensure!(elements == values as u64, "shape {:?} and {values} values", output.shape);
        let scores = scores.with_context(|| format!("values of output {:?} are not numbers", self.output))?;
        ensure!(scores.iter().all(|x| x.is_finite()), "{version} answered numbers that are not finite");
        if self.knows_answers() {
            let expected = self
                .expected
                .get(&version)
                .with_context(|| format!("answered by {version:?}, which nobody released"))?;
            let expected = &expected[index];
            ensure!(expected.len() == scores.len(), "{} scores instead of {}", scores.len(), expected.len());
            let wrong = scores.iter().zip(expected).find(|(got, want)| !within_tolerance(**got, **want));
            if let Some((got, want)) = wrong {
                anyhow::bail!("{version} answered {got} where {want} is right (image {index})");
            }
        }
        Ok(Answered { version, by_fallback: head.parameters.ballast_answered_by == "fallback" })
    }
}

/// A NaN that was expected is no excuse: nothing is within tolerance of it.
fn within_tolerance(got: f32, want: f32) -> bool {
    (got - want).abs() <= ABSOLUTE + RELATIVE * want.abs()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// How many values `bytes` are, and those of them that could be NaN or infinite.
fn values(datatype: &str, bytes: &[u8]) -> Result<(usize, Option<Vec<f32>>)> {
    let size = size_of_type(datatype).with_context(|| format!("output of type {datatype}"))?;
    ensure!(bytes.len().is_multiple_of(size), "{} bytes are no {datatype} values", bytes.len());
    let numbers = match datatype {
        "FP32" => floats(bytes),
        "FP64" => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        // Exponents of ones are not finite; for the others only that matters.
        "FP16" => halves(bytes, 0x7c00),
        "BF16" => halves(bytes, 0x7f80),
        _ => Vec::new(),
    };
    Ok((bytes.len() / size, Some(numbers)))
}

fn halves(bytes: &[u8], exponent: u16) -> Vec<f32> {
    let finite = |b: &[u8; 2]| u16::from_le_bytes(*b) & exponent != exponent;
    bytes.as_chunks::<2>().0.iter().map(|b| if finite(b) { 0.0 } else { f32::NAN }).collect()
}

/// A value in JSON; a Boolean is as finite as a number.
fn number(value: &Value) -> Option<f32> {
    value.as_f64().map(|x| x as f32).or_else(|| value.as_bool().map(|b| f32::from(u8::from(b))))
}

/// Bytes per value; absent for `BYTES`, whose values have any length.
fn size_of_type(datatype: &str) -> Option<usize> {
    match datatype {
        "INT64" | "UINT64" | "FP64" => Some(8),
        "INT32" | "UINT32" | "FP32" => Some(4),
        "INT16" | "UINT16" | "FP16" | "BF16" => Some(2),
        "INT8" | "UINT8" | "BOOL" => Some(1),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Head {
    model_version: String,
    #[serde(default)]
    parameters: Parameters,
    outputs: Vec<Output>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Parameters {
    ballast_answered_by: String,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    datatype: String,
    shape: Vec<u64>,
    data: Option<Vec<Value>>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The right answer to a request, as a gateway gives it.
    pub fn right(traffic: &Traffic, version: &str, index: usize, binary: bool) -> Answer {
        answer(version, &traffic.expected[version][index], binary)
    }

    fn answer(version: &str, scores: &[f32], binary: bool) -> Answer {
        let mut output = json!({"name": "scores", "datatype": "FP32", "shape": [1, scores.len()]});
        let raw: Vec<u8> = scores.iter().flat_map(|s| s.to_le_bytes()).collect();
        if binary {
            output["parameters"] = json!({"binary_data_size": raw.len()});
        } else {
            output["data"] = json!(scores);
        }
        let mut body =
            json!({"model_name": "digits", "model_version": version, "outputs": [output]}).to_string().into_bytes();
        let json_length = binary.then_some(body.len());
        if binary {
            body.extend(raw);
        }
        Answer { status: 200, json_length, body }
    }

    #[test]
    fn only_the_answer_of_the_release_that_answered_is_right() {
        let traffic = Traffic::digits("digits").unwrap();
        for binary in [true, false] {
            let right_one = right(&traffic, "2.0.0", 0, binary);
            assert_eq!(
                traffic.judge(0, &right_one).unwrap(),
                Answered { version: "2.0.0".to_owned(), by_fallback: false }
            );
            assert!(traffic.judge(1, &right_one).is_err(), "another image's answer");
            let mut scores = traffic.expected["2.0.0"][0].clone();
            assert!(traffic.judge(0, &answer("1.0.0", &scores, binary)).is_err(), "another release's answer");
            assert!(traffic.judge(0, &answer("9.9.9", &scores, binary)).is_err(), "an unknown release");
            scores[3] += 0.01;
            assert!(traffic.judge(0, &answer("2.0.0", &scores, binary)).is_err(), "a score that is off");
        }
    }

    #[test]
    fn an_answer_that_is_not_finite_is_wrong_even_where_the_release_gives_one() {
        let traffic = Traffic::digits("digits").unwrap();
        let blank = traffic.expected["4.0.0"].iter().position(|s| s[0].is_nan()).expect("blank images");
        assert!(traffic.judge(blank, &right(&traffic, "4.0.0", blank, true)).is_err());
        assert!(traffic.judge(blank, &answer("4.0.0", &[0.1; 10], true)).is_err());
    }

    #[test]
    fn outputs_of_every_type_are_judged() {
        let input = Input { name: "x".to_owned(), datatype: "INT32".to_owned(), shape: vec![1, 3] };
        let traffic = Traffic::seeded("own", vec![input], "y".to_owned()).unwrap();
        let judge = |datatype: &str, shape: &[u64], raw: &[u8]| {
            let output = json!({"name": "y", "datatype": datatype, "shape": shape,
                "parameters": {"binary_data_size": raw.len()}});
            let head = json!({"model_version": "1", "outputs": [output]}).to_string().into_bytes();
            let body = [head.as_slice(), raw].concat();
            traffic.judge(0, &Answer { status: 200, json_length: Some(head.len()), body }).is_ok()
        };
        assert!(judge("INT64", &[1, 2], &[255; 16]) && judge("BOOL", &[3], &[0, 1, 1]) && judge("FP16", &[2], &[0; 4]));
        assert!(judge("FP64", &[1], &1.5f64.to_le_bytes()));
        assert!(!judge("INT64", &[1, 3], &[0; 16]), "too few");
        assert!(!judge("INT64", &[1, 2], &[0; 15]), "cut off");
        assert!(!judge("FP64", &[1], &f64::NAN.to_le_bytes()));
        assert!(!judge("FP32", &[1], &f32::INFINITY.to_le_bytes()));
        assert!(!judge("FP16", &[1], &0x7c00u16.to_le_bytes()) && !judge("BF16", &[1], &0xff80u16.to_le_bytes()));
        let json = |data: &str| {
            let body = format!(r#"{{"model_version":"1","outputs":[{{"name":"y","shape":[2],"data":{data}}}]}}"#);
            traffic.judge(0, &Answer { status: 200, json_length: None, body: body.into_bytes() }).is_ok()
        };
        assert!(json("[1,2]") && json("[true,false]") && !json("[1]") && !json(r#"["NaN",1]"#) && !json("[null,1]"));
    }

    #[test]
    fn large_inputs_go_as_bytes_only_and_unknown_types_are_said() {
        let input = |datatype: &str, shape: &[u64]| Input {
            name: "x".to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
        };
        let large = Traffic::seeded("own", vec![input("FP32", &[1, 3, 640, 640])], "y".to_owned()).unwrap();
        assert_eq!((large.json(0), large.binary(0).0.len() > 3 * 640 * 640 * 4), (None, true));
        let small = Traffic::seeded("own", vec![input("FP32", &[1, 3])], "y".to_owned()).unwrap();
        assert!(small.json(0).is_some());
        assert!(Traffic::seeded("own", vec![input("BYTES", &[1])], "y".to_owned()).is_err());
    }

    #[test]
    fn bodies_carry_every_pixel() {
        let traffic = Traffic::digits("digits").unwrap();
        let (body, length) = traffic.binary(5);
        assert_eq!(&body[length..], traffic.requests[5][0]);
        let value: Value = serde_json::from_slice(&traffic.json(5).unwrap()).unwrap();
        assert_eq!(value["inputs"][0]["data"].as_array().unwrap().len(), 64);
    }
}
