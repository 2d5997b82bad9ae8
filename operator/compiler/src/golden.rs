//! Golden vectors of a bundle: the user's, judged by the reference evaluator; or inputs seeded by the model's digest, with the
//! outputs that the evaluator gives.

use ballast_bundle::{Contract, DataType, Digest, Golden, Tally, TensorSpec, golden};

use crate::Accuracy;
use crate::eval::{evaluate, rounded};
use crate::ir::{DType, Data, Graph, Tensor};

/// Most work that making one golden file may be, in floating-point operations: minutes of the scalar evaluator.
const MAX_WORK: u64 = 300_000_000_000;
/// Vectors that are made for a small model.
pub(crate) const MADE: u64 = 8;
/// The same where several shapes have vectors of their own.
pub(crate) const MADE_OF_SEVERAL: u64 = 4;
/// Work that is spent on vectors of our own, unless one alone is more.
const MADE_WORK: u64 = 4_000_000_000;

/// Why there are no golden vectors.
pub(crate) enum Refusal {
    /// The file cannot be used.
    Invalid(String),
    /// The model does not do what it asks; how near it comes where that was measured.
    Mismatch(String, Option<Box<Accuracy>>),
}

/// What vectors add up to.
pub(crate) fn accuracy(tally: &Tally, contract: &Contract) -> Accuracy {
    let (absolute, relative) = tally.worst();
    Accuracy {
        vectors: tally.vectors(),
        matching: tally.matching(contract),
        compared: contract.verification.golden_match,
        needed_per_mille: contract.verification.min_matching_per_mille,
        worst_absolute: absolute.cloned(),
        worst_relative: relative.cloned(),
    }
}

/// What the golden file of one entry is made for.
pub(crate) struct Subject<'s> {
    pub(crate) graph: &'s Graph,
    /// Of this entry alone.
    pub(crate) contract: &'s Contract,
    /// The ONNX file, by which inputs are seeded.
    pub(crate) model: &'s [u8],
    /// Operations of one inference.
    pub(crate) flop: u64,
    /// Inputs that say what of others is real: made ones are 1 for some beginning of the tensor, and 0 behind it.
    pub(crate) masks: &'s [String],
    /// Bytes that the file may have.
    pub(crate) room: usize,
    /// Most vectors that are made.
    pub(crate) most: u64,
}

/// The golden file of an entry; with what the user's vectors said of the model.
pub(crate) fn golden(of: &Subject<'_>, user: Option<&[u8]>) -> Result<(Vec<u8>, Option<Accuracy>), Refusal> {
    match user {
        Some(bytes) => judged(of.graph, of.contract, bytes, of.flop).map(|(golden, accuracy)| (golden, Some(accuracy))),
        None => made(of).map(|golden| (golden, None)),
    }
}

