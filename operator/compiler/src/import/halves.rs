//! Which values are halves in the model. They are computed in f32, and what is a half already is not rounded by being cast to one.

use crate::ir::{DType, ValueId};
use crate::onnx::Node;

use super::build::Builder;
use super::tensor;

impl Builder {
    /// Notes that the model has `id` as `dtype`, if that is a half and the value is computed in f32.
    pub(super) fn note_half(&mut self, id: ValueId, dtype: DType) {
        if matches!(dtype, DType::F16 | DType::BF16) && self.dtype(id) == DType::F32 {
            self.halves.insert(id, dtype);
        }
    }

    /// The half that a node's floating-point outputs are: what a cast says, else that of all its floating-point inputs.
    pub(super) fn half_of(&self, node: &Node<'_>, inputs: &[Option<ValueId>]) -> Option<DType> {
        match node.op_type.as_str() {
            "Cast" => {
                let to = node.attributes.iter().find(|a| a.name == "to")?;
                tensor::stored(to.int as i32).filter(|dtype| matches!(dtype, DType::F16 | DType::BF16))
            }
            "CastLike" => self.halves.get(&(*inputs.get(1)?)?).copied(),
            _ => {
                let mut floats =
                    inputs.iter().flatten().filter(|id| self.dtype(**id) == DType::F32).map(|id| self.halves.get(id));
                let first = *floats.next()??;
                floats.all(|half| half == Some(&first)).then_some(first)
            }
        }
    }
}
