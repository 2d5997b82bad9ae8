"""What random graphs are made of: each function proposes one node, and refuses where there is nothing that suits it."""

import numpy as np

from random_graphs import F32, require

FLOAT = ("float32",)
WHOLE = ("int64", "int32", "int8", "uint8")
SMALL = ("int8", "uint8")


def smooth(g):
    """Functions that are steady everywhere."""
    kinds = ["Sigmoid", "Tanh", "Relu", "LeakyRelu", "Elu", "HardSigmoid", "HardSwish", "Erf", "Softplus", "Softsign", "Sin", "Cos", "Mish", "Selu", "Celu", "Atan"]
    g.add(g.r.choice(kinds), [g.pick(kinds=FLOAT)])


def guarded(g):
    """Functions that are steady on some numbers."""
    x = g.pick(kinds=FLOAT)
    low, high = x.array.min(), x.array.max()
    kinds = ["Exp"] if -6 < low and high < 4 else []
    kinds += ["Sqrt", "Log", "Reciprocal"] if low > 0.1 else []
    require(kinds)
    g.add(g.r.choice(kinds), [x])


def sign_free(g):
    g.add(g.r.choice(["Abs", "Neg"]), [x := g.pick(kinds=FLOAT + ("int64", "int32", "int8"))], exact=x.exact)


def steps(g):
    g.add(g.r.choice(["Floor", "Ceil", "Round", "Sign"]), [g.pick(kinds=FLOAT, exact=True)], exact=True)


def clip(g):
    x = g.pick(kinds=FLOAT + WHOLE)
    low, high = (np.asarray(v, x.array.dtype) for v in ((1, 5) if x.array.dtype.kind == "u" else (-2, 2)))
    g.add("Clip", [x, low, high], exact=x.exact)


def arithmetic(g):
    x = g.pick(kinds=FLOAT + WHOLE)
    inputs = [x, g.partner(x)]
    g.add(g.r.choice(["Add", "Sub", "Mul"]), inputs[:: g.r.choice([1, -1])])


def extreme(g):
    x = g.pick(kinds=FLOAT + WHOLE)
    inputs = [x] + [g.partner(x) for _ in range(g.r.integers(1, 3))]
    g.add(g.r.choice(["Min", "Max"]), inputs, exact=all(i.exact for i in inputs))


def divide(g):
    x = g.pick(kinds=FLOAT + WHOLE)
    g.add("Div", [x, g.partner(x, low=1, high=5)])


def modulo(g):
    x = g.pick(kinds=WHOLE)
    g.add("Mod", [x, g.partner(x, low=1, high=7)])


def power(g):
    x = g.pick(kinds=FLOAT)
    require(np.abs(x.array).max() < 6)
    exponent = g.r.choice([2.0, 3.0] + ([0.5, 1.7, -1.0] if x.array.min() > 0.1 else []))
    g.add("Pow", [x, np.asarray(exponent, F32)])


def compare(g):
    x = g.pick(kinds=FLOAT + WHOLE, exact=True)
    y = g.partner(x)
    require(y.exact)
    g.add(g.r.choice(["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"]), [x, y], exact=True)


def logic(g):
    x = g.pick(kinds=("bool",))
    kind = g.r.choice(["And", "Or", "Xor", "Not"])
    g.add(kind, [x] if kind == "Not" else [x, g.partner(x)], exact=True)


def where(g):
    condition = g.pick(kinds=("bool",))
    x = g.constant(g.array(condition.array.shape, g.kind()))
    y = g.partner(x)
    g.add("Where", [condition, x, y], exact=y.exact)


def cast(g):
    x = g.pick()
    to = g.kind()
    require(x.exact or to == F32)
    if x.array.dtype == F32 and to.kind in "iu":
        require(to.kind == "i" or x.array.min() > -1)
    if to.kind in "iu" and x.array.dtype != F32:
        info = np.iinfo(to)
        require(x.array.dtype == np.bool_ or info.min <= float(x.array.min()) and float(x.array.max()) <= info.max)
    g.add("Cast", [x], exact=x.exact, to=int(np_type(to)))