fn run(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, Refusal> {
    evaluate(graph, inputs).map_err(|e| Refusal::Invalid(format!("The golden vectors do not fit the model: {e}.")))
}

fn all_finite(outputs: &[Tensor]) -> bool {
    outputs.iter().all(|t| t.floats().iter().all(|x| x.is_finite()) && t.doubles().iter().all(|x| x.is_finite()))
}

fn judged(graph: &Graph, contract: &Contract, bytes: &[u8], flop: u64) -> Result<(Vec<u8>, Accuracy), Refusal> {
    let invalid = |e: String| Refusal::Invalid(format!("The golden vectors cannot be used: {e}."));
    let golden = Golden::of_contract(bytes, contract).map_err(|e| invalid(e.to_string()))?;
    golden.can_judge(contract).map_err(|e| invalid(e.to_string()))?;
    let vectors = golden.len() as u64;
    if flop.saturating_mul(vectors) > MAX_WORK && vectors > 1 {
        let most = (MAX_WORK / flop.max(1)).max(1);
        return Err(invalid(format!("{vectors} are too many for a model of this size, give at most {most}")));
    }
    let mut stacked: Vec<Vec<u8>> = vec![Vec::new(); contract.outputs.len()];
    let mut tally = Tally::default();
    let mut not_finite = None;
    for vector in 0..golden.len() {
        let mut inputs = Vec::with_capacity(graph.inputs.len());
        for (id, spec) in graph.inputs.iter().zip(&contract.inputs) {
            let value = graph.value(*id);
            let tensor = golden
                .input(vector, &spec.name)
                .and_then(|bytes| Tensor::from_bytes(value.dtype, value.shape.clone(), bytes))
                .ok_or_else(|| invalid(format!("vector {vector} has no input {:?}", spec.name)))?;
            inputs.push(tensor);
        }
        let outputs = run(graph, &inputs)?;
        if contract.verification.finite_outputs && !all_finite(&outputs) {
            not_finite.get_or_insert(vector);
        }
        let bytes: Vec<Vec<u8>> = outputs.iter().map(Tensor::to_bytes).collect();
        let pairs: Vec<(&TensorSpec, &[u8])> =
            contract.outputs.iter().zip(&bytes).map(|(spec, b)| (spec, b.as_slice())).collect();
        tally.add(golden.check_users(vector, &pairs, contract));
        stacked.iter_mut().zip(&bytes).for_each(|(place, value)| place.extend_from_slice(value));
    }
    let accuracy = accuracy(&tally, contract);
    let mismatch = |message| Refusal::Mismatch(message, Some(Box::new(accuracy.clone())));
    tally
        .judge_users(contract)
        .map_err(|e| mismatch(format!("The model does not do what the golden vectors ask: {e}.")))?;
    if let Some(vector) = not_finite {
        return Err(mismatch(format!(
            "The model answers golden vector {vector} with a number that is not finite; verification.finiteOutputs forbids it."
        )));
    }
    Ok((golden.with_outputs(contract, &stacked), accuracy))
}

fn made(of: &Subject<'_>) -> Result<Vec<u8>, Refusal> {
    let Subject { graph, contract, flop, .. } = *of;
    let bytes = |specs: &[TensorSpec]| specs.iter().filter_map(TensorSpec::bytes).sum::<u64>();
    let each = (bytes(&contract.inputs) + bytes(&contract.outputs)).max(1);
    // The header takes less than 64 KiB of the limit with 64 inputs and outputs.
    let fit = (of.room as u64).saturating_sub(1 << 16) / each;
    if fit == 0 {
        let left = match of.room {
            golden::MAX_GOLDEN_BYTES => String::new(),
            room => format!(", of which {room} are left for this shape: give fewer golden vectors, or fewer shapes"),
        };
        return Err(Refusal::Invalid(format!(
            "Inputs and outputs of one inference are {each} bytes; golden vectors hold at most {}{left}.",
            golden::MAX_GOLDEN_BYTES
        )));
    }
    let wanted = of.most.min(fit).min(MADE_WORK / flop.max(1)).max(1);
    let mut random = Random::new(&Digest::of(of.model));
    let mut inputs: Vec<Vec<u8>> = vec![Vec::new(); contract.inputs.len()];
    let mut outputs: Vec<Vec<u8>> = vec![Vec::new(); contract.outputs.len()];
    let mut count = 0;
    // Some models are not finite on some inputs; what gateways check must be.
    for attempt in 0..2 * wanted {
        if count == wanted {
            break;
        }
        let tensors: Vec<Tensor> = graph
            .inputs
            .iter()
            .map(|id| {
                let value = graph.value(*id);
                if of.masks.contains(&value.name) {
                    mask(value.dtype, &value.shape, attempt)
                } else {
                    random.tensor(value.dtype, &value.shape, attempt)
                }
            })
            .collect();
        let results = run(graph, &tensors)?;
        if !all_finite(&results) {
            continue;
        }
        count += 1;
        inputs.iter_mut().zip(&tensors).for_each(|(place, t)| place.extend(t.to_bytes()));
        outputs.iter_mut().zip(&results).for_each(|(place, t)| place.extend(t.to_bytes()));
    }
    if count == 0 {
        return Err(Refusal::Mismatch(
            "The model answers random inputs with numbers that are not finite; give golden vectors of your own \
             (verification.golden)."
                .to_owned(),
            None,
        ));
    }
    let stack = |kind: &str, specs: &[TensorSpec]| -> Vec<(String, DataType, Vec<u64>)> {
        let shape = |s: &TensorSpec| [&[count], s.shape.as_slice()].concat();
        specs.iter().map(|s| (format!("{kind}/{}", s.name), s.datatype, shape(s))).collect()
    };
    let named = stack("inputs", &contract.inputs).into_iter().chain(stack("outputs", &contract.outputs));
    let tensors: Vec<(String, DataType, Vec<u64>, &[u8])> =
        named.zip(inputs.iter().chain(&outputs)).map(|((n, d, s), bytes)| (n, d, s, bytes.as_slice())).collect();
    Ok(golden::write(&tensors))
}

/// Ones, by turns everywhere and in the first half of the last axis; zeros behind them.
fn mask(dtype: DType, shape: &[usize], attempt: u64) -> Tensor {
    let row = shape.last().copied().unwrap_or(1);
    let real = if attempt.is_multiple_of(2) { row } else { row.div_ceil(2) };
    let cells = (0..shape.iter().product::<usize>()).map(|n| i64::from(n % row.max(1) < real));
    let data = match dtype {
        DType::F32 | DType::F16 | DType::BF16 => Data::F32(cells.map(|n| n as f32).collect()),
        DType::F64 => Data::F64(cells.map(|n| n as f64).collect()),
        _ => Data::Int(cells.collect()),
    };
    Tensor { dtype, shape: shape.to_vec(), data }
}

/// splitmix64 (Steele, Lea, Flood 2014), seeded by a digest.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: &Digest) -> Self {
        Self(seed.as_bytes().first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b)))
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..1, 24 bits, exact.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }

    /// By turns like images (0..1), like centred features (−2..2), and like bytes (0..256).
    fn float(&mut self, kind: u64) -> f32 {
        match kind % 3 {
            0 => self.unit(),
            1 => self.unit() * 4.0 - 2.0,
            _ => (self.unit() * 256.0).floor(),
        }
    }

    pub(crate) fn tensor(&mut self, dtype: DType, shape: &[usize], kind: u64) -> Tensor {
        let count = 0..shape.iter().product::<usize>();
        let data = match dtype {
            DType::F32 | DType::F16 | DType::BF16 => {
                Data::F32(count.map(|_| rounded(dtype, self.float(kind))).collect())
            }
            DType::F64 => Data::F64(count.map(|_| self.float(kind).into()).collect()),
            DType::Bool => Data::Int(count.map(|_| (self.next() & 1) as i64).collect()),
            DType::I8 => Data::Int(count.map(|_| (self.next() & 127) as i64).collect()),
            DType::U8 | DType::U16 | DType::I16 | DType::U32 | DType::I32 | DType::U64 | DType::I64 => {
                Data::Int(count.map(|_| (self.next() & 255) as i64).collect())
            }
        };
        Tensor { dtype, shape: shape.to_vec(), data }
    }
}
