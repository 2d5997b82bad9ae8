//! Operators of the domain `com.microsoft`: what ONNX Runtime's optimisers and the exporters built on them write. What each
//! means is in ONNX Runtime's `docs/ContribOperators.md`; `tests/python/check_contrib.py` holds each of them to it.

mod attention;
mod embed;
mod fused;
mod heads;
mod norms;
mod rotary;

use super::super::build::Problem;
use super::{Plain, activations, integer, normalize, pick, qlinear, quantize};

/// How an operator is imported; `None` when it is not known.
pub(super) fn handler(operator: &str) -> Option<Plain> {
    Some(match operator {
        "Gelu" => activations::gelu,
        "BiasGelu" => fused::bias_gelu,
        "FastGelu" => fused::fast_gelu,
        "QuickGelu" => fused::quick_gelu,
        "BiasSplitGelu" => fused::bias_split_gelu,
        "BiasAdd" => fused::bias_add,
        "FusedConv" => fused::conv,
        "NhwcFusedConv" | "NhwcConv" => fused::nhwc_conv,
        "FusedMatMul" | "TransposeMatMul" => fused::mat_mul,
        "FusedGemm" => fused::gemm,
        "CDist" => fused::distances,
        "Trilu" => pick::trilu,

        "SimplifiedLayerNormalization" => normalize::rms,
        "SkipLayerNormalization" => norms::skip_layer,
        "SkipSimplifiedLayerNormalization" => norms::skip_rms,
        "EmbedLayerNormalization" => embed::layer,

        "Attention" => attention::packed,
        "MultiHeadAttention" => attention::multi_head,
        "RotaryEmbedding" => rotary::embedding,
        "GroupQueryAttention" => |_| {
            Err(Problem::Unsupported(
                "its key-value cache grows from request to request; export the model without a cache (use_cache=False)"
                    .to_owned(),
            ))
        },

        "QuantizeLinear" => quantize::quantize,
        "DequantizeLinear" => quantize::dequantize,
        "QLinearAdd" => qlinear::add,
        "QLinearMul" => qlinear::mul,
        "QLinearSigmoid" => qlinear::sigmoid,
        "QLinearLeakyRelu" => qlinear::leaky_relu,
        "QLinearSoftmax" => qlinear::softmax,
        "QLinearAveragePool" => qlinear::average_pool,
        "QLinearGlobalAveragePool" => qlinear::global_average_pool,
        "QLinearConcat" => qlinear::concat,
        "QGemm" => integer::q_gemm,
        "MatMulIntegerToFloat" => integer::mat_mul_integer_to_float,
        "DynamicQuantizeMatMul" => integer::dynamic_quantize_mat_mul,
        _ => return None,
    })
}