def np_type(kind):
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(kind)


def axes_of(g, x, most=None):
    count = g.r.integers(1, (most or x.array.ndim) + 1)
    axes = g.r.permutation(x.array.ndim)[:count]
    return np.array([a - x.array.ndim if g.r.random() < 0.3 else a for a in axes], np.int64)


def reduce(g):
    kind = g.r.choice(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"])
    # Not products of integers: they overflow, of which ONNX says nothing; ours wrap, ONNX Runtime's end at the largest number.
    x = g.pick(kinds=FLOAT + (("int32", "int64") if kind in ("ReduceSum", "ReduceMax", "ReduceMin") else ()), least=1)
    exact = x.exact if kind in ("ReduceMax", "ReduceMin") else None
    g.add(kind, [x, axes_of(g, x)], exact=exact, keepdims=int(g.r.integers(2)))


def place_of_largest(g):
    x = g.pick(kinds=FLOAT + ("int32", "int8", "uint8"), exact=True, least=1)
    attributes = {"axis": int(g.r.integers(-x.array.ndim, x.array.ndim)), "keepdims": int(g.r.integers(2))}
    g.add(g.r.choice(["ArgMax", "ArgMin"]), [x], exact=True, **attributes)


def top(g):
    x = g.pick(kinds=FLOAT + ("int32", "int64"), exact=True, least=1)
    axis = int(g.r.integers(x.array.ndim))
    k = np.array([g.r.integers(1, x.array.shape[axis] + 1)], np.int64)
    g.add("TopK", [x, k], 2, exact=True, axis=axis, largest=int(g.r.integers(2)))


def along(g):
    x = g.pick(kinds=FLOAT, least=1)
    g.add(g.r.choice(["Softmax", "LogSoftmax"]), [x], axis=int(g.r.integers(-x.array.ndim, x.array.ndim)))


def running_sum(g):
    x = g.pick(kinds=FLOAT + ("int32", "int64"), least=1)
    axis = np.asarray(g.r.integers(-x.array.ndim, x.array.ndim), np.int64)
    g.add("CumSum", [x, axis], exclusive=int(g.r.integers(2)), reverse=int(g.r.integers(2)))


def transpose(g):
    g.add("Transpose", [x := g.pick(least=2)], exact=x.exact, perm=[int(p) for p in g.r.permutation(x.array.ndim)])


def reshape(g):
    x = g.pick()
    size, shape = x.array.size, []
    while size > 1 and len(shape) < 4:
        part = int(g.r.choice([d for d in range(1, size + 1) if size % d == 0]))
        shape.append(part)
        size //= part
    shape.append(size)
    if g.r.random() < 0.3:
        shape[g.r.integers(len(shape))] = -1
    g.add("Reshape", [x, np.array(shape, np.int64)], exact=x.exact)


def thin(g):
    x = g.pick()
    ones = [i for i, d in enumerate(x.array.shape) if d == 1]
    if ones and g.r.random() < 0.5:
        g.add("Squeeze", [x, np.array(ones[:1], np.int64)], exact=x.exact)
    elif g.r.random() < 0.5:
        g.add("Unsqueeze", [x, np.array([g.r.integers(0, x.array.ndim + 1)], np.int64)], exact=x.exact)
    else:
        g.add("Flatten", [x], exact=x.exact, axis=int(g.r.integers(0, x.array.ndim + 1)))


def slices(g):
    x = g.pick(least=1)
    axes = axes_of(g, x)
    starts, ends, strides = [], [], []
    for axis in axes:
        n = x.array.shape[axis]
        stride = int(g.r.choice([-3, -2, -1, 1, 1, 2, 3]))
        a, b = sorted(g.r.integers(0, n + 1, 2))
        start, end = (a, b) if stride > 0 else (b - 1, a - 1 if a > 0 else -n - 1)
        starts.append(start), ends.append(end if g.r.random() < 0.8 else np.sign(stride) * (1 << 40)), strides.append(stride)
    g.add("Slice", [x, *(np.array(v, np.int64) for v in (starts, ends, axes, strides))], exact=x.exact)


def concat(g):
    x = g.pick(least=1)
    axis = int(g.r.integers(x.array.ndim))
    beside = lambda v: v.array.shape[:axis] + v.array.shape[axis + 1 :]
    alike = lambda v: v.array.dtype == x.array.dtype and v.array.ndim == x.array.ndim and beside(v) == beside(x)
    others = [v for v in g.values if alike(v)]
    inputs = [x] + [others[g.r.integers(len(others))] for _ in range(g.r.integers(1, 3))]
    g.add("Concat", inputs, exact=all(i.exact for i in inputs), axis=axis)


def split(g):
    x = g.pick(least=1)
    axis = int(g.r.integers(x.array.ndim))
    n = x.array.shape[axis]
    require(n > 1)
    first = int(g.r.integers(1, n))
    g.add("Split", [x, np.array([first, n - first], np.int64)], 2, exact=x.exact, axis=axis)


def gather(g):
    x = g.pick(least=1)
    axis = int(g.r.integers(x.array.ndim))
    n = x.array.shape[axis]
    if g.r.random() < 0.4:
        indices = g.array(x.array.shape, np.dtype(np.int64), -n, n)
        g.add("GatherElements", [x, indices], exact=x.exact, axis=axis)
    else:
        g.add("Gather", [x, g.array(g.shape(g.r.integers(0, 3)), np.dtype(np.int64), -n, n)], exact=x.exact, axis=axis)


def gather_computed(g):
    """By indices that the graph computes."""
    indices = g.pick(kinds=("int64", "int32"), exact=True)
    low, high = int(indices.array.min()), int(indices.array.max())
    x = g.pick(least=1)
    axis = int(g.r.integers(x.array.ndim))
    n = x.array.shape[axis]
    require(-n <= low and high < n and indices.array.ndim < 3)
    g.add("Gather", [x, indices], exact=x.exact, axis=axis)


def gather_nd(g):
    x = g.pick(least=2)
    depth = int(g.r.integers(1, x.array.ndim + 1))
    lead = g.shape(g.r.integers(1, 3))
    parts = [g.array((*lead, 1), np.dtype(np.int64), 0, n) for n in x.array.shape[:depth]]
    g.add("GatherND", [x, np.concatenate(parts, axis=-1)], exact=x.exact)


def scatter(g):
    x = g.pick(least=1)
    axis = int(g.r.integers(x.array.ndim))
    n = x.array.shape[axis]
    shape = list(x.array.shape)
    shape[axis] = int(g.r.integers(1, n + 1))
    # Every place once: of two that write to one, the order would decide.
    order = np.argsort(g.r.random(x.array.shape), axis=axis)
    indices = np.take(order, range(shape[axis]), axis=axis).astype(np.int64)
    g.add("ScatterElements", [x, indices, g.array(tuple(shape), x.array.dtype)], exact=x.exact, axis=axis)


def repeat(g):
    x = g.pick()
    if g.r.random() < 0.5 and x.array.ndim:
        g.add("Tile", [x, g.r.integers(1, 4, x.array.ndim)], exact=x.exact)
    else:
        shape = [*g.shape(g.r.integers(0, 2)), *(int(g.r.integers(2, 5)) if d == 1 and g.r.random() < 0.7 else d for d in x.array.shape)]
        g.add("Expand", [x, np.array(shape, np.int64)], exact=x.exact)


def pad(g):
    x = g.pick(least=1)
    mode = g.r.choice(["constant", "reflect", "edge"])
    pads = g.r.integers(0, 3, 2 * x.array.ndim)
    require(mode != "reflect" or min(x.array.shape) > 2)
    inputs = [x, pads.astype(np.int64)]
    if mode == "constant" and g.r.random() < 0.5:
        inputs.append(np.asarray(1, x.array.dtype))
    g.add("Pad", inputs, exact=x.exact, mode=str(mode))


def blocks(g):
    x = g.pick(kinds=FLOAT, rank=4)
    n, c, h, w = x.array.shape
    if c % 4 == 0:
        g.add("DepthToSpace", [x], exact=x.exact, blocksize=2, mode=str(g.r.choice(["DCR", "CRD"])))
    else:
        require(h % 2 == 0 and w % 2 == 0)
        g.add("SpaceToDepth", [x], exact=x.exact, blocksize=2)


def triangle(g):
    x = g.pick(kinds=FLOAT + ("int64", "int32"), least=2)
    g.add("Trilu", [x, np.asarray(g.r.integers(-2, 3), np.int64)], exact=x.exact, upper=int(g.r.integers(2)))


def window(g, x, spatial):
    k = [int(g.r.integers(1, min(4, d + 1))) for d in spatial]
    strides = [int(g.r.integers(1, 3)) for _ in spatial]
    return k, strides, [int(g.r.integers(0, n)) for n in k + k]


def convolution(g):
    x = g.pick(kinds=FLOAT, rank=int(g.r.choice([3, 4])))
    _, c, *spatial = x.array.shape
    k, strides, pads = window(g, x, spatial)
    group = int(g.r.choice([d for d in range(1, c + 1) if c % d == 0]))
    dilations = [int(g.r.integers(1, 3)) for _ in spatial]
    if g.r.random() < 0.75:
        out = group * int(g.r.integers(1, 4))
        inputs = [x, g.array((out, c // group, *k), F32, -1, 1)]
        kind = "Conv"
    else:
        each = int(g.r.integers(1, 4))
        inputs, out, kind = [x, g.array((c, each, *k), F32, -1, 1)], each * group, "ConvTranspose"
    if g.r.random() < 0.5:
        inputs.append(g.array((out,), F32))
    g.add(kind, inputs, kernel_shape=k, strides=strides, pads=pads, group=group, dilations=dilations)


def pool(g):
    x = g.pick(kinds=FLOAT, rank=int(g.r.choice([3, 4])))
    k, strides, pads = window(g, x, x.array.shape[2:])
    kind = str(g.r.choice(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"]))
    if kind.startswith("Global"):
        return g.add(kind, [x])
    more = {"count_include_pad": int(g.r.integers(2))} if kind == "AveragePool" else {}
    g.add(kind, [x], exact=x.exact and kind == "MaxPool", kernel_shape=k, strides=strides, pads=pads, ceil_mode=int(g.r.integers(2)), **more)


def resize(g):
    x = g.pick(kinds=FLOAT, rank=4)
    scale = float(g.r.choice([2.0, 3.0]))
    mode = str(g.r.choice(["nearest", "linear"]))
    how = str(g.r.choice(["asymmetric", "half_pixel"]))
    more = {"nearest_mode": "floor"} if mode == "nearest" else {}
    g.add("Resize", [x, None, np.array([1, 1, scale, scale], F32)], exact=x.exact and mode == "nearest", mode=mode, coordinate_transformation_mode=how, **more)


def product(g):
    x = g.pick(kinds=FLOAT + ("int32", "int64"), least=1)
    k = x.array.shape[-1]
    same = [v for v in g.values if v.array.dtype == x.array.dtype and v.array.ndim > 1 and v.array.shape[-2] == k]
    if same and g.r.random() < 0.4:
        g.add("MatMul", [x, same[g.r.integers(len(same))]])
    else:
        lead = x.array.shape[:-2] if g.r.random() < 0.3 else ()
        g.add("MatMul", [x, g.array((*lead, k, int(g.r.integers(1, 20))), x.array.dtype, -1, 2)])


def general_product(g):
    x = g.pick(kinds=FLOAT, rank=2)
    a, b = (int(v) for v in g.r.integers(0, 2, 2))
    k = x.array.shape[0 if a else 1]
    n = int(g.r.integers(1, 20))
    inputs = [x, g.array((n, k) if b else (k, n), F32, -1, 1)]
    if g.r.random() < 0.7:
        inputs.append(g.array((n,) if g.r.random() < 0.5 else (1, n), F32))
    g.add("Gemm", inputs, transA=a, transB=b, alpha=float(g.r.choice([1.0, 0.5])), beta=float(g.r.choice([1.0, 2.0])))


def normalise(g):
    x = g.pick(kinds=FLOAT, least=2)
    c = x.array.shape[1]
    require(np.std(x.array) > 0.1)
    if x.array.ndim > 2 and g.r.random() < 0.4:
        scale, shift, mean, variance = (g.array((c,), F32), g.array((c,), F32), g.array((c,), F32), g.array((c,), F32, 1, 3))
        return g.add("BatchNormalization", [x, scale, shift, mean, variance])
    n = x.array.shape[-1]
    # Of one number, or equal ones, only rounding is left.
    require(n > 2 and np.std(x.array, axis=-1).min() > 0.1)
    g.add("LayerNormalization", [x, g.array((n,), F32), g.array((n,), F32)], axis=-1, epsilon=1e-5)


def quantise(g):
    x = g.pick(kinds=FLOAT, exact=True)
    if g.r.random() < 0.3:
        return g.add("DynamicQuantizeLinear", [x], 3, exact=False)
    scale, kind = np.asarray(g.r.choice([0.0625, 0.03, 0.11]), F32), np.dtype(g.r.choice(SMALL))
    g.add("QuantizeLinear", [x, scale, np.asarray(g.r.integers(0, 20), kind)], exact=True)


def dequantise(g):
    x = g.pick(kinds=SMALL)
    g.add("DequantizeLinear", [x, np.asarray(g.r.choice([0.0625, 0.03]), F32), np.asarray(g.r.integers(0, 9), x.array.dtype)])


def whole_product(g):
    x = g.pick(kinds=("uint8", "int8"), rank=2, exact=True)
    w = g.array((x.array.shape[1], int(g.r.integers(1, 20))), np.dtype(np.int8))
    zero, other = np.asarray(g.r.integers(0, 9), x.array.dtype), np.asarray(g.r.integers(-3, 4), np.int8)
    if g.r.random() < 0.5:
        return g.add("MatMulInteger", [x, w, zero, other], exact=True)
    scale = lambda s: np.asarray(s, F32)
    g.add("QLinearMatMul", [x, scale(0.07), zero, w, scale(0.05), other, scale(0.11), np.asarray(3, x.array.dtype)], exact=True)


def whole_convolution(g):
    x = g.pick(kinds=("uint8",), rank=4, exact=True)
    _, c, *spatial = x.array.shape
    k, strides, pads = window(g, x, spatial)
    w, zero = g.array((int(g.r.integers(1, 5)), c, *k), np.dtype(np.int8)), np.asarray(g.r.integers(0, 9), np.uint8)
    attributes = {"kernel_shape": k, "strides": strides, "pads": pads}
    if g.r.random() < 0.5:
        return g.add("ConvInteger", [x, w.astype(np.uint8) if g.r.random() < 0.5 else w, zero], exact=True, **attributes)
    scale = lambda s: np.asarray(s, F32)
    g.add("QLinearConv", [x, scale(0.07), zero, w, scale(0.05), np.int8(0).reshape(()), scale(0.11), np.uint8(3).reshape(())], exact=True, **attributes)


ALL = [
    smooth, smooth, guarded, sign_free, steps, clip, arithmetic, arithmetic, arithmetic, extreme, divide, modulo, power, compare, logic,
    where, cast, cast, reduce, reduce, place_of_largest, top, along, running_sum, transpose, transpose, reshape, reshape, thin, slices,
    slices, concat, split, gather, gather_computed, gather_nd, scatter, repeat, pad, blocks, triangle, convolution, convolution, pool,
    resize, product, product, general_product, normalise, quantise, dequantise, whole_product, whole_convolution,
]  # fmt: skip
