"""The operator cases of the pinned `onnx` package, written out for `cargo xtask conformance onnx`.

`onnx_cases.py FOLDER` makes FOLDER/cases with one folder per case in scope, as cases.py has it; inputs of rank 0 and 1 after
the first are constants in the model: they set shapes. And FOLDER/operators.json, what operators there are at all:
[{"domain", "name", "versions"}]. Prints how many cases there are and how many of them are in scope.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import onnx
from onnx import TensorProto

from cases import arrays, operators, with_constants, write_case

# What tensors may be at the border of a model that is in scope.
TYPES = {
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64,
    TensorProto.BOOL,
}  # fmt: skip
# Domains whose operators are listed.
DOMAINS = ("", "ai.onnx.ml", "com.microsoft")
# Ways to tell that a case is another one written with a function's body instead of the function.
EXPANDED = "_expanded"


def in_scope(model):
    """Whether all inputs and outputs are tensors of those types."""
    infos = [*model.graph.input, *model.graph.output]
    return all(v.type.HasField("tensor_type") and v.type.tensor_type.elem_type in TYPES for v in infos)


def main_operator(name, models):
    """What a case is about: the first operator that is more than a constant; of an expanded case, that of the original."""
    original = models.get(name.split(EXPANDED)[0], models[name])
    found = operators(original.graph)
    return next((o for o in found if o != "Constant"), found[0])


def known_operators():
    """Every operator that the package, and ONNX Runtime for its own domain, has a schema of."""
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime

    versions = {}
    schemas = [*onnx.defs.get_all_schemas_with_history(), *runtime.get_all_operator_schema()]
    for schema in schemas:
        # ONNX Runtime keeps schemas of its own for operators of ONNX that were never released.
        if schema.domain in DOMAINS and not (schema.domain != "com.microsoft" and not onnx.defs.has(schema.name, schema.domain)):
            versions.setdefault((schema.domain, schema.name), set()).add(schema.since_version)
    return [{"domain": d, "name": n, "versions": sorted(v)} for (d, n), v in sorted(versions.items())]


def collect():
    """All cases of the package, by name."""
    from onnx.backend.test.case.node import collect_testcases

    # The numbers that some cases are made of overflow on purpose.
    warnings.filterwarnings("ignore")
    return collect_testcases(None)


def main():
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    cases = collect()
    models = {case.name: case.model for case in cases}
    chosen = [case for case in cases if in_scope(case.model)]
    for case in chosen:
        vectors = [(arrays(i, case.model.graph.input), arrays(o, case.model.graph.output)) for i, o in case.data_sets]
        model = with_constants(case.model, vectors)
        operator = main_operator(case.name, models)
        write_case(folder / "cases" / case.name, model, vectors, (case.rtol, case.atol), operator, case.model.graph)
    (folder / "operators.json").write_text(json.dumps(known_operators()))
    print(f"onnx {onnx.__version__}: {len(cases)} operator cases, {len(chosen)} in scope")


if __name__ == "__main__":
    main()
