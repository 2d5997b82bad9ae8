"""Holds branches, loops, scans and long recurrent layers to ONNX Runtime, in the evaluator and in a plan.

Run by `cargo xtask test`. Models are written here as text; nothing is downloaded and nothing kept. Exits 1 if an answer differs,
something is not compiled, or a plan grows with the number of rounds.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper, parser
from safetensors.numpy import save_file

import cases

ONE = "one = Constant <value_float = 1.0> ()"
BRANCH = """
  s = ReduceSum <keepdims = 0> (x)
  z = Constant <value_float = 0.0> ()
  c = Less (s, z)
  w = Neg (x)
  y, v = If (c) <
    then_branch = then () => (float[4, 3] a, float[3] b) { a = Tanh (w)  b = ReduceMax <axes = [0], keepdims = 0> (x) },
    else_branch = otherwise () => (float[4, 3] a, float[3] b) {
      t = Exp (x)
      s2 = ReduceMax <keepdims = 0> (x)
      two = Constant <value_float = 2.0> ()
      c2 = Less (s2, two)
      a = If (c2) <then_branch = n () => (float[4, 3] q) { q = Add (t, w) }, else_branch = m () => (float[4, 3] q) { q = Identity (w) }>
      b = ReduceMin <axes = [0], keepdims = 0> (x)
    }>
"""
COUNTED = """
  n = Constant <value_int = {count}> ()
  t = Constant <value = bool {{1}}> ()
  start = Constant <value_floats = [0.0, 0.0, 0.0]> ()
  y, last, all, rounds = Loop (n, t, x, start) <body = body (int64 i, bool go, float[4, 3] h, float[3] g) => (bool more, float[4, 3] h2, float[3] g2, float[4, 3] row, float[3] gi) {{
    f = Cast <to = 1> (i)
    w = Sin (x)
    p = Mul (h, w)
    q = Add (p, f)
    h2 = Tanh (q)
    row = Identity (h2)
    m = ReduceMean <axes = [0], keepdims = 0> (h2)
    gi = Add (g, m)
    g2 = Identity (gi)
    more = Identity (go)
  }}>
"""
WHILE = """
  n = Constant <value_int = 60> ()
  s = ReduceSum <keepdims = 0> (x)
  z = Constant <value_float = {start}.0> ()
  open = Less (z, s)
  y, v = Loop (n, open, x, s) <body = body (int64 i, bool go, float[4, 3] h, float t) => (bool more, float[4, 3] h2, float t2) {{
    a = Constant <value_float = 1.25> ()
    h2 = Mul (h, a)
    t2 = ReduceSumSquare <keepdims = 0> (h2)
    bound = Constant <value_float = 900.0> ()
    more = Less (t2, bound)
  }}>
"""
SCAN = """
  b = Constant <value_floats = [0.5, -0.5, 0.25]> ()
  y, rows, cols = Scan <num_scan_inputs = 2, scan_input_directions = [{d0}, {d1}], scan_output_directions = [{d1}, {d0}], scan_input_axes = [0, 1], scan_output_axes = [0, 1],
    body = body (float[3] h, float[3] a, float[12] c) => (float[3] h2, float[3] r, float[12] k) {{
      p = Mul (a, b)
      q = Add (p, h)
      h2 = Sigmoid (q)
      r = Sub (h2, a)
      k = Add (c, f)
    }}> (h0, x, wide)
"""
NESTED = """
  n = Constant <value_int = 7> ()
  m = Constant <value_int = 6> ()
  t = Constant <value = bool {1}> ()
  y = Loop (n, t, x) <body = outer (int64 i, bool go, float[4, 3] h) => (bool more, float[4, 3] h2) {
    three = Constant <value_int = 3> ()
    early = Less (i, three)
    h2 = If (early) <
      then_branch = first () => (float[4, 3] a) {
        a = Loop (m, t, h) <body = inner (int64 j, bool on, float[4, 3] k) => (bool again, float[4, 3] k2) {
          w = Add (k, x)
          k2 = Tanh (w)
          again = Identity (on)
        }>
      },
      else_branch = second () => (float[4, 3] a) { e = Cast <to = 1> (i)  u = Div (h, e)  a = Sub (u, x) }>
    more = Identity (go)
  }>
