"""Holds the compiler to ONNX Runtime on real models and real inputs.

Run by `cargo xtask test`. The models come out of packages that models.txt pins by hash and are kept below the target directory.
Exits 1 if an answer differs.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper
from safetensors.numpy import load_file

import cases
from models import download, model_bytes

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    "cls": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "rec": "ch_PP-OCRv4_rec_infer.onnx",
    "det": "ch_PP-OCRv4_det_infer.onnx",
    "magika": "standard_v3_3/model.onnx",
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
        for name, file in MODELS.items():
            content = model_bytes(folder, file)
            session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
            given = inputs(name)
            [model_input] = session.get_inputs()
            answers = [session.run(None, {model_input.name: x}) for x in given]
            model = onnx.load_from_string(content)
            [info] = [i for i in model.graph.input if i.name == model_input.name]
            info.CopyFrom(helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, given[0].shape))
            graph = onnx.GraphProto(input=[info], output=model.graph.output)
            vectors = [([x], answer) for x, answer in zip(given, answers)]
            cases.write_case(Path(directory) / name, model, vectors, (1e-3, 1e-4), name, graph)
        results = cases.run(directory, "--rounds", 1)["cases"]
    for result in results:
        right = result["outcome"]["result"] == "passed"
        print(f"{'ok    ' if right else 'FAILED'} {MODELS[result['case']]}: {cases.told(result['outcome'])}")
    sys.exit(0 if all(r["outcome"]["result"] == "passed" for r in results) and len(results) == len(MODELS) else 1)


if __name__ == "__main__":
    main()
