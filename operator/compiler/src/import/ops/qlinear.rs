//! com.microsoft's element-wise and pooling operators on quantised tensors.
//!
//! Each is dequantise, compute, quantise, with every operation rounded on its own and integers exact, so that answers are the same
//! on every target. Held against ONNX Runtime 1.31 on x86-64 with random scales: QLinearMul, QLinearSigmoid, QLinearLeakyRelu,
//! both average pools and QLinearSoftmax are equal bit for bit; QLinearAdd, whose kernels add with ratios of the scales there and in
//! fixed point elsewhere, differs by one step in 10 of 2.6 million pairs (rounding ties). QLinearAveragePool with equal scales and an
//! even count has ties by design: there ONNX Runtime goes where the last digits of its f32 sums point, we go to even.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, UnaryOp, ValueId};

use super::super::build::{Result, invalid, unsupported};
use super::super::call::Call;
use super::integer::single;
use super::quantize::{centred, range, round_to};
use super::{activations, layout, pool};

/// Scale and zero point of inputs `i` and `i + 1`.
struct Scaled {
    scale: ValueId,
    zero: Option<ValueId>,
}

impl Scaled {
    fn at(call: &mut Call<'_, '_>, i: usize) -> Result<Self> {
        let scale = call.input(i)?;
        let scale = single(call.b, scale)?;
        let zero = call.optional(i + 1);
        Ok(Self { scale, zero: zero.map(|zero| single(call.b, zero)).transpose()? })
    }

    fn dequantize(&self, call: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId> {
        let x = centred(call.b, x, self.zero)?;
        call.b.binary(BinaryOp::Mul, x, self.scale)
    }

    /// To the type of the zero point, else that of `like`.
    fn quantize(&self, call: &mut Call<'_, '_>, x: ValueId, like: DType) -> Result<ValueId> {
        let x = call.b.binary(BinaryOp::Div, x, self.scale)?;
        self.round(call, x, like)
    }

    fn round(&self, call: &mut Call<'_, '_>, x: ValueId, like: DType) -> Result<ValueId> {
        let dtype = self.zero.map_or(like, |zero| call.b.dtype(zero));
        round_to(call.b, x, self.zero, dtype)
    }
}

/// `A, a_scale, a_zero, B, b_scale, b_zero, c_scale, c_zero → C`
pub(super) fn add(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [a, b] = [call.input(0)?, call.input(3)?];
    let like = call.b.dtype(a);
    let [of_a, of_b, of_c] = [Scaled::at(call, 1)?, Scaled::at(call, 4)?, Scaled::at(call, 6)?];
    let a = of_a.dequantize(call, a)?;
    let b = of_b.dequantize(call, b)?;
    let sum = call.b.binary(BinaryOp::Add, a, b)?;
    Ok(vec![of_c.quantize(call, sum, like)?])
}

/// As [`add`]; the product of the integers, which is exact, times `a_scale · b_scale ÷ c_scale`.
pub(super) fn mul(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [a, b] = [call.input(0)?, call.input(3)?];
    let like = call.b.dtype(a);
    let [of_a, of_b, of_c] = [Scaled::at(call, 1)?, Scaled::at(call, 4)?, Scaled::at(call, 6)?];
    let factor = call.b.binary(BinaryOp::Mul, of_a.scale, of_b.scale)?;
    let factor = call.b.binary(BinaryOp::Div, factor, of_c.scale)?;
    let a = centred(call.b, a, of_a.zero)?;
    let b = centred(call.b, b, of_b.zero)?;
    let product = call.b.binary(BinaryOp::Mul, a, b)?;
    let product = call.b.binary(BinaryOp::Mul, product, factor)?;
    Ok(vec![of_c.round(call, product, like)?])
}

/// `X, x_scale, x_zero, y_scale, y_zero → Y` through a function of each element. Where all parameters are constants, as they are
/// in every model seen, that is a table of 256 bytes.
fn function(
    call: &mut Call<'_, '_>,
    f: impl Fn(&mut Call<'_, '_>, ValueId) -> Result<ValueId>,
) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let like = call.b.dtype(x);
    if !matches!(like, DType::U8 | DType::I8) {
        return unsupported(format!("quantised functions of {like}"));
    }
    let [of_x, of_y] = [Scaled::at(call, 1)?, Scaled::at(call, 3)?];
    // In the order in which an index finds them: of signed bytes, those below zero count from the end.
    let bytes = (0..256).map(|i| crate::eval::wrap(like, i)).collect();
    let all = call.b.constant(crate::ir::Tensor::int(like, vec![256], bytes));
    let known = [Some(of_x.scale), of_x.zero, Some(of_y.scale), of_y.zero];
    let tabled = known.iter().flatten().all(|id| call.b.known(*id).is_some());
    let from = if tabled { all } else { x };
    let y = of_x.dequantize(call, from)?;
    let y = f(call, y)?;
    let y = of_y.quantize(call, y, like)?;
    if !tabled {
        return Ok(vec![y]);
    }
    let index = call.b.cast(x, DType::I32)?;
    Ok(vec![call.b.one(Op::Gather { axis: 0 }, &[y, index], None)?])
}

