//! One loaded guest that answers requests, one at a time.

use std::time::{Duration, Instant};

use ballast_bundle::{DataType, TensorSpec};

use crate::guest::{Guest, LOAD_DEADLINE};
use crate::layout::Layout;
use crate::program::Program;
use crate::ticker::Deadline;
use crate::{Fault, SandboxError};

/// Where an entry's tensors are.
struct Places {
    inputs: Vec<u32>,
    outputs: Vec<u32>,
}

/// What a guest gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// One per output of the contract, in its order; row-major, little-endian.
    pub outputs: Vec<Vec<u8>>,
    /// Time in the sandbox: inputs copied in, computed, outputs copied out.
    pub compute: Duration,
}

/// A loaded guest. After any fault of the guest it is poisoned: drop it and take another.
pub struct Instance {
    program: Program,
    guest: Guest,
    /// By entry.
    entries: Vec<Places>,
    poisoned: bool,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("poisoned", &self.poisoned).finish_non_exhaustive()
    }
}

impl Instance {
    pub(crate) fn new(program: &Program) -> Result<Self, SandboxError> {
        let shared = &program.shared;
        let (spec, limit) = (&shared.spec, shared.spec.limits.memory_bytes);
        let mut guest = Guest::new(&shared.module, limit)?;
        let plan_bytes = spec.plan.len() as u64;
        let layout = Layout::new(guest.heap_base, plan_bytes, shared.weights_bytes, shared.arena_bytes, limit)?;
        guest.grow_once(layout.total)?;
        let load = SandboxError::Load;
        guest.bytes_mut("the plan", layout.plan, plan_bytes).map_err(load)?.copy_from_slice(&spec.plan);
        spec.weights.read(guest.bytes_mut("the weights", layout.weights, shared.weights_bytes).map_err(load)?)?;
        // Every length is below the total, which is below 2^32: nothing is cut off.
        let word = |n: u64| (n as u32).cast_signed();
        let parameters = (
            layout.plan.cast_signed(),
            word(plan_bytes),
            layout.weights.cast_signed(),
            word(shared.weights_bytes),
            layout.arena.cast_signed(),
            word(shared.arena_bytes),
        );
        let function = guest.load.clone();
        match guest.call(&function, parameters, LOAD_DEADLINE).map_err(load)? {
            0 => {}
            code => return Err(load(guest.status(code))),
        }
        let (input, output) = (guest.input.clone(), guest.output.clone());
        let mut entries = Vec::new();
        for (entry, (inputs, outputs)) in (0i32..).zip(shared.entries()) {
            let inputs = places(&mut guest, &input, "input", entry, inputs).map_err(load)?;
            let outputs = places(&mut guest, &output, "output", entry, outputs).map_err(load)?;
            entries.push(Places { inputs, outputs });
        }
        Ok(Self { program: program.clone(), guest, entries, poisoned: false })
    }

    /// Answers one request by the plan's first entry, as [`Instance::infer_entry`] does.
    pub fn infer(&mut self, inputs: &[&[u8]], deadline: Duration) -> Result<Answer, Fault> {
        self.infer_entry(0, inputs, deadline)
    }

    /// Answers one request. `inputs` are row-major and little-endian, one per input of that entry, in its order. The deadline counts
    /// from now, copying the inputs in included.
    pub fn infer_entry(&mut self, entry: usize, inputs: &[&[u8]], deadline: Duration) -> Result<Answer, Fault> {
        if self.poisoned {
            return Err(Fault::Poisoned);
        }
        let missing = || Fault::Request { message: format!("the plan has no entry {entry}") };
        let (specs, _) = self.program.shared.entries().nth(entry).ok_or_else(missing)?;
        fits(inputs, specs)?;
        // Set before the guest runs: a panic on the way leaves no instance that looks healthy.
        self.poisoned = true;
        let start = Instant::now();
        let deadline = self.guest.deadline(deadline);
        let outputs = self.run(entry, inputs, deadline)?;
        self.poisoned = false;
        Ok(Answer { outputs, compute: start.elapsed() })
    }

