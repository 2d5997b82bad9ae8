//! Inputs made static: by the model, by the user's overrides, by dimensions of one name, and last by a batch of 1.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::InputOverride;
use crate::ir::{DType, Data, Tensor, Value};
use crate::onnx::{self, Dimension, ValueInfo};

use super::{OpenInput, Scope, Walk, tensor};

/// Most inputs and most outputs, as the plan format has it.
pub(super) const MAX_TENSORS: usize = 64;

impl<'m> Walk<'m> {
    pub(super) fn inputs(&mut self, graph: &'m onnx::Graph<'m>, overrides: &[InputOverride], scope: &mut Scope) {
        // Before IR version 4 every constant was listed as an input too.
        let inputs: Vec<&ValueInfo> = graph.inputs.iter().filter(|i| !scope.contains_key(&i.name)).collect();
        if inputs.len() > MAX_TENSORS || graph.outputs.len() > MAX_TENSORS {
            self.findings.invalid.push(format!("a model can have {MAX_TENSORS} inputs and {MAX_TENSORS} outputs"));
            return;
        }
        for o in overrides {
            if !inputs.iter().any(|i| i.name == o.name) {
                let names: Vec<_> = inputs.iter().map(|i| format!("{:?}", i.name)).collect();
                self.findings.inputs.push(format!("the model has no input {:?}; it has {}", o.name, names.join(", ")));
            }
            if overrides.iter().filter(|p| p.name == o.name).count() > 1 {
                self.findings.inputs.push(format!("input {:?} is given twice", o.name));
            }
        }
        let given = |i: &ValueInfo| overrides.iter().find(|o| o.name == i.name);
        let named = self.named_dimensions(&inputs, given);
        for info in inputs {
            let Some(dtype) = self.element_type(info) else {
                scope.insert(info.name.clone(), None);
                continue;
            };
            let id = self.shape(info, given(info), &named).and_then(|shape| {
                match given(info).and_then(|o| o.value.as_ref()) {
                    Some(value) => self.fixed(info, tensor::computed(dtype), shape, value),
                    None => {
                        if shape.contains(&0) {
                            self.findings.types.insert(format!("input {:?} has a dimension of 0; a request has elements: give it another shape, or leave it out", info.name));
                            return None;
                        }
                        let value = Value { name: info.name.clone(), dtype, shape, constant: None };
                        let id = self.b.graph.add_value(value);
                        self.b.graph.inputs.push(id);
                        // Halves are stored only.
                        (self.b.label, self.b.operator) = (info.name.clone(), "Cast".to_owned());
                        let computed = self.b.cast(id, tensor::computed(dtype)).ok()?;
                        self.b.note_half(computed, dtype);
                        Some(computed)
                    }
                }
            });
            scope.insert(info.name.clone(), id);
        }
    }

    /// Extents of named dimensions that an override settles for all inputs.
    fn named_dimensions<'o>(
        &mut self,
        inputs: &[&'m ValueInfo],
        given: impl Fn(&ValueInfo) -> Option<&'o InputOverride>,
    ) -> BTreeMap<&'m str, usize> {
        let mut named = BTreeMap::new();
        for info in inputs {
            let (Some(dims), Some(shape)) = (&info.shape, given(info).and_then(|o| o.shape.as_ref())) else { continue };
            for (dim, extent) in dims.iter().zip(shape) {
                if let Dimension::Open(name) = dim
                    && !name.is_empty()
                    && let Ok(extent) = usize::try_from(*extent)
                    && named.insert(name.as_str(), extent).is_some_and(|before| before != extent)
                {
                    self.findings.inputs.push(format!("dimension {name:?} is given two extents"));
                }
            }
        }
        named
    }

    fn shape(
        &mut self,
        info: &ValueInfo,
        given: Option<&InputOverride>,
        named: &BTreeMap<&str, usize>,
    ) -> Option<Vec<usize>> {
        let quoted = format!("{:?}", info.name);
        let wish = given.and_then(|o| o.shape.as_deref());
        if let Some(wish) = wish {
            let fits = |dims: &[Dimension]| {
                dims.len() == wish.len()
                    && dims.iter().zip(wish).all(|(d, w)| match d {
                        Dimension::Value(v) => i128::from(*v) == i128::from(*w),
                        Dimension::Open(_) => true,
                    })
            };
            if !info.shape.as_deref().is_none_or(fits) {
                let model = super::findings::dimensions(info.shape.as_deref());
                self.findings
                    .inputs
                    .push(format!("input {quoted} is given the shape {wish:?}, the model says {model}"));
                return None;
            }
            let shape = wish.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<Vec<_>>>();
            return match shape.filter(|s| crate::shape::elements(s).is_ok()) {
                Some(shape) => Some(shape),
                None => {
                    self.findings.inputs.push(format!("input {quoted} is given a shape beyond 2 GiB: {wish:?}"));
                    None
                }
            };
        }
        let Some(dims) = &info.shape else {
            // One element is enough to say for an input without a shape that gets a value.
            if let Some([_]) = given.and_then(|o| o.value.as_deref()) {
                return Some(Vec::new());
            }
            self.findings.open.push(OpenInput { name: info.name.clone(), dims: None });
            return None;
        };
        let mut shape = Vec::with_capacity(dims.len());
        let mut assumed = false;
        for (i, dim) in dims.iter().enumerate() {
            let extent = match dim {
                Dimension::Value(v) => usize::try_from(*v).ok(),
                Dimension::Open(name) => named.get(name.as_str()).copied().or_else(|| {
                    // Where the user says that rows lie, one is what is compiled; along the first axis one is a guess.
                    let batch = given.and_then(|o| o.batch_axis).is_some_and(|axis| axis as usize == i);
                    assumed |= i == 0 && !batch;
                    (i == 0 || batch).then_some(1)
                }),
            };
            let Some(extent) = extent else {
                self.findings.open.push(OpenInput { name: info.name.clone(), dims: Some(dims.clone()) });
                return None;
            };
            shape.push(extent);
        }
        if assumed {
            self.note(format!(
                "input {quoted} leaves its first dimension open; it is taken as 1 (model.inputs can say otherwise: {{name: {}, shape: {shape:?}}})",
                info.name
            ));
        }
        if let Err(e) = crate::shape::elements(&shape) {
            self.findings.invalid.push(format!("input {quoted}: {e}"));
            return None;
        }
        Some(shape)
    }

    /// An input that the user fixed.
    fn fixed(
        &mut self,
        info: &ValueInfo,
        dtype: DType,
        shape: Vec<usize>,
        value: &[f64],
    ) -> Option<crate::ir::ValueId> {
        let count = shape.iter().product::<usize>();
        if value.len() != count && value.len() != 1 {
            self.findings.inputs.push(format!(
                "input {:?} of shape {shape:?} is given {} elements; give {count}, or 1 for all",
                info.name,
                value.len()
            ));
            return None;
        }
        let elements: Vec<f64> =
            (0..count).map(|i| value.get(i).or(value.first()).copied().unwrap_or_default()).collect();
        let data = Data::of(dtype, &elements);
        Some(self.b.graph.add_constant(info.name.clone(), Arc::new(Tensor { dtype, shape, data })))
    }
}
