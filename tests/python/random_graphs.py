"""Random small graphs whose every node ONNX Runtime computes: grown node by node, each run alone as soon as it is proposed.

Tensors carry their values, so that a proposal can ask for what makes its answer one: no division by almost nothing, and steps
(rounding, comparing, the place of a largest element) only on numbers that every implementation has exactly.
"""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

F32 = np.dtype(np.float32)
TYPES = [np.dtype(t) for t in ("float32",) * 8 + ("int64", "int32", "int8", "uint8", "bool") * 2 + ("float64", "float16", "int16", "uint16")]
OPSETS = (18, 20, 21, 23)
# Domains beside ONNX's own, and the version of each that is asked for.
DOMAINS = {"com.microsoft": 1, "ai.onnx.ml": 3}
# Elements of a tensor, and the size of its numbers, at most.
MOST, LARGEST = 4096, 100


class Value:
    """A tensor; `exact` where rounding cannot have made two of it."""

    def __init__(self, name, array, exact):
        self.name, self.array, self.exact = name, array, exact


class Refused(Exception):
    """A proposal that does not suit the values."""


def require(condition):
    if not condition:
        raise Refused


class RandomGraph:
    """Grows with `add`."""

    def __init__(self, seed):
        self.r = np.random.default_rng(seed)
        self.opset = int(self.r.choice(OPSETS))
        self.values, self.inputs, self.nodes, self.constants = [], [], [], {}
        # What the graphs inside of a node read from around it; and outputs that have as many rows along an axis as the data says.
        self.captured, self.counted = {}, {}
        for i in range(self.r.integers(1, 4)):
            self.values.append(self.input(self.array(self.shape(), self.kind())))

    def input(self, array):
        """One more input of the graph."""
        self.inputs.append(Value(f"x{len(self.inputs)}", array, True))
        return self.inputs[-1]

    def kind(self):
        return TYPES[self.r.integers(len(TYPES))]

    def shape(self, rank=None):
        rank = self.r.integers(1, 5) if rank is None else rank
        return tuple(int(d) for d in self.r.integers(1, 7, rank))

    def array(self, shape, kind, low=None, high=None):
        if kind.kind == "f":
            # Sixteenths: sums and products of few are exact.
            low, high = (-3, 3) if low is None else (low, high)
            return (self.r.integers(int(low * 16), int(high * 16) + 1, shape) / 16).astype(kind)
        if kind == np.bool_:
            return self.r.random(shape) < 0.5
        low, high = {"u": (0, 20), "i": (-10, 11)}[kind.kind] if low is None else (low, high)
        return self.r.integers(low, high, shape).astype(kind)

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(array).reshape(np.shape(array))
        return Value(name, self.constants[name], True)

    def pick(self, *, kinds=None, rank=None, exact=False, least=0):
        found = [
            v for v in self.values
            if (kinds is None or v.array.dtype.name in kinds) and (rank is None or v.array.ndim == rank)
            and (v.exact or not exact) and v.array.ndim >= least
        ]  # fmt: skip
        require(found)
        # The newest are the likeliest: graphs grow deep, not only wide.
        weights = np.arange(1, len(found) + 1) ** 1.5
        return found[self.r.choice(len(found), p=weights / weights.sum())]

    def partner(self, value, **options):
        """A tensor of the same type that broadcasts: one that is there, or a constant."""
        shape = list(value.array.shape[int(self.r.integers(0, value.array.ndim + 1)) :])
        for i in range(len(shape)):
            if self.r.random() < 0.3:
                shape[i] = 1
        same = [v for v in self.values if v.array.dtype == value.array.dtype and v.array.shape == value.array.shape]
        if same and not options and self.r.random() < 0.5:
            return same[self.r.integers(len(same))]
        return self.constant(self.array(tuple(shape), value.array.dtype, **options))

    def add(self, kind, inputs, outputs=1, exact=None, captured=(), counted=None, **attributes):
        """Runs the node alone; its outputs join when they are numbers that one can compare.

        `captured` are tensors that graphs inside of it read. `counted` is the axis of each output along which the data says how
        many rows there are, or None: nothing is made of those that have one."""
        inputs = [self.constant(np.asarray(i)) if isinstance(i, (np.ndarray, np.generic)) else i for i in inputs]
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        node = helper.make_node(kind, [i.name if i else "" for i in inputs], names, name=f"n{len(self.nodes)}", **attributes)
        around = {v.name: v for v in [*inputs, *captured] if v}
        given = {name: v.array for name, v in around.items() if name not in self.constants}
        arrays = run(self.model([node], given, names, captured=[v.name for v in captured]), given)
        for array in arrays:
            require(0 < array.size <= MOST and array.ndim <= 6)
            require(array.dtype in TYPES or array.dtype.kind in "iu")
            require(array.dtype.kind != "f" or np.isfinite(array).all() and np.abs(array).max() <= LARGEST)
            require(array.dtype.kind != "i" or np.abs(array.astype(np.int64)).max() < 1 << 31)
        if exact is None:
            exact = all(v.exact for v in around.values()) and all(a.dtype.kind != "f" for a in arrays)
        self.nodes.append(node)
        self.captured[node.name] = [v.name for v in captured]
        counted = counted or [None] * outputs
        self.counted.update((name, axis) for name, axis in zip(names, counted) if axis is not None)
        found = [Value(name, array, exact) for name, array in zip(names, arrays)]
        self.values.extend(v for v, axis in zip(found, counted) if axis is None)
        return found

    def reads(self, node):
        return {*node.input, *self.captured[node.name]}

    def model(self, nodes, given, outputs, captured=()):
        """A model of these nodes with these inputs; `captured` is what a node reads that is not in the graph yet."""
        used = {name for node in nodes for name in node.input} | set(captured)
        used |= {name for node in nodes for name in self.captured.get(node.name, [])}
        domains = sorted({node.domain for node in nodes} - {""})
        return helper.make_model(
            helper.make_graph(
                nodes,
                "random",
                [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in given.items()],
                [onnx.ValueInfoProto(name=name) for name in outputs],
                [numpy_helper.from_array(a, n) for n, a in self.constants.items() if n in used],
            ),
            opset_imports=[helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, DOMAINS[d]) for d in domains)],
            ir_version=10,
        )

    def whole(self, outputs=None):
        """The graph, or what `outputs` need of it: model, inputs, answers. Without `outputs`, what nothing else reads."""
        if outputs is None:
            read = set().union(*map(self.reads, self.nodes))
            outputs = [name for node in self.nodes for name in node.output if name not in read]
        needed, nodes = set(outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                nodes.insert(0, node)
                needed |= self.reads(node)
        given = {v.name: v.array for v in self.inputs if v.name in needed}
        model = self.model(nodes, given, outputs)
        answers = run(model, given)
        del model.graph.output[:]
        for name, a in zip(outputs, answers):
            shape = ["rows" if axis == self.counted.get(name) else d for axis, d in enumerate(a.shape)]
            model.graph.output.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), shape))
        return model, list(given.values()), answers


def run(model, given):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, given)


def grow(seed, proposals):
    """A graph of two to ten nodes; the same seed gives the same one."""
    graph = RandomGraph(seed)
    wanted = int(graph.r.integers(2, 11))
    for _ in range(60):
        if len(graph.nodes) >= wanted:
            break
        constants, inputs = dict(graph.constants), list(graph.inputs)
        try:
            proposals[graph.r.integers(len(proposals))](graph)
        except Exception as error:
            # ONNX Runtime has not every operator for every type.
            if not (isinstance(error, Refused) or of_runtime(error)):
                raise
            graph.constants, graph.inputs = constants, inputs
    while graph.nodes:
        try:
            graph.whole()
            break
        except Exception as error:
            # What it infers of a whole graph is not always what its nodes give (a pool that rounds up): it refuses its own answers.
            if not of_runtime(error):
                raise
            graph.nodes.pop()
    return graph


def of_runtime(error):
    """Whether ONNX Runtime says no; its exceptions have no base of their own."""
    return "onnxruntime" in type(error).__module__