    /// Whether a fault has used it up.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    fn run(&mut self, entry: usize, inputs: &[&[u8]], deadline: Deadline) -> Result<Vec<Vec<u8>>, Fault> {
        let missing = || Fault::Abi { message: format!("it has no entry {entry}") };
        let program = self.program.clone();
        let (_, specs) = program.shared.entries().nth(entry).ok_or_else(missing)?;
        let places = self.entries.get(entry).ok_or_else(missing)?;
        for (index, (input, address)) in inputs.iter().zip(&places.inputs).enumerate() {
            self.guest.bytes_mut(&format!("input {index}"), *address, input.len() as u64)?.copy_from_slice(input);
        }
        let infer = self.guest.infer.clone();
        match self.guest.call_until(&infer, i32::try_from(entry).map_err(|_| missing())?, deadline)? {
            0 => {}
            code => return Err(self.guest.status(code)),
        }
        let finite_outputs = program.shared.spec.finite_outputs;
        let mut outputs = Vec::with_capacity(places.outputs.len());
        for (tensor, address) in specs.iter().zip(&places.outputs) {
            let bytes = self.guest.bytes(&tensor.name, *address, tensor.bytes().unwrap_or(u64::MAX))?;
            if finite_outputs && !is_finite(tensor.datatype, bytes) {
                return Err(Fault::NotFinite { output: crate::error::bounded(&tensor.name) });
            }
            outputs.push(bytes.to_vec());
        }
        Ok(outputs)
    }
}

/// Asks the guest where its tensors are. Memory never shrinks or moves, so that one check holds for its life.
fn places(
    guest: &mut Guest,
    function: &wasmtime::TypedFunc<(i32, i32), i32>,
    kind: &str,
    entry: i32,
    tensors: &[TensorSpec],
) -> Result<Vec<u32>, Fault> {
    let mut places = Vec::with_capacity(tensors.len());
    for (index, tensor) in (0i32..).zip(tensors) {
        let address = guest.look_up(function, (entry, index))?.cast_unsigned();
        if address == 0 {
            return Err(Fault::Abi { message: format!("it has no {kind} {index}") });
        }
        guest.bytes(&format!("{kind} {index}"), address, tensor.bytes().unwrap_or(u64::MAX))?;
        places.push(address);
    }
    Ok(places)
}

fn fits(inputs: &[&[u8]], contract: &[TensorSpec]) -> Result<(), Fault> {
    if inputs.len() != contract.len() {
        let message = format!("{} inputs, and the model takes {}", inputs.len(), contract.len());
        return Err(Fault::Request { message });
    }
    for (input, tensor) in inputs.iter().zip(contract) {
        if tensor.bytes() != Some(input.len() as u64) {
            let message = format!(
                "input {} has {} bytes, and {:?} {:?} takes {}",
                crate::error::bounded(&tensor.name),
                input.len(),
                tensor.datatype,
                tensor.shape,
                tensor.bytes().unwrap_or(u64::MAX)
            );
            return Err(Fault::Request { message });
        }
    }
    Ok(())
}

fn is_finite(datatype: DataType, bytes: &[u8]) -> bool {
    match datatype {
        DataType::Fp32 => bytes.as_chunks::<4>().0.iter().all(|b| f32::from_le_bytes(*b).is_finite()),
        DataType::Fp64 => bytes.as_chunks::<8>().0.iter().all(|b| f64::from_le_bytes(*b).is_finite()),
        // All bits of the exponent: infinite, or not a number.
        DataType::Fp16 => bytes.as_chunks::<2>().0.iter().all(|b| u16::from_le_bytes(*b) & 0x7c00 != 0x7c00),
        DataType::Bf16 => bytes.as_chunks::<2>().0.iter().all(|b| u16::from_le_bytes(*b) & 0x7f80 != 0x7f80),
        DataType::Bool
        | DataType::Uint8
        | DataType::Uint16
        | DataType::Uint32
        | DataType::Uint64
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64 => true,
    }
}
