"""Random small graphs whose every node ONNX Runtime computes: grown node by node, each run alone as soon as it is proposed.

Tensors carry their values, so that a proposal can ask for what makes its answer one: no division by almost nothing, and steps
(rounding, comparing, the place of a largest element) only on numbers that every implementation has exactly.
"""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

F32 = np.dtype(np.float32)
TYPES = [np.dtype(t) for t in ("float32", "float32", "float32", "float32", "int64", "int32", "int8", "uint8", "bool")]
OPSETS = (18, 20, 21)
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
        for i in range(self.r.integers(1, 4)):
            value = Value(f"x{i}", self.array(self.shape(), self.kind()), True)
            self.inputs.append(value)
            self.values.append(value)

    def kind(self):
        return TYPES[self.r.integers(len(TYPES))]

    def shape(self, rank=None):
        rank = self.r.integers(1, 5) if rank is None else rank
        return tuple(int(d) for d in self.r.integers(1, 7, rank))

    def array(self, shape, kind, low=None, high=None):
        if kind == F32:
            # Sixteenths: sums and products of few are exact.
            low, high = (-3, 3) if low is None else (low, high)
            return (self.r.integers(int(low * 16), int(high * 16) + 1, shape) / 16).astype(F32)
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

    def add(self, kind, inputs, outputs=1, exact=None, **attributes):
        """Runs the node alone; its outputs join when they are numbers that one can compare."""
        inputs = [self.constant(np.asarray(i)) if isinstance(i, (np.ndarray, np.generic)) else i for i in inputs]
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        node = helper.make_node(kind, [i.name if i else "" for i in inputs], names, name=f"n{len(self.nodes)}", **attributes)
        given = {i.name: i.array for i in inputs if i and i.name not in self.constants}
        arrays = run(self.model([node], given, names), given)
        for array in arrays:
            require(0 < array.size <= MOST and array.ndim <= 6)
            require(array.dtype in (F32, np.bool_) or array.dtype.kind in "iu")
            require(array.dtype != F32 or np.isfinite(array).all() and np.abs(array).max() <= LARGEST)
            require(array.dtype.kind != "i" or np.abs(array.astype(np.int64)).max() < 1 << 31)
        if exact is None:
            exact = all(i.exact for i in inputs if i) and all(a.dtype != F32 for a in arrays)
        self.nodes.append(node)
        self.values.extend(Value(name, array, exact) for name, array in zip(names, arrays))

    def model(self, nodes, given, outputs):
        """A model of these nodes with these inputs."""
        used = {name for node in nodes for name in node.input}
        return helper.make_model(
            helper.make_graph(
                nodes,
                "random",
                [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in given.items()],
                [onnx.ValueInfoProto(name=name) for name in outputs],
                [numpy_helper.from_array(a, n) for n, a in self.constants.items() if n in used],
            ),
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=10,
        )

    def whole(self, outputs=None):
        """The graph, or what `outputs` need of it: model, inputs, answers. Without `outputs`, what nothing else reads."""
        if outputs is None:
            read = {name for node in self.nodes for name in node.input}
            outputs = [name for node in self.nodes for name in node.output if name not in read]
        needed, nodes = set(outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                nodes.insert(0, node)
                needed |= set(node.input)
        given = {v.name: v.array for v in self.inputs if v.name in needed}
        model = self.model(nodes, given, outputs)
        answers = run(model, given)
        del model.graph.output[:]
        for name, a in zip(outputs, answers):
            model.graph.output.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape))
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
        constants = dict(graph.constants)
        try:
            proposals[graph.r.integers(len(proposals))](graph)
        except Exception as error:
            # ONNX Runtime has not every operator for every type.
            if not (isinstance(error, Refused) or of_runtime(error)):
                raise
            graph.constants = constants
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
