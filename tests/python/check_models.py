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
from onnx import helper, numpy_helper
from safetensors.numpy import load_file

import cases
from models import download, model_bytes

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    "cls": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "rec": "ch_PP-OCRv4_rec_infer.onnx",
    "det": "ch_PP-OCRv4_det_infer.onnx",
    "magika": "standard_v3_3/model.onnx",
    "silero": "silero_vad.onnx",
    "silero 16k": "silero_vad_16k_op15.onnx",
    "silero half": "silero_vad_half.onnx",
    "silero openvino": "silero_vad_openvino_16k.onnx",
    "silero without if": "silero_vad_op18_ifless.onnx",
    "silero sequence": "silero_vad_16k_sequence.onnx",
}
SAMPLE_RATE = 16000


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


def voice(name, session):
    """Chunks of a hum with formants and noise, as a detector of voices hears them: each goes on with the state that the one
    before it left. The sequence model takes all of them at once."""
    time = np.arange(512 * 24) / SAMPLE_RATE
    hum = sum(np.sin(2 * np.pi * 120 * k * time) / k * np.exp(-((120 * k - 600) / 500) ** 2) for k in range(1, 20))
    sound = (hum * (np.sin(2 * np.pi * 2 * time) > -0.2) * 0.3 + np.random.default_rng(1).normal(0, 0.01, len(time))).astype(np.float32)
    padded = np.concatenate([np.zeros(64, np.float32), sound])
    chunks = [padded[i * 512 : i * 512 + 576][None] for i in range(24)]
    if name == "silero sequence":
        zeros = np.zeros((1, 1, 128), np.float32)
        return [{"input": np.concatenate(chunks), "h": zeros, "c": zeros}]
    given, state = [], np.zeros((2, 1, 128), np.float32)
    for chunk in chunks:
        given.append({"input": chunk, "state": state} | ({"sr": np.array(SAMPLE_RATE)} if "sr" in session else {}))
        state = session["run"](given[-1])[1]
    return given


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
            names = [i.name for i in session.get_inputs()]
            run = lambda feeds: session.run(None, feeds)
            if name.startswith("silero"):
                given = voice(name, {"run": run} | dict.fromkeys(names))
            else:
                given = [{names[0]: x} for x in inputs(name)]
            answers = [run(feeds) for feeds in given]
            model = onnx.load_from_string(content)
            model.graph.initializer.extend(numpy_helper.from_array(given[0][n], n) for n in names if n == "sr")
            infos = [i for i in model.graph.input if i.name in names and i.name != "sr"]
            for info in infos:
                info.CopyFrom(helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, given[0][info.name].shape))
            kept = [i for i in model.graph.input if i.name != "sr"]
            del model.graph.input[:]
            model.graph.input.extend(kept)
            graph = onnx.GraphProto(input=infos, output=model.graph.output)
            vectors = [([feeds[i.name] for i in infos], answer) for feeds, answer in zip(given, answers)]
            cases.write_case(Path(directory) / name, model, vectors, (1e-3, 1e-4), name, graph)
        results = cases.run(directory, "--rounds", 1)["cases"]
    for result in results:
        right = result["outcome"]["result"] == "passed"
        print(f"{'ok    ' if right else 'FAILED'} {MODELS[result['case']]}: {cases.told(result['outcome'])}")
    sys.exit(0 if all(r["outcome"]["result"] == "passed" for r in results) and len(results) == len(MODELS) else 1)


if __name__ == "__main__":
    main()
