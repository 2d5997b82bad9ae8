"""Holds operators whose results have as many rows as the data says to ONNX Runtime: the valid rows, and how many there are.

Run by `cargo xtask test`. Everything is made here with fixed seeds. Exits 1 if an answer differs, or something is not compiled.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, parser
from safetensors.numpy import save_file

import cases


def model(inputs, outputs, body, constants=""):
    source = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {constants} {{ {body} }}'
    return parser.parse_model(source)


def suppressions(rng):
    for n, classes in ((1, 1), (60, 1), (60, 3), (300, 2)):
        for center in (0, 1):
            for limit, iou, score in ((5, 0.5, 0.3), (1000, 0.2, None), (20, 0.0, -1.0), (20, 1.0, 0.5)):
                boxes = rng.uniform(0, 10, (2, n, 4)).astype(np.float32)
                # Equal scores and equal boxes: whichever comes first is seen.
                boxes[:, n // 2 :: 3] = boxes[:, : len(boxes[0, n // 2 :: 3])]
                scores = (np.round(rng.uniform(0, 1, (2, classes, n)) * 20) / 20).astype(np.float32)
                last = "" if score is None else ", t"
                constants = f"<int64[1] m = {{{limit}}}, float[1] u = {{{iou:.2f}}}" + ("" if score is None else f", float[1] t = {{{score:.2f}}}") + ">"
                body = f"y = NonMaxSuppression <center_point_box = {center}> (b, s, m, u{last})"
                source = model(f"float[2, {n}, 4] b, float[2, {classes}, {n}] s", "int64[k, 3] y", body, constants)
                yield f"suppression {n} {classes} {center} {limit} {iou}", source, {"b": boxes, "s": scores}


def detector(rng):
    """As detectors end: the boxes that were chosen, their classes and scores."""
    body = """
      all = NonMaxSuppression (b, s, m, u, t)
      index = Slice (all, two, three, one)
      flat = Squeeze (index, one)
      rows = Gather <axis = 1> (b, flat)
      boxes = Squeeze (rows, zero)
      half = Mul (boxes, scale)
      triples = Slice (all, zero, three, one)
      scores = GatherND (s, triples)
      kind = Slice (all, one, two, one)
      kinds = Cast <to = 1> (kind)
    """
    constants = "<int64[1] m = {10}, float[1] u = {0.4}, float[1] t = {0.5}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, float[4] scale = {0.5, 2.0, 0.5, 2.0}>"
    source = model("float[1, 80, 4] b, float[1, 4, 80] s", "float[k, 4] half, float[q] scores, float[r, 1] kinds", body, constants)
    return "detector", source, {"b": rng.uniform(0, 10, (1, 80, 4)).astype(np.float32), "s": rng.uniform(0, 1, (1, 4, 80)).astype(np.float32)}


def models():
    rng = np.random.default_rng(8)
    yield from suppressions(rng)
    yield detector(rng)
    x = np.round(rng.standard_normal((4, 5, 6)) * 1.2).astype(np.float32)
    given = "float[4, 5, 6] x"
    yield "non zero", model(given, "int64[3, k] y", "y = NonZero (x)"), {"x": x}
    yield "non zero of nothing", model(given, "int64[3, k] y", "z = Sub (x, x)  y = NonZero (z)"), {"x": x}
    yield "non zero turned", model(given, "int64[k, 3] y, float[k] v", "n = NonZero (x)  y = Transpose (n)  v = GatherND (x, y)"), {"x": x}
    marks = "m = ReduceMax <axes = [0, 2], keepdims = 0> (x)  two = Constant <value_float = 1.5> ()  c = Less (m, two)"
    yield "compress", model(given, "float[4, k, 6] y", f"{marks}  y = Compress <axis = 1> (x, c)"), {"x": x}
    yield "compress flat", model(given, "float[k] y", f"{marks}  y = Compress (x, c)"), {"x": x}
    for sorted_ in (0, 1):
        four = "float[k] y, int64[k] i, int64[n] j, int64[k] c"
        yield f"unique {sorted_}", model(given, four, f"y, i, j, c = Unique <sorted = {sorted_}> (x)"), {"x": x}
        narrow = np.round(rng.uniform(-1, 1, (4, 9, 2))).astype(np.float32)
        for axis in (0, 1, 2, -1):
            yield f"unique {sorted_} along {axis}", model("float[4, 9, 2] x", "float[a, b, c] y, int64[k] i, int64[n] j, int64[k] d", f"y, i, j, d = Unique <sorted = {sorted_}, axis = {axis}> (x)"), {"x": narrow}


def write(folder, name, source, feeds):
    session = ort.InferenceSession(source.SerializeToString(), providers=["CPUExecutionProvider"])
    answers = session.run(None, feeds)
    case = folder / name
    case.mkdir()
    onnx.save(source, case / "model.onnx")
    tensors = {f"inputs/{n}": a[None] for n, a in feeds.items()}
    tensors |= {f"outputs/{info.name}": np.array(a, order="C")[None] for info, a in zip(source.graph.output, answers)}
    save_file(tensors, case / "golden.safetensors")


def main():
    with tempfile.TemporaryDirectory() as directory:
        for name, source, feeds in models():
            write(Path(directory), name, source, feeds)
        cases.judge(directory, "models whose rows are counted", "--native")


if __name__ == "__main__":
    main()