"""
GROWING = """
  n = Constant <value_int = 6> ()
  t = Constant <value = bool {1}> ()
  y = Loop (n, t, x) <body = body (int64 i, bool go, float[q, 3] h) => (bool more, float[p, 3] h2) {
    e = Tanh (x)
    h2 = Concat <axis = 0> (h, e)
    more = Identity (go)
  }>
"""
SUMS = """
  n = Constant <value_int = {count}> ()
  t = Constant <value = bool {{1}}> ()
  k = Constant <value_float = 0.0> ()
  total, parts = Loop (n, t, k) <body = body (int64 i, bool go, float h) => (bool more, float h2, float row) {{
    f = Cast <to = 1> (i)
    h2 = Add (h, f)
    row = Identity (h2)
    more = Identity (go)
  }}>
  s = ReduceSum <keepdims = 0> (parts)
  y = Mul (x, s)
"""


def text(body, outputs, extra="", opset=17):
    outputs = ", ".join(outputs)
    source = f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[4, 3] x) => ({outputs}) {extra} {{ {body} }}'
    return parser.parse_model(source)


def recurrent(operator, steps, direction, rng):
    """As keyword spotters have it: 40 features a step."""
    gates, hidden = {"GRU": 3, "LSTM": 4, "RNN": 1}[operator], 16
    directions = 2 if direction == "bidirectional" else 1
    array = lambda *shape: (rng.standard_normal(shape) * 0.3).astype(np.float32)
    constants = {
        "w": array(directions, gates * hidden, 40),
        "r": array(directions, gates * hidden, hidden),
        "b": array(directions, 2 * gates * hidden),
    }
    attributes = {"linear_before_reset": 1} if operator == "GRU" else {}
    node = helper.make_node(operator, ["x", *constants], ["y", "h"], hidden_size=hidden, direction=direction, **attributes)
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, 2, 40])]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "h")]
    graph = helper.make_graph([node], "g", given, made, [numpy_helper.from_array(a, n) for n, a in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), (steps, 2, 40)


def models():
    rng = np.random.default_rng(6)
    x = (4, 3)
    f = "float[4, 3] {}".format
    yield "branch", text(BRANCH, [f("y"), "float[3] v"]), x
    for count in (1, 3, 4, 5, 40):
        yield f"loop of {count}", text(COUNTED.format(count=count), [f("y"), "float[3] last", f"float[{count}, 4, 3] all", f"float[{count}, 3] rounds"]), x
    for start in (-1000, 1000):
        yield f"while from {start}", text(WHILE.format(start=start), [f("y"), "float v"]), x
    for d0, d1 in ((0, 0), (1, 0), (0, 1), (1, 1)):
        body = "row = Reshape (x, flat)\n wide = Expand (row, shape)\n f = Constant <value_float = 0.5> ()\n h0 = Constant <value_floats = [0.1, 0.2, 0.3]> ()\n" + SCAN.format(d0=d0, d1=d1)
        yield f"scan {d0} {d1}", text(body, ["float[3] y", "float[4, 3] rows", "float[12, 4] cols"], "<int64[2] flat = {12, 1}, int64[2] shape = {12, 4}>"), x
    yield "nested", text(NESTED, [f("y")]), x
    yield "growing", text(GROWING, ["float[28, 3] y"]), x
    yield "known sums", text(SUMS.format(count=2000), [f("y")]), x
    for operator in ("GRU", "LSTM", "RNN"):
        for steps, direction in ((3, "bidirectional"), (30, "forward"), (30, "reverse"), (30, "bidirectional")):
            yield f"{operator} {steps} {direction}", *recurrent(operator, steps, direction, rng)


def write(folder, name, model, shape):
    rng = np.random.default_rng(len(name))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = [(rng.standard_normal(shape) + shift).astype(np.float32) for shift in (-0.5, 0.0, 0.7)]
    answers = [session.run(None, {"x": x}) for x in given]
    for info, array in zip(model.graph.output, answers[0]):
        info.CopyFrom(helper.make_tensor_value_info(info.name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
    case = folder / name
    case.mkdir()
    onnx.save(model, case / "model.onnx")
    tensors = {"inputs/x": np.stack(given)}
    tensors |= {f"outputs/{info.name}": np.stack([a[i] for a in answers]) for i, info in enumerate(model.graph.output)}
    save_file(tensors, case / "golden.safetensors")


def main():
    with tempfile.TemporaryDirectory() as directory:
        for name, model, shape in models():
            write(Path(directory), name, model, shape)
        cases.judge(directory, "models with control flow")


if __name__ == "__main__":
    main()
