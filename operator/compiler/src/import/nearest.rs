//! What would do instead of an operator that has no place in the compiler.

use super::ops;

/// Advice in half a sentence; `None` where nothing is known of the operator.
pub fn nearest(domain: &str, operator: &str) -> Option<String> {
    let advice = match domain {
        "" => onnx(operator),
        "ai.onnx.ml" => ops::nearest_ml(operator).or(Some(FOREIGN)),
        "com.microsoft" => return Some(contrib(operator).to_owned()),
        _ if domain.ends_with(".training") => Some("it is a step of training; export the model for inference"),
        _ => Some(FOREIGN),
    };
    advice.map(ToOwned::to_owned)
}

const FOREIGN: &str =
    "it is not one of ONNX's own operators; export it as a function of theirs, or do it in the application";

fn onnx(operator: &str) -> Option<&'static str> {
    Some(match operator {
        "RandomNormal" | "RandomUniform" | "RandomNormalLike" | "RandomUniformLike" | "Multinomial" | "Bernoulli" => {
            "answers must be reproducible; make the random numbers an input"
        }
        "ImageDecoder" => "decode the image before the request and give its pixels to the model",
        "StringNormalizer" | "StringSplit" | "StringConcat" | "RegexFullMatch" => {
            "strings are no tensors of numbers; tokenize before the request and give numbers to the model"
        }
        "MaxRoiPool" => "use RoiAlign with mode = \"max\", or average regions with its default",
        _ => return None,
    })
}

/// Operators that ONNX Runtime's optimisers and exporters write.
fn contrib(operator: &str) -> &'static str {
    match operator {
        "Pad"
        | "GatherND"
        | "GridSample"
        | "Range"
        | "Unique"
        | "LinearAttention"
        | "CausalConvWithState"
        | "SwiGLU" => "ONNX's own operator of that name is supported; export with a newer operator set",
        "Rfft" | "Irfft" => "ONNX's own DFT does it (operator set 17 and newer)",
        "ExpandDims" => "ONNX's own Unsqueeze does it",
        "GroupNorm" | "SkipGroupNorm" => "ONNX's own GroupNormalization does it (and Add); export without fusion",
        "BeamSearch" | "GreedySearch" | "Sampling" | "WhisperBeamSearch" => {
            "it is a whole loop of generation; export the model of one step and generate in the application"
        }
        "Tokenizer" | "MurmurHash3" => {
            "strings are no tensors of numbers; tokenize before the request and give numbers to the model"
        }
        "MatMulNBits"
        | "MatMulBnb4"
        | "MatMulFpQ4"
        | "GatherBlockQuantized"
        | "MatMulNBitsMlp"
        | "MatMulNBitsQkv"
        | "MatMulNBitsQLoRA"
        | "QMoE"
        | "GemmFloat8"
        | "DequantizeBFP"
        | "QuantizeBFP"
        | "MatMulBlockQuantizedFp4Weight"
        | "MatMulBlockQuantizedFp8Weight" => {
            "weights of 4 bits and of small floats are not supported; quantise to 8 bits in QDQ form \
             (onnxruntime.quantization.quantize_static)"
        }
        "QAttention"
        | "QEmbedLayerNormalization"
        | "DynamicQuantizeLSTM"
        | "QLinearReduceMean"
        | "QLinearWhere"
        | "QLinearConv"
        | "MulInteger"
        | "ReduceSumInteger"
        | "MatMulInteger16" => {
            "quantise in QDQ form (onnxruntime.quantization.quantize_static), which is compiled to integers"
        }
        "BiasDropout" | "BitmaskDropout" | "BitmaskBiasDropout" | "IsAllFinite" => {
            "it is a step of training; export the model for inference"
        }
        "EPContext" | "Snpe" => "it is compiled for one other accelerator; give the ONNX model that it was made of",
        "GroupQueryAttention"
        | "PagedAttention"
        | "SparseAttention"
        | "PackedAttention"
        | "PackedMultiHeadAttention"
        | "DecoderMaskedMultiHeadAttention"
        | "DecoderMaskedSelfAttention"
        | "LongformerAttention"
        | "DecoderAttention" => {
            "ONNX's own Attention (operator set 23 and newer) is supported; export without fusion of attention"
        }
        _ => {
            "ONNX Runtime's optimiser writes it; save the model before that, or with graph_optimization_level = \
             ORT_ENABLE_BASIC and without optimum's or transformers' optimiser"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever is told to use an operator can.
    #[test]
    fn what_is_named_is_supported() {
        for (domain, operator) in [
            ("", "RoiAlign"),
            ("", "DFT"),
            ("", "Unsqueeze"),
            ("", "GroupNormalization"),
            ("", "Attention"),
            ("", "Pad"),
            ("", "GatherND"),
            ("", "GridSample"),
            ("", "Range"),
            ("", "Unique"),
            ("", "LinearAttention"),
            ("", "CausalConvWithState"),
            ("", "SwiGLU"),
        ] {
            assert!(ops::handler(domain, operator).is_some(), "{operator}");
        }
        assert!(nearest("com.microsoft", "MatMulNBits").is_some_and(|n| n.contains("8 bits")));
        assert!(nearest("com.acme", "Fancy").is_some_and(|n| n.contains("ONNX's own")));
        assert_eq!(nearest("", "Fancy"), None);
    }
}