pub(super) fn sigmoid(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    function(call, |call, x| call.b.unary(UnaryOp::Sigmoid, x))
}

pub(super) fn leaky_relu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let alpha = call.float("alpha", 0.01);
    function(call, |call, x| activations::leaky(call, x, alpha))
}

/// `X, x_scale, x_zero, y_scale, y_zero → Y`. The exponentials' quotient is scaled by `⌊1 ÷ y_scale⌋`, as ONNX Runtime does.
pub(super) fn softmax(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let (like, shape) = (call.b.dtype(x), call.b.shape(x).to_vec());
    let [of_x, of_y] = [Scaled::at(call, 1)?, Scaled::at(call, 3)?];
    // The operator set of the Softmax that it was made of; before 13 everything from the axis on is one.
    let whole = call.int("opset", 13) < 13;
    let axis = call.axis(call.int("axis", if whole { 1 } else { -1 }), shape.len())?;
    let x = centred(call.b, x, None)?;
    let x = call.b.binary(BinaryOp::Mul, x, of_x.scale)?;
    let y = if whole {
        let split = |dims: &[usize]| dims.iter().product::<usize>();
        let x = call.b.reshape(x, vec![split(&shape[..axis]), split(&shape[axis..])])?;
        let y = call.b.one(Op::Softmax { axis: 1, log: false }, &[x], None)?;
        call.b.reshape(y, shape)?
    } else {
        call.b.one(Op::Softmax { axis, log: false }, &[x], None)?
    };
    let one = call.b.scalar(DType::F32, 1.0);
    let factor = call.b.binary(BinaryOp::Div, one, of_y.scale)?;
    let factor = call.b.unary(UnaryOp::Floor, factor)?;
    let y = call.b.binary(BinaryOp::Mul, y, factor)?;
    Ok(vec![of_y.round(call, y, like)?])
}

/// `X, x_scale, x_zero, y_scale, y_zero → Y`. Sums of integers, which are exact in f32 up to 65,793 of them, so that with equal scales
/// a mean that ends in a half goes to the even neighbour.
pub(super) fn average_pool(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    if call.flag("channels_last", false) {
        return unsupported("channels_last");
    }
    let x = call.input(0)?;
    let like = call.b.dtype(x);
    let [of_x, of_y] = [Scaled::at(call, 1)?, Scaled::at(call, 3)?];
    let x = centred(call.b, x, of_x.zero)?;
    let mean = pool::average(call, x)?;
    let factor = call.b.binary(BinaryOp::Div, of_x.scale, of_y.scale)?;
    let y = call.b.binary(BinaryOp::Mul, mean, factor)?;
    Ok(vec![of_y.round(call, y, like)?])
}

/// As [`average_pool`]; the sum times `x_scale ÷ (y_scale · count)`.
pub(super) fn global_average_pool(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let (like, shape) = (call.b.dtype(x), call.b.shape(x).to_vec());
    if shape.len() < 3 {
        return invalid(format!("a tensor of {} dimensions", shape.len()));
    }
    let axes: Vec<usize> =
        if call.flag("channels_last", false) { (1..shape.len() - 1).collect() } else { (2..shape.len()).collect() };
    let count: usize = axes.iter().map(|d| shape[*d]).product();
    let [of_x, of_y] = [Scaled::at(call, 1)?, Scaled::at(call, 3)?];
    let x = centred(call.b, x, of_x.zero)?;
    let sum = call.b.one(Op::Reduce { kind: ReduceKind::Sum, axes }, &[x], None)?;
    let divisor = call.b.with(BinaryOp::Mul, of_y.scale, count as f64)?;
    let factor = call.b.binary(BinaryOp::Div, of_x.scale, divisor)?;
    let y = call.b.binary(BinaryOp::Mul, sum, factor)?;
    Ok(vec![of_y.round(call, y, like)?])
}

/// `y_scale, y_zero, (x, x_scale, x_zero)…  → Y`, joined along `axis`. Parts that have the result's parameters are moved as they are.
pub(super) fn concat(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let of_y = Scaled::at(call, 0)?;
    let mut parts = Vec::new();
    for i in (2..call.inputs.len()).step_by(3) {
        let x = call.input(i)?;
        let of_x = Scaled::at(call, i + 1)?;
        let same = |a: Option<ValueId>, b: Option<ValueId>| match (a, b) {
            (Some(a), Some(b)) => {
                a == b
                    || call.b.known(a).zip(call.b.known(b)).is_some_and(|(a, b)| a.dtype == b.dtype && a.data == b.data)
            }
            (None, None) => true,
            _ => false,
        };
        parts.push(if same(Some(of_x.scale), Some(of_y.scale)) && same(of_x.zero, of_y.zero) {
            x
        } else {
            let like = call.b.dtype(x);
            range(like)?;
            let x = of_x.dequantize(call, x)?;
            of_y.quantize(call, x, like)?
        });
    }
    layout::join(call, &parts)
}
