"""Attributes that say what their default says change nothing.

Run by `cargo xtask test`. The importer refuses attributes that it does not read, and some exporters write all of them: the operator
cases of the `onnx` package are given every attribute that they leave out and that has a default, and must be taken and answered as
before. Exits 1 if one is not.
"""

import sys
import tempfile
from pathlib import Path

from onnx import defs

import cases
from cases import arrays, with_constants, write_case
from onnx_cases import collect, in_scope

# Their default is one of two directions, whatever the direction is; ONNX Runtime refuses it for one.
OF_DIRECTIONS = ("RNN", "activations")


def write_out(graph, sets):
    """Adds what is left out; how many attributes that were."""
    added = 0
    for node in graph.node:
        if defs.has(node.op_type, sets.get(node.domain, 1), node.domain):
            schema = defs.get_schema(node.op_type, sets.get(node.domain, 1), node.domain)
            there = {a.name for a in node.attribute}
            for name, attribute in schema.attributes.items():
                if name not in there and attribute.default_value.type and (node.op_type, name) != OF_DIRECTIONS:
                    node.attribute.add().CopyFrom(attribute.default_value)
                    added += 1
        added += sum(write_out(a.g, sets) for a in node.attribute if a.HasField("g"))
    return added


def run(directory):
    return {result["case"]: result["outcome"] for result in cases.run(directory, "--native")["cases"]}


def main():
    total, names, failed = 0, [], 0
    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as explicit:
        for case in filter(lambda case: in_scope(case.model), collect()):
            vectors = [(arrays(i, case.model.graph.input), arrays(o, case.model.graph.output)) for i, o in case.data_sets]
            model = with_constants(case.model, vectors)
            more = (vectors, (case.rtol, case.atol), case.name, case.model.graph)
            write_case(Path(plain) / case.name, model, *more)
            added = write_out(model.graph, {o.domain: o.version for o in model.opset_import})
            if added:
                write_case(Path(explicit) / case.name, model, *more)
                names.append(case.name)
                total += added
        before, after = run(plain), run(explicit)
    for name in names:
        if before[name] != after[name]:
            failed += 1
            print(f"FAILED {name}: {cases.told(after[name])}; before: {cases.told(before[name])}")
    print(f"{total} attributes: {len(names) - failed} cases passed, {failed} failed")
    sys.exit(1 if failed or not names else 0)


if __name__ == "__main__":
    main()
