"""Seeds for fuzzing the importer, beside the operator cases: models of the other checks, models with options in front, archives.

Run by `cargo xtask fuzz importer`: `fuzz_seeds.py CASES FOLDER LONGEST`. Options are `{"inputs": […], "deny": […]}` and a zero byte,
as `fuzz/fuzz_targets/importer.rs` reads them.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import onnx

# Functions, control flow, recurrence, sequences, quantised operators, types, ai.onnx.ml, com.microsoft, counted rows.
CHECKS = [
    "check_bounded", "check_contrib", "check_control", "check_lists", "check_opsets", "check_quantized", "check_recurrent", "check_sklearn",
    "check_types",
]  # fmt: skip
# Of the operator cases, one in so many with options, and one in so many as an archive.
WITH_OPTIONS, ARCHIVED = 6, 12


def with_options(model):
    """The model with dimensions left open, and the options that fix them; one operator denied, one input fixed or batched."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    inputs = []
    for i, info in enumerate(opened.graph.input):
        dims = info.type.tensor_type.shape.dim
        given = {"name": info.name, "shape": [d.dim_value for d in dims]}
        for d in list(dims)[: i + 1]:
            d.dim_param = "n"
        if i == 0 and dims:
            given["batchAxis"] = 0
        if i == 1:
            given["value"] = [1.0]
        inputs.append(given)
    options = {"inputs": inputs}
    if len(model.graph.node) > 1:
        options["deny"] = [model.graph.node[-1].op_type]
    return json.dumps(options).encode() + b"\0" + opened.SerializeToString()


def archive(model):
    """The model with its tensors in a file beside it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=0, convert_attribute=True)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for file in sorted(Path(folder).iterdir()):
                tar.add(file, file.name)
    # Without the padding to 20 blocks.
    return out.getvalue().rstrip(b"\0") + bytes(1024)


def main():
    cases, folder, longest = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as directory:
        for check in CHECKS:
            script = Path(__file__).with_name(f"{check}.py")
            subprocess.run([sys.executable, "-B", script], env={**os.environ, "BALLAST_SEEDS": directory}, check=True)
        seeds = {f"{path.name}": path.read_bytes() for path in Path(directory).iterdir()}
    checks = len(seeds)
    models = {case.name: (case / "model.onnx").read_bytes() for case in sorted(cases.iterdir())}
    seeds |= models
    for i, (name, content) in enumerate(models.items()):
        if len(content) > longest:
            continue
        if i % WITH_OPTIONS == 0:
            seeds[f"options {name}"] = with_options(onnx.load_from_string(content))
        if i % ARCHIVED == 1 and onnx.load_from_string(content).graph.initializer:
            seeds[f"archive {name}"] = archive(onnx.load_from_string(content))
    written = {name: content for name, content in seeds.items() if len(content) <= longest}
    for name, content in written.items():
        (folder / name.replace("/", " ")).write_bytes(content)
    print(f"{len(written)} seeds, {checks} models of checks among {len(seeds)}")
    sys.exit(0 if checks and len(written) > len(models) / 2 else 1)


if __name__ == "__main__":
    main()
