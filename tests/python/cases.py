"""Cases: models with known answers, in folders that the `conformance` program runs through compiler and sandbox.

A case's folder has
  model.onnx           all inputs with static shapes
  golden.safetensors   `inputs/NAME` and `outputs/NAME` of every vector, stacked
  case.json            {"operator", "operators", "absolute", "relative"}; without it 1e-4 and 1e-3, as verdicts compare
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
CARGO = os.environ.get("CARGO", "cargo")


def arrays(values, infos):
    """As the model declares them: a case may give a Python number, a list, or the serialised form for a tensor."""
    values = [numpy_helper.to_array(v) if isinstance(v, TensorProto) else v for v in values]
    kinds = [helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type) for info in infos]
    return [np.asarray(value, dtype=kind) for value, kind in zip(values, kinds, strict=True)]


def with_constants(model, vectors):
    """A copy whose inputs have the shapes that are given, those of rank 0 and 1 after the first being constants."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.input[:]
    given, _ = vectors[0]
    for i, (info, array) in enumerate(zip(model.graph.input, given, strict=True)):
        if i > 0 and array.ndim <= 1:
            if any(array.tobytes() != others[i].tobytes() for others, _ in vectors):
                raise ValueError(f"the vectors differ in {info.name}, which decides shapes")
            copy.graph.initializer.append(numpy_helper.from_array(array, info.name))
            continue
        kind = info.type.tensor_type.elem_type
        copy.graph.input.append(helper.make_tensor_value_info(info.name, kind, array.shape))
    return copy


def operators(graph):
    """Operators of a graph and the graphs inside, in order, each once."""
    found = {}
    for node in graph.node:
        name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        found[name] = True
        for attribute in node.attribute:
            found.update(dict.fromkeys(operators(attribute.g) if attribute.HasField("g") else []))
    return list(found)


def write_case(folder, model, vectors, tolerance, operator, original=None):
    """One folder. `vectors` are inputs and outputs in the order of the graph `original`, whose constants may be inputs there."""
    original = original or model.graph
    kept = {info.name for info in model.graph.input}
    tensors = {}
    for at, info in enumerate(original.input):
        if info.name in kept:
            tensors[f"inputs/{info.name}"] = np.stack([given[at] for given, _ in vectors])
    for at, info in enumerate(original.output):
        tensors[f"outputs/{info.name}"] = np.stack([wanted[at] for _, wanted in vectors])
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    save_file({name: np.array(value, order="C") for name, value in tensors.items()}, folder / "golden.safetensors")
    relative, absolute = tolerance
    content = {"operator": operator, "operators": operators(original), "absolute": absolute, "relative": relative}
    (folder / "case.json").write_text(json.dumps(content))


def run(folder, *arguments):
    """Runs a folder of cases; `{"passed", "unsupported", "wrong", "cases": [{"case", "operator", "outcome"}]}`.

    With BALLAST_SEEDS=FOLDER in the environment, the models are put there instead, and that is all: fuzzing starts from them."""
    if seeds := os.environ.get("BALLAST_SEEDS"):
        for model in Path(folder).glob("*/model.onnx"):
            shutil.copy(model, Path(seeds) / f"{Path(sys.argv[0]).stem} {model.parent.name}")
        sys.exit(0)
    program = [CARGO, "run", "--quiet", "--package", "ballast-tests", "--bin", "conformance", "--"]
    command = [*program, str(folder), "--output", "json", *map(str, arguments)]
    # Wrong answers are a failure of the program; what was wrong is in what it says.
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout)


def told(outcome):
    """An outcome in one line."""
    match outcome["result"]:
        case "passed":
            memory = outcome.get("memory")
            taken = f", {memory['taken'] / 2**20:.1f} of {memory['promised'] / 2**20:.1f} MiB" if memory else ""
            return f"passed, {outcome['micros'] / 1000:.2f} ms{taken}"
        case "unsupported":
            return "unsupported: " + "; ".join(f"{r['operator']}: {r['detail']}" for r in outcome["refusals"])
        case _:
            return f"wrong: {outcome['message']}"


def judge(folder, what, *arguments):
    """Runs a folder of cases that must all be right; says which are not, how many there are of `what`, and exits."""
    results = run(folder, *arguments)["cases"]
    wrong = [r for r in results if r["outcome"]["result"] != "passed"]
    for result in wrong:
        print(f"FAILED {result['case']}: {told(result['outcome'])}")
    print(f"{len(results)} {what}: {len(results) - len(wrong)} right")
    sys.exit(1 if wrong or not results else 0)
