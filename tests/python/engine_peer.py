"""ONNX Runtime as the peer of `cargo xtask bench engine`: one thread, driven line by line over a pipe.

Requests on standard input, one JSON each; answers on standard output, one JSON each:
  {"load": PATH}                          -> {"outputs": [names]}
  {"inputs": {name: {shape, datatype, data: base64}}}   -> {} (kept for the runs that follow)
  {"run": true}                           -> {"nanos": N}
  {"answer": true}                        -> {"outputs": [base64]}
  {"version": true}                       -> {"version": "onnxruntime ..."}
A request that fails is answered with {"error": what}; the next one is served.
"""

import base64
import json
import sys
import time

import numpy as np
import onnxruntime as ort

TYPES = {
    "FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "INT32": np.int32, "INT16": np.int16, "INT8": np.int8,
    "UINT64": np.uint64, "UINT32": np.uint32, "UINT16": np.uint16, "UINT8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


class Peer:
    def __init__(self):
        self.session, self.inputs, self.outputs = None, {}, []

    def answer(self, request):
        if "load" in request:
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            self.session = None
            self.session = ort.InferenceSession(request["load"], options, providers=["CPUExecutionProvider"])
            return {"outputs": [o.name for o in self.session.get_outputs()]}
        if "inputs" in request:
            self.inputs = {
                name: np.frombuffer(base64.b64decode(t["data"]), TYPES[t["datatype"]]).reshape(t["shape"])
                for name, t in request["inputs"].items()
            }
            return {}
        if "run" in request:
            started = time.perf_counter_ns()
            self.outputs = self.session.run(None, self.inputs)
            return {"nanos": time.perf_counter_ns() - started}
        if "version" in request:
            return {"version": f"onnxruntime {ort.__version__}"}
        self.outputs = self.session.run(None, self.inputs)
        return {"outputs": [base64.b64encode(np.ascontiguousarray(o).tobytes()).decode() for o in self.outputs]}


def main():
    peer = Peer()
    for line in sys.stdin:
        try:
            answer = peer.answer(json.loads(line))
        except Exception as error:  # whatever a model makes of it: the other models still have their turn
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
