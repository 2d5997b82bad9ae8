"""Small models that ONNX Runtime answers and the compiler must answer alike, for the checks beside this file."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

import cases

ort.set_default_logger_severity(3)


def kind(array):
    return helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)


class Cases:
    """Models with inputs; `run` gives them to the compiler, and tells whether all answers are ONNX Runtime's."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()

    def model(self, name, model, feeds, wanted=None):
        """A whole model. `feeds` are dictionaries, one for each vector; `wanted` replaces ONNX Runtime's answers."""
        given = {key for feed in feeds for key in feed}
        if wanted is None:
            options = ort.SessionOptions()
            # What is compared is the operator, not what an optimiser makes of it.
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            names = [o.name for o in session.get_outputs()]
            wanted = [dict(zip(names, session.run(None, feed))) for feed in feeds]
        tensors = {f"inputs/{key}": np.stack([feed[key] for feed in feeds]) for key in given}
        for key in wanted[0]:
            tensors[f"outputs/{key}"] = np.stack([np.asarray(answer[key]) for answer in wanted])
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for info in copy.graph.input:
            if info.name in given:
                array = feeds[0][info.name]
                info.CopyFrom(helper.make_tensor_value_info(info.name, kind(array), array.shape))
        case = Path(self.folder.name) / name
        case.mkdir()
        (case / "model.onnx").write_bytes(copy.SerializeToString())
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, case / "golden.safetensors")

    def node(self, name, operator, inputs, outputs=1, constants=(), domain="", opset=21, version=1, wanted=None, **attributes):
        """One node. `inputs` are arrays or None; those whose index is in `constants` are initializers."""
        names = ["" if array is None else f"x{i}" for i, array in enumerate(inputs)]
        # An output that is left out has the name "".
        results = [f"y{i}" for i in range(outputs)] if isinstance(outputs, int) else outputs
        node = helper.make_node(operator, names, results, domain=domain, **attributes)
        present = [(i, n, a) for i, (n, a) in enumerate(zip(names, inputs)) if a is not None]
        graph = helper.make_graph(
            [node],
            name,
            [helper.make_tensor_value_info(n, kind(a), a.shape) for i, n, a in present if i not in constants],
            # The types of outputs are inferred.
            [onnx.ValueInfoProto(name=r) for r in results if r],
            [numpy_helper.from_array(np.asarray(a), n) for i, n, a in present if i in constants],
        )
        opsets = [helper.make_opsetid("", opset)]
        if domain:
            opsets.append(helper.make_opsetid(domain, version))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10 if opset > 8 else 4)
        feed = {n: a for i, n, a in present if i not in constants}
        wanted = None if wanted is None else [dict(zip([r for r in results if r], wanted))]
        self.model(name, model, [feed], wanted)

    def run(self):
        """Holds the evaluator, the kernels and the sandbox to the answers; exits 1 where one is not right."""
        cases.judge(self.folder.name, "small models", "--native")
