"""Holds compiler and sandbox to ONNX Runtime on networks at published layer shapes (networks.py).

Run by `cargo xtask test`. Every network must be taken, give ONNX Runtime's answers, and take the memory that its verdict says. Prints how long both take, for
information. `check_networks.py WORD` looks at those with the word in their name. Exits 1 if one does not hold.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

import cases
import networks
import other_networks
import quantised

ROUNDS = 3


def peer(content, given):
    """Answers, and the milliseconds of the fastest of a few runs on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        answers = session.run(None, given)
        times.append(1000 * (time.perf_counter() - started))
    return answers, min(times)


def main():
    words, theirs, failed = sys.argv[1:], {}, False
    with tempfile.TemporaryDirectory() as directory:
        for make in networks.ALL + other_networks.ALL + quantised.ALL:
            net = make()
            if words and not any(word in net.name for word in words):
                continue
            model = net.model()
            answers, theirs[net.name] = peer(model.SerializeToString(), net.given)
            if not all(np.isfinite(a).all() and np.std(a) > 0 for a in answers):
                sys.exit(f"FAILED {net.name}: the network's own numbers are not finite, or all the same")
            # In parts of what is usual in the output: ONNX Runtime's own answers, with its optimisations and without, are 2e-4
            # apart in the deepest network.
            absolute = 1e-4 * max(1.0, *(4 * float(np.std(a)) for a in answers))
            vectors = [([net.given[i.name] for i in model.graph.input], answers)]
            cases.write_case(Path(directory) / net.name, model, vectors, (1e-3, absolute), net.name)
        found = cases.run(directory, "--rounds", ROUNDS, "--limit", 180, "--jobs", 1, "--memory")["cases"]
    for result in found:
        name, outcome = result["case"], result["outcome"]
        right = outcome["result"] == "passed"
        failed |= not right
        ratio = f", ONNX Runtime {theirs[name]:.2f} ms, ratio {outcome['micros'] / 1000 / theirs[name]:.2f}" if right else ""
        print(f"{'ok    ' if right else 'FAILED'} {name}: {cases.told(outcome)}{ratio}")
    sys.exit(1 if failed or len(found) != len(theirs) else 0)


if __name__ == "__main__":
    main()
