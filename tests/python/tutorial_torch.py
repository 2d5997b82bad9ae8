"""What docs/pytorch-to-fleet.md's train.py leaves behind, without PyTorch: model.onnx in the form that torch.onnx.export with
dynamo=True gives (its names of nodes and values, shapes read from the input, allowzero, an open batch), and golden.safetensors.

The weights are those of the digits example, trained elsewhere on the same data. Run in the directory that gets the files.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/digits"


def read_safetensors(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    types = {"F32": np.float32, "I64": np.int64}
    tensors = {}
    for name, spec in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = (8 + length + at for at in spec["data_offsets"])
            tensors[name] = np.frombuffer(data[start:end], types[spec["dtype"]]).reshape(spec["shape"])
    return tensors


def model():
    known = onnx.load(str(EXAMPLE / "models/digits-1.0.0.onnx"))
    weights = {i.name: numpy_helper.to_array(i) for i in known.graph.initializer}
    constants = [numpy_helper.from_array(np.array([64], np.int64), "val_1")]

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def block(n, source, conv, norm, last):
        scale = weights[f"{norm}.scale"] / np.sqrt(weights[f"{norm}.var"] + 1e-5)
        kernel = constant(f"conv{n}.weight", weights[f"{conv}.weight"] * scale[:, None, None, None])
        bias = constant(f"conv{n}.bias", weights[f"{norm}.bias"] - weights[f"{norm}.mean"] * scale)
        suffix = "" if n == 1 else "_1"
        return [
            helper.make_node(
                "Conv", [source, kernel, bias], [f"conv2d{suffix}"], name=f"node_conv2d{suffix}",
                group=1, auto_pad="NOTSET", dilations=[1, 1], strides=[1, 1], pads=[1, 1, 1, 1],
            ),
            helper.make_node("Relu", [f"conv2d{suffix}"], [f"relu{suffix}"], name=f"node_relu{suffix}"),
            helper.make_node(
                "MaxPool", [f"relu{suffix}"], [last], name=f"node_max_pool2d{suffix}",
                kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0], dilations=[1, 1], ceil_mode=0, auto_pad="NOTSET", storage_order=0,
            ),
        ]

    nodes = [
        helper.make_node("Shape", ["image"], ["val_0"], name="node_Shape_0", start=0, end=1),
        *block(1, "image", "conv_0", "batchnorm_1", "max_pool2d"),
        *block(2, "max_pool2d", "conv_4", "batchnorm_5", "max_pool2d_1"),
        helper.make_node("Concat", ["val_0", "val_1"], ["val_2"], name="node_Concat_2", axis=0),
        helper.make_node("Reshape", ["max_pool2d_1", "val_2"], ["flatten"], name="node_flatten", allowzero=1),
        helper.make_node(
            "Gemm", ["flatten", constant("logits.weight", weights["logits.weight"].T), constant("logits.bias", weights["logits.bias"])],
            ["logits"], name="node_linear", alpha=1.0, beta=1.0, transA=0, transB=1,
        ),
    ]
    graph = helper.make_graph(
        nodes, "main_graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        constants,
    )
    return helper.make_model(graph, producer_name="pytorch", ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


def main():
    from safetensors.numpy import save_file

    made = model()
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, "model.onnx")
    golden = read_safetensors(EXAMPLE / "golden.safetensors")
    images, labels = golden["inputs/image"], golden["labels/scores"]
    save_file({"inputs/image": images.copy(), "labels/logits": labels.copy()}, "golden.safetensors")

    # The transplant is the example's model: a tutorial of a wrong one would be no test.
    import onnxruntime

    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    answers = session.run(None, {"image": images.reshape(-1, 1, 8, 8)})[0]
    right = int((answers.argmax(1) == labels).sum())
    print(f"{right} of {len(labels)} images are right")
    return 0 if right >= 90 else 1


if __name__ == "__main__":
    sys.exit(main())
