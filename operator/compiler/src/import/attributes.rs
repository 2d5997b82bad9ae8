//! What is read of a node's attributes, and that nothing is passed over: an attribute that no one read changes what the node
//! means, and is refused by name.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use crate::onnx::{Attribute, Node};

use super::call::Given;

/// The kinds that `AttributeProto` has, as people call them.
fn kind_name(kind: i32) -> &'static str {
    match kind {
        1 => "a float",
        2 => "an integer",
        3 => "a string",
        4 => "a tensor",
        5 => "a graph",
        6 => "a list of floats",
        7 => "a list of integers",
        8 => "a list of strings",
        9 => "a list of tensors",
        10 => "a list of graphs",
        11 | 12 => "sparse",
        13 | 14 => "a type",
        _ => "of an unknown kind",
    }
}

/// `AttributeProto.AttributeType`, those that operators here have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub(crate) enum Kind {
    Float = 1,
    Int = 2,
    Text = 3,
    Tensor = 4,
    Floats = 6,
    Ints = 7,
    Texts = 8,
}

/// What was asked of one node's attributes.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    names: RefCell<BTreeSet<String>>,
    wrong: RefCell<Option<String>>,
    /// Attributes of the node that were found, however often.
    found: Cell<usize>,
}

impl Asked {
    /// The node's attribute, or what the function's caller gave for it.
    pub(crate) fn find<'m>(
        &self,
        node: &'m Node<'m>,
        given: Option<&Given<'m>>,
        name: &str,
    ) -> Option<&'m Attribute<'m>> {
        let attribute = node.attributes.iter().find(|a| a.name == name)?;
        if self.names.borrow_mut().insert(name.to_owned()) {
            self.found.set(self.found.get() + 1);
        }
        resolve(attribute, given)
    }

    /// One of another kind is noted, and as good as none.
    pub(crate) fn check<'m>(&self, attribute: &'m Attribute<'m>, kind: Kind) -> Option<&'m Attribute<'m>> {
        // Files of the first IR versions do not say.
        if attribute.kind == 0 || attribute.kind == kind as i32 {
            return Some(attribute);
        }
        let wanted = kind_name(kind as i32);
        let text =
            format!("its attribute {:?} is {}; {wanted} was expected", attribute.name, kind_name(attribute.kind));
        self.wrong.borrow_mut().get_or_insert(text);
        None
    }

    /// An attribute that is not what it should be.
    pub(crate) fn wrong(&self) -> Option<String> {
        self.wrong.borrow().clone()
    }

    /// The first attribute that is there, was not asked for and may mean something.
    pub(crate) fn passed_over<'m>(&self, node: &'m Node<'m>, given: Option<&Given<'m>>) -> Option<&'m str> {
        if self.found.get() == node.attributes.len() {
            return None;
        }
        let names = self.names.borrow();
        let open = |a: &&Attribute<'_>| !names.contains(&a.name) && resolve(a, given).is_some();
        let mut left = node.attributes.iter().filter(open).map(|a| a.name.as_str());
        left.find(|name| !means_nothing(&node.op_type, name))
    }
}

fn resolve<'m>(attribute: &'m Attribute<'m>, given: Option<&Given<'m>>) -> Option<&'m Attribute<'m>> {
    if attribute.reference.is_empty() { Some(attribute) } else { given?.get(&attribute.reference).copied() }
}

/// Attributes that may be passed over: what they say changes no answer, or only in a form that has not been asked for.
fn means_nothing(operator: &str, attribute: &str) -> bool {
    match (operator, attribute) {
        // The random numbers of training; without training there are none.
        ("Dropout", "seed" | "ratio") => true,
        // What sums are computed in: f32, whatever is stored.
        (_, "stash_type") => true,
        // The weights say it.
        ("LSTM" | "GRU" | "RNN", "hidden_size") => true,
        // How much is computed at once.
        ("LinearAttention", "chunk_size") => true,
        // For conversions to types of 8 and fewer bits with a fraction, which are refused.
        ("Cast" | "CastLike" | "QuantizeLinear", "saturate" | "round_mode") => true,
        // What the probabilities are calibrated by, of which the first half was not there.
        ("SVMClassifier", "prob_b") => true,
        // How it was trained: labels and scores are the same.
        ("LinearClassifier", "multi_class") => true,
        // How often training went through a node.
        (
            "TreeEnsemble" | "TreeEnsembleClassifier" | "TreeEnsembleRegressor",
            "nodes_hitrates" | "nodes_hitrates_as_tensor",
        ) => true,
        // Statistics of training.
        ("BatchNormalization", "momentum") => true,
        // Any order will do, or the sorted one is it.
        ("TopK", "sorted") => true,
        // Of what this form of the operator has not: an empty optional's type, indices, several scales, flat heads, a mask, a
        // matrix, mappings to and from another type.
        ("Optional", "type")
        | ("MaxPool", "storage_order")
        | ("QuantizeLinear" | "DequantizeLinear", "axis" | "block_size")
        | ("Attention" | "FlexAttention" | "LinearAttention", "q_num_heads" | "kv_num_heads")
        | ("RotaryEmbedding", "num_heads")
        | ("Attention" | "MultiHeadAttention", "mask_filter_value")
        | ("EmbedLayerNormalization", "mask_index_type")
        | ("FusedMatMul" | "TransposeMatMul", "transA" | "transB" | "transBatchA" | "transBatchB")
        | ("LabelEncoder", "default_float" | "default_int64" | "default_string")
        | (
            "Imputer",
            "imputed_value_floats" | "imputed_value_int64s" | "replaced_value_float" | "replaced_value_int64",
        ) => true,
        _ => false,
    }
}
