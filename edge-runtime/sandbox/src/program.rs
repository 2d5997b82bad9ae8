//! A program: code, plan, weights and contract, checked against each other and ready to be instantiated.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ballast_bundle::{DataType, Limits, TensorSpec};
use ballast_plan::{DType, Plan};

use crate::instance::Instance;
use crate::{Engine, Module, SandboxError};

/// Where the weights come from.
#[derive(Debug, Clone)]
pub enum Weights {
    /// Memory.
    Bytes(Arc<[u8]>),
    /// The already verified open file; read whole into each instance.
    File(Arc<File>),
}

impl Weights {
    /// Bytes.
    pub fn len(&self) -> Result<u64, SandboxError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(file) => Ok(file.metadata().map_err(|e| SandboxError::Weights(e.to_string()))?.len()),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> Result<bool, SandboxError> {
        Ok(self.len()? == 0)
    }

    /// Fills `place`, which is as long as the weights were.
    pub(crate) fn read(&self, place: &mut [u8]) -> Result<(), SandboxError> {
        match self {
            Self::Bytes(bytes) if bytes.len() == place.len() => place.copy_from_slice(bytes),
            Self::Bytes(bytes) => return Err(SandboxError::Weights(format!("{} bytes", bytes.len()))),
            Self::File(file) => file.read_exact_at(place, 0).map_err(|e| SandboxError::Weights(e.to_string()))?,
        }
        Ok(())
    }
}

/// What a bundle says of one model.
#[derive(Debug, Clone)]
pub struct ProgramSpec {
    /// `plan.bin`.
    pub plan: Arc<[u8]>,
    /// `weights.bin`.
    pub weights: Weights,
    /// The contract's inputs, in the order of entry 0.
    pub inputs: Vec<TensorSpec>,
    /// The contract's outputs, in the order of entry 0.
    pub outputs: Vec<TensorSpec>,
    /// The contract's limits.
    pub limits: Limits,
    /// Whether an output that is not finite is a fault.
    pub finite_outputs: bool,
}

/// A checked program. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Program {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub module: Module,
    pub spec: ProgramSpec,
    pub weights_bytes: u64,
    pub arena_bytes: u64,
    /// Inputs and outputs of the plan's entries after the first.
    pub more: Vec<(Vec<TensorSpec>, Vec<TensorSpec>)>,
}

impl Shared {
    /// Inputs and outputs by entry.
    pub fn entries(&self) -> impl Iterator<Item = (&[TensorSpec], &[TensorSpec])> {
        let first = (self.spec.inputs.as_slice(), self.spec.outputs.as_slice());
        std::iter::once(first).chain(self.more.iter().map(|(inputs, outputs)| (inputs.as_slice(), outputs.as_slice())))
    }
}

impl Program {
    /// A program for the runner: reads the plan and compares it with the contract and the weights.
    pub fn new(_engine: &Engine, module: &Module, spec: ProgramSpec) -> Result<Self, SandboxError> {
        let plan = Plan::parse(&spec.plan).map_err(|e| SandboxError::Plan(e.to_string()))?;
        let entry = plan.entries().next().ok_or_else(|| SandboxError::Plan("it has no entry".to_owned()))?;
        same_tensors("input", entry.inputs(), &spec.inputs)?;
        same_tensors("output", entry.outputs(), &spec.outputs)?;
        let weights = spec.weights.len()?;
        if weights < u64::from(plan.weights_bytes()) {
            return Err(SandboxError::Plan(format!(
                "the plan needs {} bytes of weights, and there are {weights}",
                plan.weights_bytes()
            )));
        }
        let more = plan.entries().skip(1).map(|e| (specs(e.inputs()), specs(e.outputs()))).collect();
        let arena = u64::from(plan.arena_bytes());
        Self::of(module, spec, arena, more)
    }

    /// A program for a guest that reads plans of its own; `arena_bytes` is what it is given to work in.
    pub fn with_arena(
        _engine: &Engine,
        module: &Module,
        spec: ProgramSpec,
        arena_bytes: u64,
    ) -> Result<Self, SandboxError> {
        Self::of(module, spec, arena_bytes, Vec::new())
    }

