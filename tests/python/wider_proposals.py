"""More of what random graphs are made of: nodes with graphs inside, recurrence, attention, other domains, other types, results
with as many rows as the data says."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from proposals import FLOAT, WHOLE, np_type
from random_graphs import F32, require

I64 = np.dtype(np.int64)
F64, F16 = np.dtype(np.float64), np.dtype(np.float16)


def steady(g, least=1, rank=None):
    return g.pick(kinds=FLOAT, least=least, rank=rank)


def recurrent(g):
    x = steady(g, rank=3)
    steps, batch, width = x.array.shape
    require(np.abs(x.array).max() <= 20)
    kind = str(g.r.choice(["RNN", "GRU", "LSTM"]))
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
    direction = str(g.r.choice(["forward", "reverse", "bidirectional"]))
    n, hidden = 2 if direction == "bidirectional" else 1, int(g.r.integers(1, 6))
    some = lambda *shape: g.array(shape, F32, -1, 1)
    optional = lambda value: value if g.r.random() < 0.5 else None
    lens = optional(g.r.integers(1, steps + 1, batch).astype(np.int32))
    inputs = [x, some(n, gates * hidden, width), some(n, gates * hidden, hidden), optional(some(n, 2 * gates * hidden)), lens, optional(some(n, batch, hidden))]
    more = {}
    if kind == "LSTM":
        inputs += [optional(some(n, batch, hidden)), optional(some(n, 3 * hidden))]
    if kind == "GRU":
        more["linear_before_reset"] = int(g.r.integers(2))
    if g.r.random() < 0.2:
        more["clip"] = 0.5
    g.add(kind, inputs, 3 if kind == "LSTM" else 2, hidden_size=hidden, direction=direction, **more)


def body(g, name, nodes, inputs, outputs, constants=()):
    """A graph inside of a node; inputs and outputs are names with arrays of their types."""
    info = lambda n, a: helper.make_tensor_value_info(n, np_type(a.dtype), a.shape)
    return helper.make_graph(nodes, name, [info(*i) for i in inputs], [info(*o) for o in outputs], [numpy_helper.from_array(a, n) for n, a in constants])


def step_of(g, source, target, constant):
    """Nodes of one steady function, and the constants that they need."""
    kind = str(g.r.choice(["Tanh", "Sigmoid", "Add", "Mul", "Neg", "Softsign"]))
    if kind in ("Add", "Mul"):
        return [helper.make_node(kind, [source, constant], [target])], [(constant, np.asarray(g.r.choice([0.5, -0.75, 1.25]), F32))]
    return [helper.make_node(kind, [source], [target])], []


def condition(g):
    """A scalar that the data decides."""
    x = g.pick(kinds=("float32", "int64", "int32"), exact=True, least=1)
    largest = g.add("ReduceMax", [x], exact=True, keepdims=0)[0]
    return g.add("Greater", [largest, np.asarray(g.r.integers(-1, 3), x.array.dtype)], exact=True)[0]


def branch(g):
    x = steady(g)
    choose = condition(g)
    graphs = []
    for name in ("then", "else"):
        nodes, constants = step_of(g, x.name, f"{name}_y", f"{name}_c")
        if g.r.random() < 0.3:
            more, others = step_of(g, f"{name}_y", f"{name}_z", f"{name}_d")
            nodes, constants = nodes + more, constants + others
        graphs.append(body(g, name, nodes, [], [(nodes[-1].output[0], x.array)], constants))
    g.add("If", [choose], captured=[x], then_branch=graphs[0], else_branch=graphs[1])


def loop(g):
    x = steady(g)
    require(np.abs(x.array).max() < 20)
    nodes, constants = step_of(g, "state", "next", "c")
    out = [("go_on", np.array(True)), ("next", x.array)]
    scan = g.r.random() < 0.6
    if scan:
        nodes.append(helper.make_node("Abs", ["state"], ["seen"]))
        out.append(("seen", x.array))
    inside, captured = [("round", np.array(1)), ("go", np.array(True)), ("state", x.array)], []
    if g.r.random() < 0.4:
        # Ends when the data says so, at the latest after the count.
        nodes.append(helper.make_node("Constant", [], ["most"], value=numpy_helper.from_array(np.asarray(int(g.r.integers(0, 4)), I64))))
        nodes.append(helper.make_node("Less", ["round", "most"], ["go_on"]))
        require(not scan)
    else:
        nodes.append(helper.make_node("Identity", ["go"], ["go_on"]))
    if g.r.random() < 0.3:
        captured = [x]
        nodes.append(helper.make_node("Add", ["next", x.name], ["more"]))
        out[1] = ("more", x.array)
    count = np.asarray(g.r.integers(1, 5), I64)
    g.add("Loop", [count, np.asarray(True), x], 2 if scan else 1, captured=captured, body=body(g, "body", nodes, inside, out, constants))


def scan(g):
    x = steady(g, least=2)
    row = x.array[0]
    require(np.abs(x.array).max() < 20)
    nodes, constants = step_of(g, "sum", "out", "c")
    nodes = [helper.make_node(str(g.r.choice(["Add", "Max", "Min"])), ["state", "row"], ["sum"]), *nodes]
    inner = body(g, "body", nodes, [("state", row), ("row", row)], [("sum", row), ("out", row)], constants)
    directions = {"scan_input_directions": [int(g.r.integers(2))], "scan_output_directions": [int(g.r.integers(2))]}
    g.add("Scan", [g.array(row.shape, F32), x], 2, num_scan_inputs=1, body=inner, **directions)


def einsum(g):
    x = steady(g, least=1)
    d = x.array.shape
    some = lambda *shape: g.array(shape, F32, -1, 1)
    n = int(g.r.integers(1, 6))
    # Equations, each with how to make its second operand.
    choices = {
        1: [("i,j->ij", lambda: some(n)), ("i,i->", lambda: some(*d)), ("i,ij->j", lambda: some(*d, n)), ("i->", None)],
        2: [
            ("ij,jk->ik", lambda: some(d[1], n)), ("ij,kj->ki", lambda: some(n, d[1])), ("ij->ji", None), ("ij,ij->i", lambda: some(*d)),
            ("ij->j", None), ("...j,j->...", lambda: some(d[1])),
        ],
        3: [
            ("bij,bjk->bik", lambda: some(d[0], d[2], n)), ("bij,bkj->bik", lambda: some(d[0], n, d[2])), ("bij->jib", None),
            ("bij,j->bi", lambda: some(d[2])), ("bij,kj->bki", lambda: some(n, d[2])),
        ],
        4: [
            ("bhid,bhjd->bhij", lambda: some(*d[:2], n, d[3])), ("bhid,bhde->bihe", lambda: some(*d[:2], d[3], n)),
            ("bchw->bhwc", None), ("bchw,oc->bohw", lambda: some(n, d[1])),
        ],
    }  # fmt: skip
    require(len(d) in choices)
    equation, other = choices[len(d)][g.r.integers(len(choices[len(d)]))]
    g.add("Einsum", [x, other()] if other else [x], equation=equation)


def scatter_nd(g):
    x = g.pick(kinds=FLOAT + ("int64", "int32", "float64"), least=1)
    depth = int(g.r.integers(1, x.array.ndim + 1))
    places = np.stack([i.ravel() for i in np.indices(x.array.shape[:depth])], -1)
    # Every place once: of two that write to one, the order would decide.
    chosen = places[g.r.permutation(len(places))[: g.r.integers(1, len(places) + 1)]].astype(np.int64)
    how = str(g.r.choice(["none", "none", "add", "mul", "max", "min"]))
    updates = g.array((len(chosen), *x.array.shape[depth:]), x.array.dtype)
    g.add("ScatterND", [x, chosen, updates], exact=x.exact and how != "mul" and (x.array.dtype.kind != "f" or how != "add"), reduction=how)


def one_hot(g):
    x = g.pick(kinds=("int64", "int32"), exact=True)
    require(x.array.ndim < 4)
    values = np.array([0, 1], x.array.dtype) if g.r.random() < 0.3 else np.array([-0.5, 2], F32)
    depth = np.asarray(g.r.integers(1, 6), x.array.dtype)
    g.add("OneHot", [x, depth, values], exact=True, axis=int(g.r.integers(-x.array.ndim - 1, x.array.ndim + 1)))


def non_zero(g):
    x = g.pick(kinds=FLOAT + ("int64", "int32", "bool"), exact=True, least=1)
    g.add("NonZero", [x], exact=True, counted=[1])


def unique(g):
    x = g.pick(kinds=FLOAT + ("int64",), exact=True, least=1)
    require(x.array.ndim < 5)
    axis = {} if g.r.random() < 0.4 else {"axis": int(g.r.integers(x.array.ndim))}
    counted = [axis.get("axis", 0), 0, None, 0]
    if "axis" in axis:
        require(np.unique(x.array, axis=axis["axis"]).size)
    g.add("Unique", [x], 4, exact=True, counted=counted, sorted=int(g.r.integers(2)), **axis)


def compress(g):
    x = g.pick(least=1)
    axis = int(g.r.integers(x.array.ndim))
    choose = g.input(g.r.random(x.array.shape[axis]) < 0.6)
    require(choose.array.any())
    g.add("Compress", [x, choose], exact=x.exact, counted=[axis], axis=axis)


def suppress(g):
    batch, classes, n = (int(v) for v in g.r.integers(1, (3, 4, 20)))
    ends = g.r.integers(0, 40, (batch, n, 2, 2)) / 4
    require((ends[:, :, 0] != ends[:, :, 1]).all())
    boxes = g.input(ends.reshape(batch, n, 4).astype(F32))
    order = g.r.permuted(np.broadcast_to(np.arange(n), (batch, classes, n)), axis=-1)
    scores = g.input(((order + 1) / (n + 1)).astype(F32))
    # Not a share that boxes on a grid of quarters have.
    limits = [np.array([g.r.integers(1, 8)], np.int64), np.array([g.r.choice([0.317, 0.513])], F32)]
    if g.r.random() < 0.5:
        limits.append(np.array([0.3217], F32))
    g.add("NonMaxSuppression", [boxes, scores, *limits], exact=True, counted=[0])


def attention(g):
    batch, heads, rows, width = (int(v) for v in g.r.integers(1, (3, 4, 6, 6)))
    others = int(g.r.integers(1, 7))
    some = lambda *shape: g.input(g.array(shape, F32, -2, 2))
    if g.opset >= 23 and g.r.random() < 0.6:
        flat = g.r.random() < 0.5
        shape = lambda n, h: (batch, n, h * width) if flat else (batch, h, n, width)
        groups = int(g.r.choice([h for h in range(1, heads + 1) if heads % h == 0]))
        inputs = [some(*shape(rows, heads)), some(*shape(others, groups)), some(*shape(others, groups))]
        more = {"q_num_heads": heads, "kv_num_heads": groups} if flat else {}
        if g.r.random() < 0.4:
            inputs.append(g.array((rows, others), F32))
        if g.r.random() < 0.3:
            more["is_causal"] = 1
        if g.r.random() < 0.3:
            more["softcap"] = 2.0
        if g.r.random() < 0.3:
            more["scale"] = 0.75
        return g.add("Attention", inputs, **more)
    if g.r.random() < 0.5:
        hidden = heads * width
        inputs = [some(batch, rows, hidden), some(batch, others, hidden), some(batch, others, hidden)]
        if g.r.random() < 0.4:
            inputs.append(g.array((3 * hidden,), F32, -1, 1))
        return g.add("MultiHeadAttention", inputs, domain="com.microsoft", num_heads=heads)
    hidden = heads * width
    inputs = [some(batch, rows, hidden), g.array((hidden, 3 * hidden), F32, -1, 1), g.array((3 * hidden,), F32, -1, 1)]
    more = {"unidirectional": int(g.r.integers(2))}
    g.add("Attention", inputs, domain="com.microsoft", num_heads=heads, **more)


def normalise(g):
    kind = str(g.r.choice(["InstanceNormalization", "GroupNormalization", "LpNormalization", "LRN", "MeanVarianceNormalization", "RMSNormalization"]))
    x = steady(g, least=2)
    c, n = x.array.shape[1], x.array.shape[-1]
    per = lambda m: [g.array((m,), F32), g.array((m,), F32)]
    spread = lambda axes: require(np.prod([x.array.shape[a] for a in axes]) > 2 and np.std(x.array, axis=tuple(axes)).min() > 0.1)
    if kind == "LpNormalization":
        axis = int(g.r.integers(x.array.ndim))
        require(np.abs(x.array).max(axis=axis).min() > 0.1)
        return g.add(kind, [x], axis=axis, p=int(g.r.integers(1, 3)))
    if kind == "RMSNormalization":
        require(np.abs(x.array).max(axis=-1).min() > 0.1)
        return g.add(kind, [x, per(n)[0]], axis=-1)
    require(x.array.ndim > 2)
    if kind == "LRN":
        return g.add(kind, [x], size=int(g.r.choice([1, 3, 5])), alpha=0.02, beta=0.6, bias=1.5)
    if kind == "MeanVarianceNormalization":
        require(x.array.ndim == 4)
        spread((0, 2, 3))
        return g.add(kind, [x])
    spread(range(2, x.array.ndim))
    if kind == "GroupNormalization":
        groups = int(g.r.choice([d for d in range(1, c + 1) if c % d == 0]))
        return g.add(kind, [x, *per(groups if g.opset < 21 else c)], num_groups=groups)
    g.add(kind, [x, *per(c)])


def fused(g):
    """What exporters and optimisers make for ONNX Runtime."""
    microsoft = {"domain": "com.microsoft"}
    x = steady(g, least=2)
    n = x.array.shape[-1]
    some = lambda *shape: g.array(shape, F32, -1, 1)
    which = g.r.integers(7)
    if which == 0:
        return g.add("BiasGelu", [x, some(n)], **microsoft)
    if which == 1:
        return g.add("FastGelu", [x] + ([some(n)] if g.r.random() < 0.5 else []), **microsoft)
    if which == 2:
        kind = str(g.r.choice(["Gelu", "QuickGelu"]))
        return g.add(kind, [x], **microsoft)
    if which == 3:
        skip = g.constant(g.array(x.array.shape, F32))
        require(x.array.ndim == 3 and n > 2 and np.std(x.array + skip.array, axis=-1).min() > 0.1)
        kind = str(g.r.choice(["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"]))
        inputs = [x, skip, some(n)] + ([some(n)] if kind == "SkipLayerNormalization" else [])
        return g.add(kind, inputs, epsilon=1e-5, **microsoft)
    if which == 4:
        other = some(int(g.r.integers(1, 9)), n)
        require(x.array.ndim == 2)
        return g.add("FusedMatMul", [x, other], transB=1, alpha=float(g.r.choice([1.0, 0.5])), **microsoft)
    activation = str(g.r.choice(["Relu", "Tanh", "Sigmoid"]))
    if which == 5:
        require(x.array.ndim == 2)
        return g.add("FusedGemm", [x, some(n, 4), some(4)], activation=activation, **microsoft)
    require(x.array.ndim == 4)
    g.add("FusedConv", [x, some(3, x.array.shape[1], 1, 1), some(3)], activation=activation, **microsoft)


def fused_bytes(g):
    """Of bytes with scales."""
    microsoft = {"domain": "com.microsoft"}
    x = g.pick(kinds=("uint8", "int8"), exact=True, least=1)
    kind = x.array.dtype
    scale = lambda: np.asarray(g.r.choice([0.0625, 0.03, 0.11]), F32)
    zero = lambda: np.asarray(g.r.integers(0, 9), kind)
    which = g.r.integers(5)
    if which == 0:
        y = g.partner(x)
        require(y.exact)
        inputs = [x, scale(), zero(), y, scale(), zero(), scale(), zero()]
        return g.add(str(g.r.choice(["QLinearAdd", "QLinearMul"])), inputs, exact=True, **microsoft)
    if which == 1:
        return g.add(str(g.r.choice(["QLinearSigmoid", "QLinearLeakyRelu"])), [x, scale(), zero(), scale(), zero()], exact=False, **microsoft)
    if which == 2:
        require(x.array.ndim == 4)
        return g.add("QLinearGlobalAveragePool", [x, scale(), zero(), scale(), zero()], exact=False, channels_last=0, **microsoft)
    require(x.array.ndim == 2)
    w = g.array((x.array.shape[1], int(g.r.integers(1, 9))), np.dtype(np.int8))
    if which == 3:
        inputs = [x, scale(), zero(), w, scale(), np.asarray(0, np.int8), None, scale(), zero()]
        return g.add("QGemm", inputs, exact=True, **microsoft)
    g.add("MatMulIntegerToFloat", [x, w, scale(), scale(), zero(), np.asarray(1, np.int8)], **microsoft)


def trees(g):
    """A forest of small trees over columns."""
    x = g.pick(kinds=FLOAT, rank=2, exact=True)
    columns = x.array.shape[1]
    parts = {k: [] for k in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")}
    leaves = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}
    for tree in range(int(g.r.integers(1, 4))):
        depth = int(g.r.integers(1, 4))
        inner = (1 << depth) - 1
        for node in range(2 * inner + 1):
            leaf = node >= inner
            row = (tree, node, 0 if leaf else int(g.r.integers(columns)), 0.0 if leaf else float(g.r.integers(-20, 20) / 8))
            mode = "LEAF" if leaf else "BRANCH_LEQ"
            for key, value in zip(parts, (*row, mode, 0 if leaf else 2 * node + 1, 0 if leaf else 2 * node + 2)):
                parts[key].append(value)
            if leaf:
                for key, value in zip(leaves, (tree, node, int(g.r.integers(2)), float(g.r.integers(-16, 16) / 16))):
                    leaves[key].append(value)
    attributes = {f"nodes_{k}": v for k, v in parts.items()} | {f"target_{k}": v for k, v in leaves.items()}
    g.add("TreeEnsembleRegressor", [x], domain="ai.onnx.ml", n_targets=2, **attributes)


def learned(g):
    """Of ai.onnx.ml, on columns of numbers."""
    x = g.pick(kinds=FLOAT, rank=2)
    n = x.array.shape[1]
    numbers = lambda count: [float(v) for v in g.array((count,), F32)]
    ml = {"domain": "ai.onnx.ml"}
    which = g.r.integers(6)
    if which == 0:
        return g.add("Scaler", [x], offset=numbers(n), scale=numbers(n), **ml)
    if which == 1:
        require(np.abs(x.array).max(axis=1).min() > 0.1)
        return g.add("Normalizer", [x], norm=str(g.r.choice(["MAX", "L1", "L2"])), **ml)
    if which == 2:
        targets = int(g.r.integers(1, 4))
        return g.add("LinearRegressor", [x], coefficients=numbers(n * targets), intercepts=numbers(targets), targets=targets, **ml)
    if which == 3:
        require(x.exact)
        return g.add("Binarizer", [x], exact=True, threshold=0.25, **ml)
    if which == 4:
        places = g.r.integers(0, n, int(g.r.integers(1, 4))).astype(np.int64)
        return g.add("ArrayFeatureExtractor", [x, places], exact=x.exact, **ml)
    classes = int(g.r.integers(3, 5))
    after = str(g.r.choice(["NONE", "SOFTMAX", "LOGISTIC"]))
    ids = [int(v) for v in g.r.permutation(classes)]
    require(x.exact)
    g.add("LinearClassifier", [x], 2, exact=False, coefficients=numbers(n * classes), intercepts=numbers(classes), classlabels_ints=ids, multi_class=0, post_transform=after, **ml)


def encode(g):
    """Whole numbers to others."""
    x = g.pick(kinds=("int64",), exact=True)
    keys = [int(v) for v in g.r.permutation(np.arange(-5, 12))[:4]]
    ml = {"domain": "ai.onnx.ml"}
    if g.r.random() < 0.5:
        require(x.array.ndim < 4)
        return g.add("OneHotEncoder", [x], exact=True, cats_int64s=keys, zeros=1, **ml)
    values = [float(v) for v in g.array((4,), F32)]
    g.add("LabelEncoder", [x], exact=True, keys_int64s=keys, values_floats=values, default_float=-1.5, **ml)


def other_floats(g):
    """Arithmetic and functions of the wider and the narrower type."""
    kind = F64 if g.r.random() < 0.6 else F16
    found = [v for v in g.values if v.array.dtype == kind]
    x = found[g.r.integers(len(found))] if found and g.r.random() < 0.7 else g.add("Cast", [steady(g)], exact=False, to=int(np_type(kind)))[0]
    require(np.abs(x.array).max() < 20)
    which = g.r.integers(4)
    if which == 0:
        return g.add(str(g.r.choice(["Add", "Sub", "Mul", "Max", "Min"])), [x, g.partner(x)], exact=False)
    if which == 1:
        return g.add(str(g.r.choice(["Abs", "Neg", "Tanh", "Sigmoid", "Relu"])), [x], exact=False)
    if which == 2:
        require(x.array.ndim >= 1)
        return g.add("ReduceSum", [x, np.array([-1], np.int64)], exact=False, keepdims=int(g.r.integers(2)))
    require(x.array.ndim >= 2)
    g.add("MatMul", [x, g.array((x.array.shape[-1], int(g.r.integers(1, 6))), kind, -1, 2)], exact=False)


def through_brain(g):
    """To bfloat16 and back, in a graph of one node: numpy has no such type."""
    x = steady(g)
    nodes = [
        helper.make_node("Cast", [x.name], ["narrow"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["narrow"], ["wide"], to=TensorProto.FLOAT),
    ]
    inner = lambda: body(g, "through", nodes, [], [("wide", x.array)])
    require(x.exact)
    g.add("If", [np.asarray(True)], captured=[x], then_branch=inner(), else_branch=inner())


def bits(g):
    x = g.pick(kinds=("uint8", "uint16", "int8", "int16", "int32", "int64"))
    if x.array.dtype.kind == "u" and g.r.random() < 0.4:
        return g.add("BitShift", [x, g.partner(x, low=0, high=5)], exact=x.exact, direction=str(g.r.choice(["LEFT", "RIGHT"])))
    kind = str(g.r.choice(["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"]))
    g.add(kind, [x] if kind == "BitwiseNot" else [x, g.partner(x)], exact=x.exact)


def narrow_whole(g):
    x = g.pick(kinds=WHOLE + ("int16", "uint16"), exact=True)
    to = np.dtype(g.r.choice(["int16", "uint16"]))
    require(to.kind == "i" or x.array.min() >= 0)
    require(np.abs(x.array.astype(np.int64)).max() < 1 << 15)
    g.add("Cast", [x], exact=True, to=int(np_type(to)))


def quantise_rows(g):
    """A scale and a zero point for each index of an axis, or each block; and of 16 bits."""
    x = g.pick(kinds=FLOAT, exact=True, least=2)
    axis = int(g.r.integers(x.array.ndim))
    n = x.array.shape[axis]
    kind = np.dtype(g.r.choice(["uint8", "int8", "uint16", "int16"] if g.opset >= 21 else ["uint8", "int8"]))
    scale = g.r.choice([0.0625, 0.03, 0.11], n).astype(F32)
    q = g.add("QuantizeLinear", [x, scale, g.r.integers(0, 20, n).astype(kind)], exact=True, axis=axis)[0]
    if g.r.random() < 0.5:
        g.add("DequantizeLinear", [q, scale, g.r.integers(0, 20, n).astype(kind)], axis=axis)


def movement(g):
    x = g.pick(least=2)
    which = g.r.integers(3)
    if which == 0:
        require(x.array.dtype in (F32, I64))
        lens = g.r.integers(1, x.array.shape[0] + 1, x.array.shape[1]).astype(np.int64)
        return g.add("ReverseSequence", [x, lens], exact=x.exact, time_axis=0, batch_axis=1)
    if which == 1:
        require(x.array.dtype in (F32, I64) and x.array.ndim == 2)
        return g.add("EyeLike", [x], exact=True, k=int(g.r.integers(-2, 3)))
    g.add("Shape", [x], exact=True, start=int(g.r.integers(x.array.ndim)))


def functions(g):
    x = steady(g)
    which = g.r.integers(6)
    if which == 0:
        return g.add("PRelu", [x, g.partner(x)])
    if which == 1:
        require(x.exact)
        return g.add("Shrink", [x], lambd=0.53, bias=0.25)
    if which == 2:
        require(x.exact)
        return g.add("ThresholdedRelu", [x], alpha=0.53)
    if which == 3:
        return g.add(str(g.r.choice(["Sum", "Mean"])), [x, g.partner(x), g.partner(x)])
    if which == 4:
        require(x.exact and x.array.ndim)
        return g.add("Hardmax", [x], exact=True, axis=int(g.r.integers(x.array.ndim)))
    g.add("Gelu", [x], approximate=str(g.r.choice(["none", "tanh"])))


def pictures(g):
    x = steady(g, rank=4)
    n, c, h, w = x.array.shape
    which = g.r.integers(3)
    if which == 0:
        grid = g.r.uniform(-1.2, 1.2, (n, 3, 4, 2)).astype(F32)
        how = {"mode": "linear" if g.opset >= 20 else "bilinear", "padding_mode": str(g.r.choice(["zeros", "border"])), "align_corners": int(g.r.integers(2))}
        return g.add("GridSample", [x, grid], **how)
    if which == 1:
        k = [int(g.r.integers(1, min(3, d) + 1)) for d in (h, w)]
        return g.add("LpPool", [x], kernel_shape=k, strides=[1, 1], p=int(g.r.integers(1, 3)))
    scales = np.array([1, 1, g.r.choice([0.5, 1.5, 2.0]), g.r.choice([0.5, 1.5, 2.0])], F32)
    how = str(g.r.choice(["half_pixel", "align_corners", "asymmetric"]))
    # Where the length is a fraction, ONNX's definition takes it as it is and ONNX Runtime cuts it.
    require(how != "align_corners" or all(float(d * s).is_integer() for d, s in zip(x.array.shape, scales)))
    g.add("Resize", [x, None, scales], mode=str(g.r.choice(["linear", "cubic"])), coordinate_transformation_mode=how)


ALL = [
    recurrent, recurrent, branch, branch, loop, loop, scan, scan, einsum, einsum, scatter_nd, one_hot, non_zero, unique, compress,
    suppress, attention, attention, normalise, normalise, fused, fused, fused_bytes, fused_bytes, trees, learned, learned, encode,
    other_floats, other_floats, through_brain, bits, narrow_whole, quantise_rows, movement, functions, pictures,
]  # fmt: skip
