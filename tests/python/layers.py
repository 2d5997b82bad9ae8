"""Builds networks layer by layer as exporters write them: He-initialised from a seed, batch norms calibrated on data."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class Net:
    """A graph that grows. Methods take and give names of tensors."""

    def __init__(self, name, seed=7):
        self.name = name
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants, self.inputs, self.outputs = [], [], [], []
        self.channels, self.given, self.norms = {}, {}, []

    def fresh(self, stem):
        return f"{stem}_{len(self.nodes)}_{len(self.constants)}"

    def input(self, name, array, channels=None):
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, kind, array.shape))
        self.given[name] = array
        self.channels[name] = channels or (array.shape[1] if array.ndim > 1 else None)
        return name

    def constant(self, array, stem="c"):
        name = self.fresh(stem)
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind, *inputs, count=1, channels=None, **attributes):
        made = [self.fresh(kind.lower()) + (f"_{i}" if count > 1 else "") for i in range(count)]
        names = [self.constant(i) if isinstance(i, np.ndarray | np.generic) else i for i in inputs]
        self.nodes.append(helper.make_node(kind, names, made, name=made[0], **attributes))
        for name in made:
            self.channels[name] = channels or self.channels.get(names[0])
        return made[0] if count == 1 else made

    def weight(self, *shape, fan_in=None, gain=2.0):
        """He et al. 2015: variance gain / fan-in."""
        fan_in = fan_in or int(np.prod(shape[1:]))
        return (self.random.standard_normal(shape) * np.sqrt(gain / fan_in)).astype(np.float32)

    def conv(self, x, out, k, stride=1, pad=None, groups=1, dilation=1, bias=False):
        into = self.channels[x]
        pad = dilation * (k // 2) if pad is None else pad
        inputs = [x, self.weight(out, into // groups, k, k)]
        if bias:
            inputs.append(self.small(out))
        return self.op("Conv", *inputs, channels=out, kernel_shape=[k, k], strides=[stride] * 2, pads=[pad] * 4, group=groups, dilations=[dilation] * 2)

    def small(self, n):
        return (self.random.standard_normal(n) * 0.02).astype(np.float32)

    def norm(self, x):
        """A batch norm; its mean and variance are what the data shows, see `model`."""
        c = self.channels[x]
        scale = self.random.uniform(0.5, 1.5, c).astype(np.float32)
        names = [self.constant(a) for a in (scale, self.small(c), np.zeros(c, np.float32), np.ones(c, np.float32))]
        y = self.op("BatchNormalization", x, *names)
        self.norms.append((len(self.nodes) - 1, names[2], names[3]))
        return y

    def act(self, x, kind):
        match kind:
            case None:
                return x
            case "relu6":
                return self.op("Clip", x, np.float32(0), np.float32(6))
            case "silu":
                return self.op("Mul", x, self.op("Sigmoid", x))
            case "gelu":
                half = self.op("Mul", x, self.op("Add", self.op("Erf", self.op("Div", x, np.float32(np.sqrt(2)))), np.float32(1)))
                return self.op("Mul", half, np.float32(0.5))
            case _:
                return self.op(kind, x)

    def conv_norm(self, x, out, k, stride=1, groups=1, act="Relu", dilation=1, pad=None):
        return self.act(self.norm(self.conv(x, out, k, stride, pad, groups, dilation)), act)

    def linear(self, x, into, out, gain=1.0, bias=True):
        y = self.op("MatMul", x, self.weight(into, out, fan_in=into, gain=gain))
        return self.op("Add", y, self.small(out)) if bias else y

    def layer_norm(self, x, width):
        scale = self.random.uniform(0.8, 1.2, width).astype(np.float32)
        return self.op("LayerNormalization", x, scale, self.small(width), axis=-1, epsilon=1e-5)

    def reshape(self, x, *shape):
        return self.op("Reshape", x, np.array(shape, np.int64))

    def attention(self, x, tokens, width, heads, mask=None):
        """As PyTorch exports it: three products, heads split by Reshape and Transpose."""
        each = width // heads

        def head(perm):
            split = self.reshape(self.linear(x, width, width), 1, tokens, heads, each)
            return self.op("Transpose", split, perm=perm)

        q, k, v = head([0, 2, 1, 3]), head([0, 2, 3, 1]), head([0, 2, 1, 3])
        scores = self.op("Div", self.op("MatMul", q, k), np.float32(np.sqrt(each)))
        if mask:
            scores = self.op("Add", scores, mask)
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        joined = self.reshape(self.op("Transpose", mixed, perm=[0, 2, 1, 3]), 1, tokens, width)
        return self.linear(joined, width, width)

    def feed_forward(self, x, width, hidden):
        return self.linear(self.act(self.linear(x, width, hidden, gain=2.0), "gelu"), hidden, width)

    def output(self, x, name, kind=TensorProto.FLOAT):
        self.nodes.append(helper.make_node("Identity", [x], [name], name=name))
        self.outputs.append(helper.make_tensor_value_info(name, kind, None))

    def model(self):
        """The model with static shapes."""
        if self.norms:
            self.calibrate()
        return onnx.shape_inference.infer_shapes(self.built(self.nodes, self.outputs))

    def built(self, nodes, outputs):
        graph = helper.make_graph(nodes, self.name, self.inputs, outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)

    def calibrate(self):
        """One pass in training mode normalises each layer by what it sees, and says what that was."""
        nodes, seen = [], []
        for i, node in enumerate(self.nodes):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            if node.op_type == "BatchNormalization":
                copy.output.extend([f"{node.output[0]}_mean", f"{node.output[0]}_variance"])
                copy.attribute.extend([helper.make_attribute("training_mode", 1), helper.make_attribute("momentum", 0.0)])
                seen.extend(copy.output[1:])
            nodes.append(copy)
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in seen]
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(self.built(nodes, outputs).SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = dict(zip(seen, session.run(seen, self.given)))
        constants = {c.name: c for c in self.constants}
        for index, mean, variance in self.norms:
            y = self.nodes[index].output[0]
            # A layer whose map is a single pixel shows no variance.
            spread = np.maximum(found[f"{y}_variance"], 1e-2)
            for name, array in ((mean, found[f"{y}_mean"]), (variance, spread)):
                constants[name].CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))


def image(seed, *shape):
    """Smooth patches and noise, centred: what a normalised photograph is like to a convolution."""
    random = np.random.default_rng(seed)
    coarse = random.standard_normal((*shape[:-2], (shape[-2] + 15) // 16, (shape[-1] + 15) // 16))
    smooth = np.kron(coarse, np.ones((16, 16)))[..., : shape[-2], : shape[-1]]
    return (smooth + 0.3 * random.standard_normal(shape)).astype(np.float32)
