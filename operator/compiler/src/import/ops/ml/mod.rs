//! Operators of the domain `ai.onnx.ml` on numbers: what skl2onnx and its kin write. What ONNX leaves open is as ONNX Runtime
//! has it; `tests/python/check_sklearn.py` holds each of them to it.

mod ensemble;
mod features;
mod forest;
mod labels;
mod linear;
mod scores;
mod svm;
mod walk;

use crate::ir::{DType, Data, ValueId};

use super::super::build::{Result, invalid, unsupported};
use super::super::call::Call;
use super::super::tensor;
use super::{Plain, elementwise};

/// How an operator is imported; `None` when it is not known.
pub(super) fn handler(operator: &str) -> Option<Plain> {
    Some(match operator {
        "TreeEnsembleRegressor" => ensemble::regressor,
        "TreeEnsembleClassifier" => ensemble::classifier,
        "TreeEnsemble" => ensemble::ensemble,
        "LinearRegressor" => linear::regressor,
        "LinearClassifier" => linear::classifier,
        "SVMRegressor" => svm::regressor,
        "SVMClassifier" => svm::classifier,
        "Scaler" => features::scaler,
        "Normalizer" => features::normalizer,
        "Imputer" => features::imputer,
        "Binarizer" => features::binarizer,
        "OneHotEncoder" => labels::one_hot,
        "LabelEncoder" => labels::encoder,
        "ArrayFeatureExtractor" => features::extractor,
        "FeatureVectorizer" => features::vectorizer,
        "Cast" => elementwise::cast,
        _ => return None,
    })
}

/// What to do instead of an operator that cannot be supported.
pub(in super::super) fn nearest(operator: &str) -> Option<&'static str> {
    Some(match operator {
        "ZipMap" => {
            "it makes a list of maps; convert with options={'zipmap': False} \
             (skl2onnx.to_onnx(model, x, options={'zipmap': False})), so that probabilities are a tensor"
        }
        "CategoryMapper" | "DictVectorizer" | "CastMap" => {
            "strings and maps are no tensors of numbers; encode them before the request and give numbers to the model"
        }
        _ => return None,
    })
}

/// The numbers of an attribute that is a list of floats or, as `<name>_as_tensor`, a tensor.
fn numbers(call: &Call<'_, '_>, name: &str) -> Result<Vec<f64>> {
    if let Some(proto) = call.tensor(&format!("{name}_as_tensor")) {
        let tensor = tensor::tensor(proto)?;
        return Ok(as_f64(&tensor.data));
    }
    Ok(call.floats(name).unwrap_or_default().iter().map(|x| f64::from(*x)).collect())
}

/// The numbers of an attribute that is a tensor.
fn tensor_numbers(call: &Call<'_, '_>, name: &str) -> Result<Option<Vec<f64>>> {
    let Some(proto) = call.tensor(name) else { return Ok(None) };
    Ok(Some(as_f64(&tensor::tensor(proto)?.data)))
}

fn as_f64(data: &Data) -> Vec<f64> {
    match data {
        Data::F32(v) => v.iter().map(|x| f64::from(*x)).collect(),
        Data::F64(v) => v.clone(),
        Data::Int(v) => v.iter().map(|x| *x as f64).collect(),
    }
}

fn integers<'m>(call: &Call<'_, 'm>, name: &str) -> &'m [i64] {
    call.ints(name).unwrap_or_default()
}

/// Input 0 as rows of f32: `[n, f]`; one dimension is one row.
fn rows(call: &mut Call<'_, '_>) -> Result<(ValueId, [usize; 2])> {
    let x = call.input(0)?;
    let dims = match *call.b.shape(x) {
        [f] => [1, f],
        [n, f] => [n, f],
        ref other => return unsupported(format!("an input of shape {other:?}; rows of features were expected")),
    };
    let x = call.b.reshape(x, dims.to_vec())?;
    Ok((call.b.cast(x, DType::F32)?, dims))
}

/// The integers that are a classifier's classes.
fn classes(call: &Call<'_, '_>, integers_name: &str) -> Result<Vec<i64>> {
    let strings = call.texts("classlabels_strings").is_some_and(|a| !a.is_empty());
    match integers(call, integers_name) {
        [] if strings => unsupported(
            "its classes are strings, and strings are no tensors of numbers; train on integer labels \
             (sklearn.preprocessing.LabelEncoder) and name the classes in the application",
        ),
        [] => invalid("it has no classes"),
        labels => Ok(labels.to_vec()),
    }
}
