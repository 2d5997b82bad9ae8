//! Programs over whole tensors.

use ballast_plan::Domain;
use ballast_plan::record::List;
use ballast_plan::step::{Elt, Operand, Wide};

use crate::ir::ValueId;

use super::fuse::Chain;
use super::shape::{Walk, broadcast, dense};
use super::{Gap, LowerError, Lowering, Source, plan_type};

impl Lowering<'_> {
    pub(super) fn chain(&mut self, chain: &Chain) -> Result<(), LowerError> {
        let program = &chain.program;
        let output = self.graph.value(chain.output);
        let shape = &output.shape;
        let strides = |id: &ValueId| broadcast(&self.graph.value(*id).shape, shape);
        let all: Vec<Vec<i64>> = std::iter::once(dense(shape)).chain(program.inputs.iter().map(strides)).collect();
        let walk = Walk::merged(shape, &all).ok_or_else(|| {
            let maker = self.graph.nodes.iter().find(|n| n.outputs.contains(&chain.output));
            LowerError::NotLowered(vec![Gap {
                operator: maker.map_or("Element-wise", |n| n.operator.as_str()).to_owned(),
                node: output.name.clone(),
                detail: "more than six dimensions that do not merge".into(),
            }])
        })?;
        let sources: Vec<Source> = program.inputs.iter().map(|&id| self.source(id)).collect();
        let out = self.target(chain.output);
        let step = Elt {
            program: self.builder.program(program.inputs.len(), program.registers, &program.code),
            dims: walk.dims,
            dtype: plan_type(output.dtype),
            ..Elt::default()
        };
        self.flop += (output.len() * program.code.len()) as u64;
        let types: Vec<_> = program.inputs.iter().map(|&id| self.graph.value(id).dtype).collect();
        // The result may lie over an operand that is read in the same order, element by element.
        let over = (0..sources.len())
            .find(|&i| walk.strides[i + 1] == walk.strides[0] && types[i].size() == output.dtype.size());
        let in_place = over.map(|i| sources[i]);
        let strides: Vec<_> = walk.strides[1..].to_vec();
        let domain = program.domain;
        self.push(&sources.clone(), out, 0, move |places, _| {
            let operand = |((source, &dtype), &strides): ((&Source, _), _)| Operand {
                at: source.at(places),
                dtype: plan_type(dtype),
                strides,
            };
            let operands: Vec<Operand> = sources.iter().zip(&types).zip(&strides).map(operand).collect();
            let elt = Elt { out: places.at(out), operands: List::new(&operands).unwrap_or_default(), ..step };
            vec![if domain == Domain::F32 { elt.into() } else { Wide { domain, elt }.into() }]
        });
        if let Some(source) = in_place {
            self.last_in_place(source);
        }
        Ok(())
    }

    /// The unit pushed last may write over this operand.
    pub(super) fn last_in_place(&mut self, source: Source) {
        if let Some(unit) = self.units.last_mut() {
            unit.in_place = source.buffer();
        }
    }
}
