"""Holds sequences and optionals, of which nothing is left once a model is imported, to ONNX Runtime.

Run by `cargo xtask test`. Exits 1 if an answer differs.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from small_models import Cases, kind

RANDOM = np.random.default_rng(2)


def floats(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def main():
    cases = Cases()

    def add(name, nodes, inputs, outputs=("y",), constants=None):
        graph = helper.make_graph(
            [helper.make_node(operator, ins, outs, **more) for operator, ins, outs, more in nodes],
            name,
            [helper.make_tensor_value_info(n, kind(a), a.shape) for n, a in inputs.items()],
            [onnx.ValueInfoProto(name=o) for o in outputs],
            [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        cases.model(name, model, [inputs])

    one, last = np.int64(1), np.int64(-1)
    pair = {"a": floats(2, 3), "b": floats(2, 3)}
    construct = ("SequenceConstruct", ["a", "b", "a"], ["s"], {})
    add("at", [construct, ("SequenceAt", ["s", "i"], ["y"], {})], pair, constants={"i": one})
    add("at_last", [construct, ("SequenceAt", ["s", "i"], ["y"], {})], pair, constants={"i": last})
    add("length", [construct, ("SequenceLength", ["s"], ["n"], {}), ("Cast", ["n"], ["n2"], {"to": TensorProto.FLOAT}), ("Add", ["a", "n2"], ["y"], {})], pair)
    join = ("ConcatFromSequence", ["t"], ["y"], {"axis": 1})
    add("concat", [construct, ("Identity", ["s"], ["t"], {}), join], pair)
    add("stack", [construct, ("ConcatFromSequence", ["s"], ["y"], {"axis": -1, "new_axis": 1})], pair)
    for place in (None, 0, 1, -1, 3):
        names, constants = (["s", "b"], {}) if place is None else (["s", "b", "i"], {"i": np.int64(place)})
        add(f"insert_{place}", [construct, ("SequenceInsert", names, ["t"], {}), join], pair, constants=constants)
    for place in (None, 0, -2):
        names, constants = (["s"], {}) if place is None else (["s", "i"], {"i": np.int64(place)})
        add(f"erase_{place}", [construct, ("SequenceErase", names, ["t"], {}), join], pair, constants=constants)
    add("empty", [("SequenceEmpty", [], ["s"], {}), ("SequenceInsert", ["s", "a"], ["u"], {}), ("SequenceInsert", ["u", "b"], ["t"], {}), join], pair)
    long = {"a": floats(5, 4)}
    split = lambda names, **more: ("SplitToSequence", names, ["s"], more)
    back = ("ConcatFromSequence", ["s"], ["y"], {"axis": 0})
    at = ("SequenceAt", ["s", "i"], ["y"], {})
    add("split", [split(["a"], axis=0), at], long, constants={"i": one})
    add("split_flat", [split(["a"], axis=1, keepdims=0), at], long, constants={"i": one})
    add("split_each", [split(["a", "n"], axis=0), at], long, constants={"n": np.int64(2), "i": last})
    add("split_sizes", [split(["a", "n"], axis=0), at], long, constants={"n": np.array([1, 4], np.int64), "i": last})
    add("split_and_back", [split(["a", "n"], axis=0), back], long, constants={"n": np.int64(2)})
    body = helper.make_graph(
        [helper.make_node("Mul", ["item", "factor"], ["scaled"]), helper.make_node("Add", ["scaled", "other"], ["out"])],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("item", "other")],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(3), "factor")],
    )
    add("map", [construct, ("SequenceMap", ["s", "a"], ["t"], {"body": body}), join], pair)
    add("map_two", [construct, ("SequenceMap", ["s", "s"], ["t"], {"body": body}), join], pair)
    optional = ("Optional", ["a"], ["o"], {})
    add("optional", [optional, ("OptionalGetElement", ["o"], ["e"], {}), ("Add", ["e", "b"], ["y"], {})], pair)
    then, other = (
        helper.make_graph([helper.make_node("Neg", [x], ["r"])], x, [], [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)])
        for x in ("a", "b")
    )
    has = ("OptionalHasElement", ["o"], ["c"], {})
    add("has", [optional, has, ("If", ["c"], ["y"], {"then_branch": then, "else_branch": other})], pair)
    cases.run()


if __name__ == "__main__":
    main()
