//! State that a gateway carries from request to request of a sequence: which output becomes which input, and within what bounds.

use serde::{Deserialize, Serialize};

use crate::{Contract, DataType, TensorSpec, buckets};

/// Most sequences that any contract may allow at once.
pub const MAX_SEQUENCES: u32 = 65_536;
/// The longest that any contract may let a sequence be idle: a day, in milliseconds.
pub const MAX_IDLE_MILLIS: u64 = 24 * 3600 * 1000;
/// Most bytes of a sequence's name: Triton's limit.
pub const MAX_SEQUENCE_ID: usize = 128;
/// What a gateway keeps of a sequence beside its state: its name in two places with the bookkeeping around it, bytes.
pub const SEQUENCE_OVERHEAD: u64 = 1024;

/// When a carried input is what it was in the beginning again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Reset {
    /// With the first request of a sequence, and when another release takes over.
    #[default]
    OnSwap,
    /// With every request: clients leave the input out, and nothing is carried.
    PerRequest,
}

/// One input that clients do not send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StateInput {
    /// As the contract names it.
    pub input: String,
    /// The output that becomes the input of the sequence's next request; of the same shape and type.
    pub output: String,
    /// When it is reset.
    #[serde(default)]
    pub reset: Reset,
    /// What it is in the beginning: nothing for zeros, one number for all elements, or all of them, row-major.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub initial: Vec<i64>,
}

impl StateInput {
    /// Whether the beginning is one of the input's type and shape; nothing is allocated for it.
    pub fn initial_fits(&self, spec: &TensorSpec) -> bool {
        let all = self.initial.len() <= 1 || spec.elements() == Some(self.initial.len() as u64);
        all && spec.bytes().is_some() && self.initial.iter().all(|n| element(spec.datatype, *n).is_some())
    }

    /// The bytes that the input is in the beginning. `None`: there are too few or too many numbers, or one is not exactly a number
    /// of the input's type.
    pub fn initial_bytes(&self, spec: &TensorSpec) -> Option<Vec<u8>> {
        let bytes = usize::try_from(spec.bytes()?).ok()?;
        let one = |n: &i64| element(spec.datatype, *n);
        match self.initial.as_slice() {
            [] => Some(vec![0; bytes]),
            [n] => Some(one(n)?.repeat(bytes.checked_div(spec.datatype.size())?)),
            all if spec.elements() == Some(all.len() as u64) => {
                Some(all.iter().map(one).collect::<Option<Vec<_>>>()?.concat())
            }
            _ => None,
        }
    }
}

/// A whole number as an element, where it is one exactly.
fn element(datatype: DataType, n: i64) -> Option<Vec<u8>> {
    // Floats are exactly every whole number up to 2 to the bits of the fraction and one.
    let bits = match datatype {
        DataType::Fp64 => 53,
        DataType::Fp32 => 24,
        DataType::Fp16 => 11,
        DataType::Bf16 => 8,
        _ => 63,
    };
    let exact = n.unsigned_abs() <= 1 << bits && buckets::holds(datatype, n);
    exact.then(|| buckets::element(datatype, n))
}

/// Inputs that a gateway fills in by itself, and for how many sequences it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// In the order of the contract's inputs.
    pub inputs: Vec<StateInput>,
    /// Sequences that may be under way at once; more are refused.
    pub max_sequences: u32,
    /// A sequence that no request came for in so long is forgotten, milliseconds.
    pub max_idle_millis: u64,
}

impl State {
    /// Whether it speaks of this contract: inputs and outputs that there are, each once and of one shape and type, beginnings that
    /// are numbers of that type, sane bounds; and no rows, which are run apart from each other.
    pub fn fits(&self, contract: &Contract) -> bool {
        let input = |s: &StateInput| contract.inputs.iter().find(|t| t.name == s.input);
        let one = |(n, s): (usize, &StateInput)| {
            let output = contract.outputs.iter().find(|t| t.name == s.output);
            let alike = input(s).zip(output).is_some_and(|(i, o)| i.shape == o.shape && i.datatype == o.datatype);
            let again = self.inputs.iter().take(n).any(|other| other.input == s.input || other.output == s.output);
            alike && !again && contract.counted(&s.output).is_none() && input(s).is_some_and(|t| s.initial_fits(t))
        };
        !self.inputs.is_empty()
            && contract.batch.is_none()
            && (1..=MAX_SEQUENCES).contains(&self.max_sequences)
            && (1..=MAX_IDLE_MILLIS).contains(&self.max_idle_millis)
            && self.inputs.iter().enumerate().all(one)
    }

    /// Whether requests belong to sequences: something is carried from one to the next.
    pub fn needs_sequences(&self) -> bool {
        self.inputs.iter().any(|s| s.reset == Reset::OnSwap)
    }

    /// What is carried.
    pub fn carried(&self) -> impl Iterator<Item = &StateInput> {
        self.inputs.iter().filter(|s| s.reset == Reset::OnSwap)
    }

    /// Bytes of one sequence's state, where the contract has such inputs.
    pub fn bytes(&self, inputs: &[TensorSpec]) -> u64 {
        let of = |s: &StateInput| inputs.iter().find(|t| t.name == s.input).and_then(TensorSpec::bytes).unwrap_or(0);
        self.carried().map(of).fold(0, u64::saturating_add)
    }

    /// What all sequences take of a gateway's memory, bytes.
    pub fn memory(&self, inputs: &[TensorSpec]) -> u64 {
        if !self.needs_sequences() {
            return 0;
        }
        self.bytes(inputs).saturating_add(SEQUENCE_OVERHEAD).saturating_mul(u64::from(self.max_sequences))
    }
}

impl Contract {
    /// How an input is filled in, if clients do not send it.
    pub fn state_input(&self, input: &str) -> Option<&StateInput> {
        self.state.as_ref()?.inputs.iter().find(|s| s.input == input)
    }

    /// Whether an output is what becomes of an input; answers have it only where it is asked for.
    pub fn is_state_output(&self, output: &str) -> bool {
        self.state.as_ref().is_some_and(|state| state.inputs.iter().any(|s| s.output == output))
    }

    /// What its sequences take of a gateway's memory, bytes.
    pub fn state_memory(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.memory(&self.inputs))
    }

    /// What is filled in, without how and for how many: requests of one release are requests of another only if that is the same.
    pub fn state_names(&self) -> Vec<(&str, &str, Reset)> {
        let inputs = self.state.iter().flat_map(|state| &state.inputs);
        inputs.map(|s| (s.input.as_str(), s.output.as_str(), s.reset)).collect()
    }
}
