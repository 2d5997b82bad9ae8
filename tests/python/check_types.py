"""Holds models of halves, doubles and 64-bit integers to ONNX Runtime: inputs, outputs, constants and casts of each type.

Run by `cargo xtask test`. Exits 1 if an answer differs.
"""

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from small_models import Cases, kind

RANDOM = np.random.default_rng(4)


def numbers(dtype, *shape):
    if np.dtype(dtype).kind in "iu":
        return RANDOM.integers(1, 100, shape).astype(dtype)
    return RANDOM.uniform(-2, 2, shape).astype(np.float32).astype(dtype)


def main():
    cases = Cases()

    def add(name, nodes, inputs, outputs, constants=None, wanted=None):
        graph = helper.make_graph(
            [helper.make_node(operator, ins, outs, **more) for operator, ins, outs, more in nodes],
            name,
            [helper.make_tensor_value_info(n, kind(a), a.shape) for n, a in inputs.items()],
            [helper.make_tensor_value_info(n, k, None) for n, k in outputs.items()],
            [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        cases.model(name, model, [inputs], None if wanted is None else [wanted])

    for dtype in (np.float16, np.float64):
        short, out = np.dtype(dtype).name, {"y": kind(np.zeros(1, dtype))}
        x = {"x": numbers(dtype, 2, 3)}
        add(f"{short}_constant", [("Add", ["x", "c"], ["y"], {})], x, out, {"c": numbers(dtype, 3)})
        chain = [("Mul", ["x", "x"], ["a"], {}), ("Sigmoid", ["a"], ["b"], {}), ("Sub", ["b", "x"], ["y"], {})]
        add(f"{short}_chain", chain, x, out)
        add(f"{short}_product", [("MatMul", ["x", "w"], ["y"], {})], x, out, {"w": numbers(dtype, 3, 4)})
        add(f"{short}_gemm", [("Gemm", ["x", "w", "c"], ["y"], {"transB": 1})], x, out, {"w": numbers(dtype, 4, 3), "c": numbers(dtype, 4)})
        add(f"{short}_softmax", [("Softmax", ["x"], ["y"], {})], x, out)
        add(f"{short}_reduce", [("ReduceMean", ["x"], ["y"], {"keepdims": 0})], x, out)
        add(f"{short}_move", [("Transpose", ["x"], ["a"], {}), ("Slice", ["a", "s", "e"], ["y"], {})], x, out, {"s": np.array([1]), "e": np.array([3])})
        image = {"x": numbers(dtype, 1, 2, 5, 5)}
        if dtype is np.float16:
            add(f"{short}_conv", [("Conv", ["x", "w"], ["a"], {}), ("Relu", ["a"], ["y"], {})], image, out, {"w": numbers(dtype, 3, 2, 3, 3)})
        pool = ("MaxPool", ["x"], ["y"], {"kernel_shape": [2, 2]})
        add(f"{short}_pool", [pool], image, out)
        add(f"{short}_compare", [("Less", ["x", "c"], ["b"], {}), ("Cast", ["b"], ["y"], {"to": TensorProto.FLOAT})], x, {"y": TensorProto.FLOAT}, {"c": numbers(dtype, 3)})
        add(f"{short}_identity", [("Identity", ["x"], ["y"], {})], x, out)
        for other in (np.float32, np.int32, np.int64, np.uint8):
            target = kind(np.zeros(1, other))
            name = np.dtype(other).name
            given = {"x": np.abs(numbers(dtype, 2, 3))}
            add(f"{short}_to_{name}", [("Cast", ["x"], ["y"], {"to": target})], given, {"y": target})
            add(f"{name}_to_{short}", [("Cast", ["x"], ["y"], {"to": list(out.values())[0]})], {"x": numbers(other, 2, 3)}, out)
    # Rounded on the way.
    there_and_back = [("Cast", ["x"], ["h"], {"to": TensorProto.FLOAT16}), ("Cast", ["h"], ["y"], {"to": TensorProto.FLOAT})]
    x = {"x": RANDOM.uniform(-1000, 1000, (50,)).astype(np.float32)}
    add("through_half", there_and_back, x, {"y": TensorProto.FLOAT})
    wide = {"x": RANDOM.integers(0, 2**64, (2, 3), dtype=np.uint64)}
    small = RANDOM.integers(1, 2**63, (3,), dtype=np.uint64)
    unsigned = {"y": TensorProto.UINT64}
    for operator in ("Add", "Sub", "Mul"):
        add(f"uint64_{operator}".lower(), [(operator, ["x", "c"], ["y"], {})], wide, unsigned, {"c": small})
    add("uint64_move", [("Transpose", ["x"], ["y"], {})], wide, unsigned)
    add("uint64_from_int64", [("Cast", ["x"], ["y"], {"to": TensorProto.UINT64})], {"x": numbers(np.int64, 4)}, unsigned)
    add("uint64_to_int64", [("Cast", ["x"], ["y"], {"to": TensorProto.INT64})], {"x": numbers(np.uint64, 4)}, {"y": TensorProto.INT64})
    # ONNX Runtime takes no bfloat16 from numpy: what it means is written out.
    b = {"x": numbers(ml_dtypes.bfloat16, 2, 3)}
    c = numbers(ml_dtypes.bfloat16, 3)
    single = lambda a: a.astype(np.float32)
    brain = {"y": TensorProto.BFLOAT16}
    add("bfloat16_add", [("Add", ["x", "c"], ["y"], {})], b, brain, {"c": c}, {"y": (single(b["x"]) + single(c)).astype(ml_dtypes.bfloat16)})
    add("bfloat16_to_float", [("Cast", ["x"], ["y"], {"to": TensorProto.FLOAT})], b, {"y": TensorProto.FLOAT}, None, {"y": single(b["x"])})
    f = {"x": RANDOM.uniform(-1000, 1000, (50,)).astype(np.float32)}
    add("float_to_bfloat16", [("Cast", ["x"], ["y"], {"to": TensorProto.BFLOAT16})], f, brain, None, {"y": f["x"].astype(ml_dtypes.bfloat16)})
    cases.run()


if __name__ == "__main__":
    main()