    fn of(
        module: &Module,
        spec: ProgramSpec,
        arena_bytes: u64,
        more: Vec<(Vec<TensorSpec>, Vec<TensorSpec>)>,
    ) -> Result<Self, SandboxError> {
        let weights_bytes = spec.weights.len()?;
        let all = more.iter().flat_map(|(inputs, outputs)| inputs.iter().chain(outputs));
        for tensor in spec.inputs.iter().chain(&spec.outputs).chain(all) {
            if tensor.bytes().is_none_or(|bytes| bytes > spec.limits.memory_bytes) {
                return Err(SandboxError::Plan(format!(
                    "tensor {} is larger than the memory limit of {} bytes",
                    crate::error::bounded(&tensor.name),
                    spec.limits.memory_bytes
                )));
            }
        }
        Ok(Self { shared: Arc::new(Shared { module: module.clone(), spec, weights_bytes, arena_bytes, more }) })
    }

    /// Whether the plan's entries after the first are those that the contract says, with its inputs and outputs.
    pub fn has_entries(&self, more: &[(Vec<TensorSpec>, Vec<TensorSpec>)]) -> Result<(), SandboxError> {
        let (has, wants) = (self.shared.more.len(), more.len());
        if has != wants {
            return Err(SandboxError::Plan(format!("it has {has} more shapes, and the contract {wants}")));
        }
        match self.shared.more.iter().zip(more).position(|(has, wants)| has != wants) {
            Some(n) => {
                Err(SandboxError::Plan(format!("inputs or outputs of its entry {} are not the contract's", n + 1)))
            }
            None => Ok(()),
        }
    }

    /// An instance that is loaded and waits for requests. Takes as long as copying the weights.
    pub fn instantiate(&self) -> Result<Instance, SandboxError> {
        Instance::new(self)
    }

    /// What it was made of.
    pub fn spec(&self) -> &ProgramSpec {
        &self.shared.spec
    }

    /// Bytes of memory of one instance, as [`crate::memory_needed`] counts them.
    pub fn memory_needed(&self) -> u64 {
        let shared = &self.shared;
        crate::memory_needed(shared.spec.plan.len() as u64, shared.weights_bytes, shared.arena_bytes)
    }
}

fn specs<'a>(tensors: impl Iterator<Item = ballast_plan::Tensor<'a>>) -> Vec<TensorSpec> {
    let spec = |t: ballast_plan::Tensor<'a>| TensorSpec {
        name: t.name.to_owned(),
        datatype: data_type(t.dtype),
        shape: t.dims().map(u64::from).collect(),
    };
    tensors.map(spec).collect()
}

fn same_tensors<'a>(
    kind: &str,
    mut plan: impl Iterator<Item = ballast_plan::Tensor<'a>>,
    contract: &[TensorSpec],
) -> Result<(), SandboxError> {
    for (index, want) in contract.iter().enumerate() {
        let has = plan.next().is_some_and(|tensor| {
            tensor.name == want.name
                && data_type(tensor.dtype) == want.datatype
                && tensor.dims().map(u64::from).eq(want.shape.iter().copied())
        });
        if !has {
            return Err(SandboxError::Plan(format!(
                "{kind} {index} of the plan is not {} {:?} {:?}",
                crate::error::bounded(&want.name),
                want.datatype,
                want.shape
            )));
        }
    }
    match plan.next() {
        None => Ok(()),
        Some(extra) => {
            Err(SandboxError::Plan(format!("the plan has one more {kind}: {}", crate::error::bounded(extra.name))))
        }
    }
}

const fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::Fp32,
        DType::F64 => DataType::Fp64,
        DType::F16 => DataType::Fp16,
        DType::BF16 => DataType::Bf16,
        DType::Bool => DataType::Bool,
        DType::U8 => DataType::Uint8,
        DType::U16 => DataType::Uint16,
        DType::U32 => DataType::Uint32,
        DType::U64 => DataType::Uint64,
        DType::I8 => DataType::Int8,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
    }
}
