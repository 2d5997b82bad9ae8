"""Holds quantised operators and networks to ONNX Runtime: integers exactly, byte for byte.

Run by `cargo xtask test`. Everything is made here with fixed seeds; nothing is downloaded and nothing kept. Exits 1 if an answer
differs, or something is no longer taken as far as it once was.
"""

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from safetensors.numpy import save_file

import cases

MS = "com.microsoft"


def answers(model, feeds, names=("y",)):
    """As ONNX Runtime gives them without rewriting the graph first."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(names), feeds)


class Operators:
    """Models of one node whose first input is given with the request; everything else is a constant unless it says so."""

    def __init__(self, folder):
        self.folder, self.random = folder, np.random.default_rng(4)

    def bytes(self, dtype, *shape):
        ends = np.iinfo(dtype)
        return self.random.integers(ends.min, ends.max + 1, shape).astype(dtype)

    def scale(self, *shape):
        return self.random.uniform(0.002, 0.1, shape).astype(np.float32)

    def write(self, name, operator, inputs, kind, domain="", free=(0,), outputs=("y",), **attributes):
        names, feeds, constants, infos = [], {}, [], []
        for i, array in enumerate(inputs):
            names.append("" if array is None else f"i{i}")
            if array is None:
                continue
            if i in free:
                feeds[names[-1]] = array
                infos.append(helper.make_tensor_value_info(names[-1], helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
            else:
                constants.append(numpy_helper.from_array(array, names[-1]))
        node = helper.make_node(operator, names, list(outputs), domain=domain, **attributes)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        results = [helper.make_tensor_value_info(o, k, None) for o, k in zip(outputs, kinds)]
        graph = helper.make_graph([node], "one", infos, results, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)], ir_version=10)
        expected = answers(model, feeds, outputs)
        for info, array in zip(graph.output, expected):
            info.CopyFrom(helper.make_tensor_value_info(info.name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
        del model.graph.output[:]
        model.graph.output.extend(graph.output)
        case = self.folder / name
        case.mkdir()
        (case / "model.onnx").write_bytes(model.SerializeToString())
        tensors = {f"inputs/{n}": a[None] for n, a in feeds.items()} | {f"outputs/{n}": np.array(a, order="C")[None] for n, a in zip(outputs, expected)}
        save_file(tensors, case / "golden.safetensors")

    def all(self):
        kinds = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}
        for dtype, kind in kinds.items():
            t = np.dtype(dtype).name
            zero = lambda *shape, of=dtype: self.bytes(of, *shape)
            one = lambda: [self.scale(), zero()]
            x = self.bytes(dtype, 2, 4, 9, 11)
            for operator, extra in [("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.2}), ("QLinearGlobalAveragePool", {})]:
                self.write(f"{operator} {t}", operator, [x, *one(), *one()], kind, MS, **extra)
            for pads in ([0, 0, 0, 0], [1, 1, 0, 2]):
                for count in (0, 1):
                    attributes = {"kernel_shape": [3, 4], "strides": [2, 1], "pads": pads, "count_include_pad": count}
                    self.write(f"QLinearAveragePool {t} {pads} {count}", "QLinearAveragePool", [x, *one(), *one()], kind, MS, **attributes)
            low = np.array(np.iinfo(dtype).min, dtype)
            self.write(f"QLinearSoftmax {t}", "QLinearSoftmax", [self.bytes(dtype, 5, 23), *one(), np.float32(1 / 256).reshape(()), low], kind, MS, axis=-1, opset=13)
            for shape in [(2, 4, 9, 11), (4, 1, 1), ()]:
                other = self.bytes(dtype, *shape)
                for operator in ("QLinearAdd", "QLinearMul"):
                    self.write(f"{operator} {t} {shape}", operator, [x, *one(), other, *one(), *one()], kind, MS, free=(0, 3))
            parts = [x, *one(), self.bytes(dtype, 2, 3, 9, 11), *one()]
            self.write(f"QLinearConcat {t}", "QLinearConcat", [*one(), *parts], kind, MS, free=(2, 5), axis=1)
            for rows in (1, 7, 33):
                a, b = self.bytes(dtype, rows, 70), self.bytes(np.int8, 70, 19)
                b_zero, c = self.bytes(np.int8, 19), self.random.integers(-9000, 9000, 19).astype(np.int32)
                self.write(f"QGemm {t} {rows}", "QGemm", [a, *one(), b, self.scale(19), b_zero, c, self.scale(), zero()], kind, MS, alpha=0.7)
                self.write(f"QGemm to float {t} {rows}", "QGemm", [a, *one(), b.T.copy(), self.scale(), np.int8(0).reshape(()), c], TensorProto.FLOAT, MS, transB=1)
                self.write(f"MatMulInteger {t} {rows}", "MatMulInteger", [a, b, zero(), b_zero], TensorProto.INT32)
                self.write(f"MatMulInteger of two {t} {rows}", "MatMulInteger", [a, b, zero(), np.int8(-5).reshape(())], TensorProto.INT32, free=(0, 1))
                self.write(f"MatMulIntegerToFloat {t} {rows}", "MatMulIntegerToFloat", [a, b, self.scale(), self.scale(19), zero(), b_zero, self.scale(19)], TensorProto.FLOAT, MS)
                self.write(f"QLinearMatMul {t} {rows}", "QLinearMatMul", [a, *one(), b, self.scale(19), b_zero, self.scale() * 20, zero()], kind)
            a, b = self.bytes(dtype, 3, 2, 5, 12), self.bytes(np.int8, 3, 2, 12, 6)
            self.write(f"QLinearMatMul batches {t}", "QLinearMatMul", [a, *one(), b, self.scale(), np.int8(3).reshape(()), self.scale() * 20, zero()], kind, free=(0, 3))
            shapes = {"1x1": (8, 4, 1, 1, 1), "3x3": (8, 4, 3, 3, 1), "grouped": (6, 2, 3, 2, 2), "depthwise": (4, 1, 3, 3, 4), "multiplied": (8, 1, 5, 3, 4)}
            for name, (o, i, kh, kw, group) in shapes.items():
                for step in (1, 2):
                    w, bias = self.bytes(np.int8, o, i, kh, kw), self.random.integers(-9000, 9000, o).astype(np.int32)
                    attributes = {"group": group, "strides": [step, step], "pads": [kh // 2, kw // 2] * 2}
                    for each in (False, True):
                        w_scale, w_zero = (self.scale(o), np.zeros(o, np.int8)) if each else (self.scale(), self.bytes(np.int8))
                        given = [x, *one(), w, w_scale, w_zero, self.scale() * 30, zero(), bias]
                        self.write(f"QLinearConv {t} {name} {step} {each}", "QLinearConv", given, kind, **attributes)
            u = self.bytes(np.uint8, 8, 4, 3, 3)
            self.write(f"ConvInteger {t}", "ConvInteger", [x, u, zero(), np.uint8(131).reshape(())], TensorProto.INT32, pads=[1, 1, 1, 1])
        x = (self.random.standard_normal((3, 40)) * 4).astype(np.float32)
        self.write("DynamicQuantizeLinear", "DynamicQuantizeLinear", [x], (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8), outputs=("y", "scale", "zero"))
        self.write("DynamicQuantizeLinear of zeros", "DynamicQuantizeLinear", [x * 0], (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8), outputs=("y", "scale", "zero"))
        for dtype in (np.int8, np.uint8):
            b = self.bytes(dtype, 40, 9)
            self.write(f"DynamicQuantizeMatMul {np.dtype(dtype).name}", "DynamicQuantizeMatMul", [x, b, self.scale(9), self.bytes(dtype, 9), self.scale(9)], TensorProto.FLOAT, MS)
        for dtype in (np.uint8, np.int8, np.uint16, np.int16):
            kind, name = helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), np.dtype(dtype).name
            self.write(f"QuantizeLinear {name}", "QuantizeLinear", [x * 100, self.scale(3), self.bytes(dtype, 3)], kind, axis=0)
            self.write(f"QuantizeLinear blocks {name}", "QuantizeLinear", [x * 100, self.scale(3, 3), self.bytes(dtype, 3, 3)], kind, axis=1, block_size=16)
            self.write(f"QuantizeLinear to {name}", "QuantizeLinear", [x * 100, self.scale()], kind, output_dtype=kind)
            self.write(f"DequantizeLinear {name}", "DequantizeLinear", [self.bytes(dtype, 3, 40), self.scale(40), self.bytes(dtype, 40)], TensorProto.FLOAT)
        self.write("DequantizeLinear int32", "DequantizeLinear", [self.random.integers(-(2**30), 2**30, (3, 40)).astype(np.int32), self.scale(3)], TensorProto.FLOAT, axis=0)


class Images(CalibrationDataReader):
    """What networks are calibrated with."""

    def __init__(self, name, images):
        self.name, self.rest = name, iter(images)

    def get_next(self):
        image = next(self.rest, None)
        return None if image is None else {self.name: image}


def network(random):
    """Strided, pointwise, depthwise and grouped convolutions, residuals, a gate, pools, a dense head: 3 x 24 x 40 images.

    No average is of an even count: of ties ONNX Runtime makes what the last digits of its floats say.
    """
    nodes, weights = [], []

    def tensor(name, *shape):
        fan = np.prod(shape[1:]) if len(shape) > 1 else 100
        weights.append(numpy_helper.from_array((random.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float32), name))
        return name

    def node(operator, inputs, output, **attributes):
        nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def conv(x, name, planes, channels, kernel, stride=1, group=1):
        w, b = tensor(f"{name}.w", planes, channels // group, kernel, kernel), tensor(f"{name}.b", planes)
        return node("Conv", [x, w, b], name, pads=[kernel // 2] * 4, strides=[stride] * 2, group=group)

    relu = lambda x: node("Relu", [x], f"{x}.relu")
    x = relu(conv("x", "stem", 16, 3, 3, 2))
    y = relu(conv(x, "wide", 48, 16, 1))
    weights.extend(numpy_helper.from_array(np.float32(v), n) for n, v in (("zero", 0), ("six", 6)))
    y = node("Clip", [conv(y, "each", 48, 48, 5, 1, 48), "zero", "six"], "each.clip")
    x = node("Add", [conv(y, "narrow", 16, 48, 1), x], "sum")
    gate = node("Sigmoid", [conv(node("GlobalAveragePool", [x], "squeezed"), "gate", 16, 16, 1)], "gate.sigmoid")
    x = node("Mul", [x, gate], "gated")
    x = node("MaxPool", [relu(conv(x, "grouped", 24, 16, 3, 1, 4))], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    x = node("Concat", [x, node("AveragePool", [x], "blurred", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)], "both", axis=1)
    x = node("Flatten", [node("GlobalAveragePool", [x], "mean")], "flat")
    x = relu(node("Gemm", [x, tensor("dense.w", 32, 48), tensor("dense.b", 32)], "dense", transB=1))
    node("MatMul", [x, tensor("head.w", 32, 10)], "y")
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 24, 40])]
    graph = helper.make_graph(nodes, "net", infos, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def networks(folder):
    random = np.random.default_rng(11)
    model = network(random)
    images = random.standard_normal((12, 1, 3, 24, 40)).astype(np.float32)
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "float.onnx", Path(scratch) / "int8.onnx"
        source.write_bytes(model.SerializeToString())
        for form in (QuantFormat.QDQ, QuantFormat.QOperator):
            for activations in (QuantType.QUInt8, QuantType.QInt8):
                for each in (False, True):
                    options = {"activation_type": activations, "weight_type": QuantType.QInt8, "per_channel": each}
                    quantize_static(source, target, Images("x", images[:6]), quant_format=form, **options)
                    quantised = onnx.load(target)
                    case = folder / f"network {form.name} {activations.name} {'per channel' if each else 'per tensor'}"
                    case.mkdir()
                    (case / "model.onnx").write_bytes(quantised.SerializeToString())
                    # Signed activations in QDQ form ONNX Runtime computes in f32 on this kind of processor unless it is asked
                    # not to, as it does on others; its own answers then differ by one step of the output here and there.
                    rules = ort.SessionOptions()
                    rules.add_session_config_entry("session.qdqisint8allowed", "1")
                    session = ort.InferenceSession(quantised.SerializeToString(), rules, providers=["CPUExecutionProvider"])
                    wanted = np.stack([session.run(["y"], {"x": image})[0] for image in images])
                    save_file({"inputs/x": images, "outputs/y": wanted}, case / "golden.safetensors")
        quantize_dynamic(source, target)
        quantised = onnx.load(target)
        case = folder / "network dynamic"
        case.mkdir()
        (case / "model.onnx").write_bytes(quantised.SerializeToString())
        wanted = np.stack([answers(quantised, {"x": image})[0] for image in images])
        save_file({"inputs/x": images, "outputs/y": wanted}, case / "golden.safetensors")


def main():
    with tempfile.TemporaryDirectory() as directory:
        Operators(Path(directory)).all()
        networks(Path(directory))
        cases.judge(directory, "quantised operators and networks")


if __name__ == "__main__":
    main()
