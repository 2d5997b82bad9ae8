"""Holds the choice of operator cases to what it says: which are in scope, and what of a case becomes a constant.

Run by `cargo xtask test`. Exits 1 if one does not hold.
"""

import sys

import numpy as np
from onnx import TensorProto, helper

import onnx_cases
from cases import with_constants

# Of the pinned package; another release of it has other cases.
IN_SCOPE = 1495


def model(kinds, out=TensorProto.FLOAT, shape=(2,)):
    inputs = [helper.make_tensor_value_info(f"x{i}", kind, shape) for i, kind in enumerate(kinds)]
    outputs = [helper.make_tensor_value_info("y", out, shape)]
    return helper.make_model(helper.make_graph([helper.make_node("Abs", ["x0"], ["y"])], "g", inputs, outputs))


def sequence():
    info = helper.make_tensor_sequence_value_info("x0", TensorProto.FLOAT, None)
    whole = model([TensorProto.FLOAT])
    whole.graph.input[0].CopyFrom(info)
    return whole


def constants(arrays):
    """Which inputs are left."""
    kinds = [helper.np_dtype_to_tensor_dtype(a.dtype) for a in arrays]
    return [i.name for i in with_constants(model(kinds), [(arrays, [])]).graph.input]


def main():
    cases = onnx_cases.collect()
    checks = {
        "f32, i64 and bool are in scope": onnx_cases.in_scope(model([TensorProto.FLOAT, TensorProto.INT64], TensorProto.BOOL)),
        "u32 is not": not onnx_cases.in_scope(model([TensorProto.FLOAT, TensorProto.UINT32])),
        "f64 as an output is not": not onnx_cases.in_scope(model([TensorProto.FLOAT], TensorProto.DOUBLE)),
        "sequences are not": not onnx_cases.in_scope(sequence()),
        "short inputs after the first become constants": constants([np.zeros(3), np.zeros(2), np.zeros((1, 1))]) == ["x0", "x2"],
        "the first never does": constants([np.float32(0)]) == ["x0"],
        f"{IN_SCOPE} cases are in scope": sum(onnx_cases.in_scope(case.model) for case in cases) == IN_SCOPE,
    }
    for what, holds in checks.items():
        print(f"{'ok    ' if holds else 'FAILED'} {what}")
    sys.exit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
