"""ONNX Runtime as the peer of `cargo xtask bench engine`: one thread, driven line by line over a pipe.

Requests on standard input, one JSON each; answers on standard output, one JSON each:
  {"load": PATH}                          -> {"outputs": [names]}
  {"inputs": {name: {shape, datatype, data: base64}}}   -> {} (kept for the runs that follow)
  {"run": true}                           -> {"nanos": N}
  {"answer": true}                        -> {"outputs": [base64]}
  {"version": true}                       -> {"version": "onnxruntime ..."}
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


def main():
    session, inputs, outputs = None, {}, []
    for line in sys.stdin:
        request = json.loads(line)
        if "load" in request:
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            session = ort.InferenceSession(request["load"], options, providers=["CPUExecutionProvider"])
            answer = {"outputs": [o.name for o in session.get_outputs()]}
        elif "inputs" in request:
            inputs = {
                name: np.frombuffer(base64.b64decode(t["data"]), TYPES[t["datatype"]]).reshape(t["shape"])
                for name, t in request["inputs"].items()
            }
            answer = {}
        elif "run" in request:
            started = time.perf_counter_ns()
            outputs = session.run(None, inputs)
            answer = {"nanos": time.perf_counter_ns() - started}
        elif "version" in request:
            answer = {"version": f"onnxruntime {ort.__version__}"}
        else:
            outputs = session.run(None, inputs)
            answer = {"outputs": [base64.b64encode(np.ascontiguousarray(o).tobytes()).decode() for o in outputs]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
