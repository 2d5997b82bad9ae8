"""Writes a trained network as ONNX: input `image` FP32 [1,1,8,8], output `scores` FP32 [1,10]."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import network as net

# ReduceMean still has its axes as an attribute in 17.
OPSET = 17


def to_onnx(network, version, *, input_scale=1.0, normalise=False):
    """`input_scale` is folded into the first weights; `normalise` puts a per-image normalisation in front, as a
    careless author writes it: no epsilon below the fraction line."""
    nodes, constants = [], []

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(op, inputs, name, **attributes):
        nodes.append(helper.make_node(op, inputs, [name], name=f"{op}_{len(nodes)}", **attributes))
        return name

    x = "image"
    if normalise:
        axes = {"axes": [1, 2, 3], "keepdims": 1}
        centred = node("Sub", [x, node("ReduceMean", [x], "mean", **axes)], "centred")
        variance = node("ReduceMean", [node("Mul", [centred, centred], "squared")], "variance", **axes)
        x = node("Div", [centred, node("Sqrt", [variance], "deviation")], "normalised")
    first, last, pixels = True, network.layers[-1], x
    for i, layer in enumerate(network.layers):
        name = "logits" if layer is last else f"{type(layer).__name__.lower()}_{i}"
        match layer:
            case net.Conv():
                weights = layer.params[0] * np.float32(input_scale if first else 1.0)
                first = False
                x = node("Conv", [x, constant(f"{name}.weight", weights)], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            case net.BatchNorm():
                values = zip(("scale", "bias", "mean", "var"), (*layer.params, layer.mean, layer.var))
                inputs = [constant(f"{name}.{k}", v.astype(np.float32)) for k, v in values]
                x = node("BatchNormalization", [x, *inputs], name, epsilon=layer.EPSILON)
            case net.Relu():
                x = node("Relu", [x], name)
            case net.MaxPool():
                x = node("MaxPool", [x], name, kernel_shape=[2, 2], strides=[2, 2])
            case net.GlobalAveragePool():
                x = node("GlobalAveragePool", [x], name)
            case net.Flatten():
                x = node("Flatten", [x], name)
            case net.Dense():
                w, b = (constant(f"{name}.{k}", v) for k, v in zip(("weight", "bias"), layer.params))
                x = node("Gemm", [x, w, b], name)
    if network.wide:
        w, b = (constant(f"wide.{k}", v) for k, v in zip(("weight", "bias"), network.wide.params))
        flat = node("Reshape", [pixels, constant("pixels", np.array([1, 64], np.int64))], "flat")
        x = node("Add", [x, node("Add", [node("MatMul", [flat, w], "wide_product"), b], "wide_scores")], "sum")
    node("Softmax", [x], "scores", axis=1)
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 10])],
        constants,
    )
    model = helper.make_model(
        graph, producer_name="ballast-examples-digits", producer_version=version, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
