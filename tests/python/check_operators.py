"""Holds the compiler to ONNX's own operator test cases (`onnx.backend.test`), and to ONNX Runtime where they differ.

Run by `cargo xtask test`. Every case that the compiler accepts must give the expected outputs, in the reference evaluator and,
where it can be lowered, in a plan run natively. The cases it does not accept are counted: the number may only go down.
Exits 1 if one does not hold.
"""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
TYPES = {np.dtype(t) for t in ("float32", "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")}
# Where the test cases and ONNX Runtime differ, it is ONNX Runtime that people exported their models against: it takes the
# rounded output length where these take the fraction.
RUNTIME_DIFFERS = {
    "test_resize_downsample_scales_cubic_align_corners",
    "test_resize_downsample_scales_linear_align_corners",
}
# Cases that are right today; fewer are a step back.
EVALUATED_AT_LEAST = 1015
EXECUTED_AT_LEAST = 851


def write_case(case, folder):
    """One folder with `model.onnx` and `golden.safetensors`; False where the case needs what no compiler can know."""
    given, wanted = case.data_sets[0]
    inputs, outputs = list(case.model.graph.input), list(case.model.graph.output)
    if len(inputs) != len(given) or len(outputs) != len(wanted):
        return False
    if not all(v.type.HasField("tensor_type") for v in inputs + outputs):
        return False
    arrays = [np.asarray(a) for a in [*given, *wanted]]
    if any(a.dtype not in TYPES or 0 in a.shape for a in arrays):
        return False
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    del model.graph.input[:]
    tensors = {}
    for i, (info, array) in enumerate(zip(inputs, arrays)):
        # Short vectors after the first input decide shapes: axes, sizes, repeats. In real models they are constants.
        if i > 0 and array.ndim <= 1:
            model.graph.initializer.append(numpy_helper.from_array(array, info.name))
            continue
        kind = info.type.tensor_type.elem_type
        model.graph.input.append(helper.make_tensor_value_info(info.name, kind, array.shape))
        tensors[f"inputs/{info.name}"] = np.array(array, order="C")[None]
    if not tensors:
        return False
    for info, array in zip(outputs, arrays[len(given) :]):
        tensors[f"outputs/{info.name}"] = np.array(array, order="C")[None]
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    save_file(tensors, folder / "golden.safetensors")
    return True


def main():
    warnings.filterwarnings("ignore")
    cargo = os.environ.get("CARGO", "cargo")
    with tempfile.TemporaryDirectory() as directory:
        written = sum(write_case(case, Path(directory) / case.name) for case in collect_testcases(None))
        command = [cargo, "run", "--quiet", "--package", "ballast-compiler", "--example", "conformance", "--", directory]
        output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    results = [json.loads(line) for line in output.splitlines()]
    failed = len(results) != written
    for result in results:
        wrong = result["imported"] and not result["evaluated"] or result["lowered"] and not result["executed"]
        if wrong and result["case"] not in RUNTIME_DIFFERS:
            failed = True
            print(f"FAILED {result['case']}: {result['message']}")
    for what, least in (("evaluated", EVALUATED_AT_LEAST), ("executed", EXECUTED_AT_LEAST)):
        count = sum(r[what] for r in results)
        failed |= count < least
        print(f"{'ok    ' if count >= least else 'FAILED'} {count} of {written} cases {what}, at least {least} needed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
