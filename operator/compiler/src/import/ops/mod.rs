//! What each ONNX operator becomes. Adding one is a line in [`handler`] and a function beside its kin.

mod activations;
pub(super) mod attention;
mod bounded;
mod compose;
mod contrib;
mod elementwise;
mod fourier;
mod integer;
mod layout;
mod lists;
mod loss;
mod ml;
mod ngrams;
mod normalize;
mod pick;
mod pool;
mod product;
mod qlinear;
pub(super) mod quantize;
mod recurrent;
mod reduce;
mod resize;
mod sample;
mod sequence;
mod signal;
mod window;

use crate::ir::{BinaryOp, ReduceKind, UnaryOp, ValueId};

use super::build::Result;
use super::call::Call;

/// Turns a node into IR; gives the values of its outputs.
pub(super) type Plain = fn(&mut Call<'_, '_>) -> Result<Vec<ValueId>>;

/// How an operator is imported.
pub(super) enum Handler {
    /// From its inputs alone.
    Plain(Plain),
    /// By walking its branches.
    If,
    /// By walking its body, and so for the next.
    Loop,
    /// See above.
    Scan,
    /// By walking its body for each item.
    SequenceMap,
    /// By walking what its scores and weights pass through.
    FlexAttention,
}

/// Whether an operator takes sequences and optionals.
pub(super) use lists::takes as takes_lists;
/// What to do instead of an operator of `ai.onnx.ml` that cannot be supported.
pub(super) use ml::nearest as nearest_ml;

