"""Holds the compiler to ONNX Runtime on real models and real inputs.

Run by `cargo xtask test`. The models come out of packages that models.txt pins by hash and are kept below the target directory.
Exits 1 if an answer differs, or a model is no longer taken as far as it once was.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper
from safetensors.numpy import load_file, save_file

from models import download, model_bytes

ROOT = Path(__file__).resolve().parents[2]
CARGO = os.environ.get("CARGO", "cargo")
# How far each is taken: `executed` is a plan, run natively; `evaluated` would be the reference evaluator alone.
MODELS = {
    "cls": ("ch_ppocr_mobile_v2.0_cls_infer.onnx", "executed"),
    "rec": ("ch_PP-OCRv4_rec_infer.onnx", "executed"),
    "det": ("ch_PP-OCRv4_det_infer.onnx", "executed"),
    "magika": ("standard_v3_3/model.onnx", "executed"),
}


def text_line(height, width, seed):
    """Handwritten digits side by side, as an OCR model sees a line of text: three channels, -1..1."""
    images = load_file(ROOT / "examples" / "digits" / "holdout.safetensors")["images"].reshape(-1, 8, 8)
    columns = [np.kron(images[(seed * 31 + i) % len(images)], np.ones((height // 8, height // 8))) for i in range(width // height + 1)]
    line = np.zeros((height, width), np.float32)
    joined = np.concatenate(columns, axis=1)[: line.shape[0], :width]
    line[: joined.shape[0], : joined.shape[1]] = joined / 8 - 1
    return np.repeat(line[None, None], 3, axis=1).astype(np.float32)


def file_bytes(seed):
    """Beginning and end of a source file of this project, as magika reads files: 256 fills up."""
    files = sorted((ROOT / "operator" / "compiler" / "src").glob("**/*.rs"))
    content = files[seed % len(files)].read_bytes().strip()
    begin, end = np.full(1024, 256, np.int32), np.full(1024, 256, np.int32)
    begin[: len(content[:1024])] = list(content[:1024])
    end[1024 - len(content[-1024:]) :] = list(content[-1024:])
    return np.concatenate([begin, end])[None]


def inputs(name):
    if name == "magika":
        return [file_bytes(seed) for seed in range(3)]
    height, width = {"cls": (48, 192), "rec": (48, 320), "det": (160, 160)}[name]
    return [text_line(height, width, seed) for seed in range(8 if name == "cls" else 1)]


def main():
    folder = download()
    with tempfile.TemporaryDirectory() as directory:
        for name, (file, _) in MODELS.items():
            content = model_bytes(folder, file)
            session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
            given = inputs(name)
            [model_input] = session.get_inputs()
            answers = [session.run(None, {model_input.name: x}) for x in given]
            model = onnx.load_from_string(content)
            [info] = [i for i in model.graph.input if i.name == model_input.name]
            info.CopyFrom(helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, given[0].shape))
            tensors = {f"inputs/{info.name}": np.stack(given)}
            for i, output in enumerate(session.get_outputs()):
                tensors[f"outputs/{output.name}"] = np.stack([a[i] for a in answers])
            case = Path(directory) / name
            case.mkdir()
            (case / "model.onnx").write_bytes(model.SerializeToString())
            save_file(tensors, case / "golden.safetensors")
        command = [CARGO, "run", "--quiet", "--package", "ballast-compiler", "--example", "conformance", "--", directory]
        output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    results = {r["case"]: r for r in map(json.loads, output.splitlines())}
    failed = False
    for name, (file, depth) in MODELS.items():
        result = results[name]
        right = result[depth] and (result["executed"] or not result["lowered"])
        failed |= not right
        reached = "executed" if result["executed"] else "evaluated" if result["evaluated"] else "refused"
        print(f"{'ok    ' if right else 'FAILED'} {file}: {reached} {result['message']}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