/// How an operator is imported; `None` when it is not known.
pub(super) fn handler(domain: &str, operator: &str) -> Option<Handler> {
    macro_rules! unary {
        ($op:ident) => {
            |call| elementwise::unary(call, UnaryOp::$op)
        };
    }
    macro_rules! binary {
        ($op:ident) => {
            |call| elementwise::binary(call, BinaryOp::$op)
        };
    }
    macro_rules! reduce {
        ($kind:ident) => {
            |call| reduce::reduce(call, ReduceKind::$kind)
        };
    }
    let own = domain.is_empty();
    let plain: Plain = match operator {
        _ if domain == "com.microsoft" => contrib::handler(operator)?,
        _ if domain == "ai.onnx.ml" => ml::handler(operator)?,
        "FlexAttention" if domain == "ai.onnx.preview" => return Some(Handler::FlexAttention),
        _ if !own => return None,
        "If" => return Some(Handler::If),
        "Loop" => return Some(Handler::Loop),
        "Scan" => return Some(Handler::Scan),

        "Abs" => unary!(Abs),
        "Neg" => unary!(Neg),
        "Sign" => unary!(Sign),
        "Floor" => unary!(Floor),
        "Ceil" => unary!(Ceil),
        "Round" => unary!(Round),
        "Sqrt" => unary!(Sqrt),
        "Reciprocal" => unary!(Reciprocal),
        "Exp" => unary!(Exp),
        "Log" => unary!(Log),
        "Sin" => unary!(Sin),
        "Cos" => unary!(Cos),
        "Tan" => unary!(Tan),
        "Asin" => unary!(Asin),
        "Acos" => unary!(Acos),
        "Atan" => unary!(Atan),
        "Sinh" => unary!(Sinh),
        "Cosh" => unary!(Cosh),
        "Tanh" => unary!(Tanh),
        "Asinh" => unary!(Asinh),
        "Acosh" => unary!(Acosh),
        "Atanh" => unary!(Atanh),
        "Erf" => unary!(Erf),
        "Sigmoid" => unary!(Sigmoid),
        "Not" => unary!(Not),
        "IsNaN" => unary!(IsNan),
        "IsInf" => elementwise::is_inf,
        "Add" => binary!(Add),
        "Sub" => binary!(Sub),
        "Mul" => binary!(Mul),
        "Div" => binary!(Div),
        "Pow" => elementwise::pow,
        "Mod" => elementwise::modulo,
        "And" => binary!(And),
        "Or" => binary!(Or),
        "Xor" => binary!(Xor),
        "BitwiseNot" => |call| elementwise::bits(call).and_then(|()| elementwise::unary(call, UnaryOp::Not)),
        "BitwiseAnd" => |call| elementwise::bits(call).and_then(|()| elementwise::binary(call, BinaryOp::And)),
        "BitwiseOr" => |call| elementwise::bits(call).and_then(|()| elementwise::binary(call, BinaryOp::Or)),
        "BitwiseXor" => |call| elementwise::bits(call).and_then(|()| elementwise::binary(call, BinaryOp::Xor)),
        "BitShift" => elementwise::shift,
        "Equal" => binary!(Equal),
        "Less" => binary!(Less),
        "LessOrEqual" => binary!(LessOrEqual),
        "Greater" => |call| elementwise::turned(call, BinaryOp::Less),
        "GreaterOrEqual" => |call| elementwise::turned(call, BinaryOp::LessOrEqual),
        "Min" => |call| elementwise::variadic(call, BinaryOp::Min),
        "Max" => |call| elementwise::variadic(call, BinaryOp::Max),
        "Sum" => |call| elementwise::variadic(call, BinaryOp::Add),
        "Mean" => elementwise::mean,
        "Where" => elementwise::select,
        "Clip" => elementwise::clip,
        "Cast" => elementwise::cast,
        "BitCast" => elementwise::bit_cast,
        "CastLike" => elementwise::cast_like,
        "Identity" => elementwise::identity,
        "Dropout" => elementwise::dropout,

        "Gelu" => activations::gelu,
        "Relu" => activations::relu,
        "LeakyRelu" => activations::leaky_relu,
        "PRelu" => activations::p_relu,
        "ThresholdedRelu" => activations::thresholded_relu,
        "Elu" => activations::elu,
        "Selu" => activations::selu,
        "Celu" => activations::celu,
        "HardSigmoid" => activations::hard_sigmoid,
        "HardSwish" => activations::hard_swish,
        "Softplus" => activations::softplus,
        "Softsign" => activations::softsign,
        "Mish" => activations::mish,
        "Swish" => activations::swish,
        "Shrink" => activations::shrink,
        "SwiGLU" => activations::swi_glu,

        "Conv" => window::conv,
        "ConvTranspose" => window::conv_transpose,
        "MaxPool" => pool::max_pool,
        "AveragePool" => pool::average_pool,
        "LpPool" => pool::lp_pool,
        "GlobalMaxPool" => |call| pool::global_pool(call, ReduceKind::Max),
        "GlobalAveragePool" => |call| pool::global_pool(call, ReduceKind::Mean),
        "GlobalLpPool" => pool::global_lp_pool,
        "MaxUnpool" => pool::max_unpool,
        "Col2Im" => pool::col_to_im,
        "CenterCropPad" => pool::center_crop_pad,
        "Resize" => resize::resize,
        "Upsample" => resize::upsample,

        "Attention" => attention::attention,
        "RotaryEmbedding" => attention::rotary,
        "LinearAttention" => sequence::linear_attention,
        "CausalConvWithState" => sequence::causal_conv,
        "ReverseSequence" => sequence::reverse_sequence,
        "TensorScatter" => sequence::tensor_scatter,

        "NegativeLogLikelihoodLoss" => loss::negative_log_likelihood,
        "SoftmaxCrossEntropyLoss" => loss::softmax_cross_entropy,

        "GridSample" => sample::grid_sample,
        "AffineGrid" => sample::affine_grid,
        "RoiAlign" => sample::roi_align,
        "DeformConv" => sample::deform_conv,

        "DFT" => signal::dft,
        "STFT" => signal::stft,
        "HannWindow" => |call| signal::window(call, [0.5, 0.5, 0.0]),
        "HammingWindow" => |call| signal::window(call, [25.0 / 46.0, 21.0 / 46.0, 0.0]),
        "BlackmanWindow" => |call| signal::window(call, [0.42, 0.5, 0.08]),
        "MelWeightMatrix" => signal::mel_weights,
        "TfIdfVectorizer" => ngrams::tf_idf,
        "CumProd" => signal::cum_product,
        "Det" => signal::determinant,

        "MatMul" => product::mat_mul,
        "Gemm" => product::gemm,
        "Einsum" => product::einsum,

        "BatchNormalization" => normalize::batch,
        "InstanceNormalization" => normalize::instance,
        "LayerNormalization" => normalize::layer,
        "GroupNormalization" => normalize::group,
        "RMSNormalization" | "SimplifiedLayerNormalization" => normalize::rms,
        "MeanVarianceNormalization" => normalize::mean_variance,
        "LpNormalization" => normalize::lp,
        "LRN" => normalize::local_response,

        "ReduceSum" => reduce!(Sum),
        "ReduceMean" => reduce!(Mean),
        "ReduceMax" => reduce!(Max),
        "ReduceMin" => reduce!(Min),
        "ReduceProd" => reduce!(Product),
        "ReduceSumSquare" => reduce!(SumSquares),
        "ReduceL1" => reduce!(SumAbs),
        "ReduceL2" => reduce::l2,
        "ReduceLogSum" => reduce::log_sum,
        "ReduceLogSumExp" => reduce::log_sum_exp,
        "ArgMax" => |call| reduce::arg(call, true),
        "ArgMin" => |call| reduce::arg(call, false),
        "Softmax" => |call| reduce::softmax(call, false),
        "LogSoftmax" => |call| reduce::softmax(call, true),
        "Hardmax" => reduce::hardmax,
        "CumSum" => reduce::cum_sum,
        "TopK" => reduce::top_k,

        "Constant" => layout::constant,
        "ConstantOfShape" => layout::constant_of_shape,
        "Shape" => layout::shape,
        "Size" => layout::size,
        "Reshape" => layout::reshape,
        "Flatten" => layout::flatten,
        "Squeeze" => layout::squeeze,
        "Unsqueeze" => layout::unsqueeze,
        "Transpose" => layout::transpose,
        "Expand" => layout::expand,
        "Tile" => layout::tile,
        "Concat" => layout::concat,
        "Split" => layout::split,
        "DepthToSpace" => layout::depth_to_space,
        "SpaceToDepth" => layout::space_to_depth,

        "Slice" => pick::slice,
        "Pad" => pick::pad,
        "Gather" => pick::gather,
        "GatherElements" => pick::gather_elements,
        "GatherND" => pick::gather_nd,
        "ScatterElements" | "Scatter" => pick::scatter_elements,
        "ScatterND" => pick::scatter_nd,
        "Range" => pick::range,
        "OneHot" => pick::one_hot,
        "Trilu" => pick::trilu,
        "EyeLike" => pick::eye_like,

        "SequenceConstruct" => lists::construct,
        "SequenceEmpty" => lists::empty,
        "SequenceAt" => lists::at,
        "SequenceInsert" => lists::insert,
        "SequenceErase" => lists::erase,
        "SequenceLength" => lists::length,
        "SplitToSequence" => lists::split,
        "ConcatFromSequence" => lists::concat,
        "SequenceMap" => return Some(Handler::SequenceMap),
        "Optional" => lists::optional,
        "OptionalHasElement" => lists::has_element,
        "OptionalGetElement" => lists::get_element,
        "NonZero" => bounded::non_zero,
        "Compress" => bounded::compress,
        "Unique" => bounded::unique,
        "NonMaxSuppression" => bounded::non_max_suppression,

        "LSTM" => recurrent::lstm,
        "GRU" => recurrent::gru,
        "RNN" => recurrent::rnn,

        "QuantizeLinear" => quantize::quantize,
        "DequantizeLinear" => quantize::dequantize,
        "DynamicQuantizeLinear" => quantize::dynamic_quantize,
        "MatMulInteger" => integer::mat_mul_integer,
        "ConvInteger" => integer::conv_integer,
        "QLinearMatMul" => integer::qlinear_mat_mul,
        "QLinearConv" => integer::qlinear_conv,
        _ => return None,
    };
    Some(Handler::Plain(plain))
}
