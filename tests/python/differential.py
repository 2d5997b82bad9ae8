"""Random small graphs three ways: sandbox, reference evaluator, ONNX Runtime.

Run by `cargo xtask differential`. `differential.py --graphs N --seed S --failures FOLDER`: graph i is made from (S, i) and nothing
else. The evaluator's answers are held to ONNX Runtime's, the sandbox's to both. What differs is cut down to the first tensor
that does and kept in FOLDER. Graphs that the compiler refuses by name are counted, and must be few. Exits 1 if one is wrong.
"""

import argparse
import collections
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

import cases
import proposals
import wider_proposals
from random_graphs import grow

BATCH = 500
PROPOSALS = proposals.ALL + wider_proposals.ALL
# Failures that are cut down: it takes a run each.
CUT_DOWN = 10
# Share of graphs that may be refused, or this tests little.
REFUSED_AT_MOST = 0.1


def write(folder, graph, outputs=None):
    model, given, answers = graph.whole(outputs)
    floats = [v.array for v in graph.values if v.array.dtype.kind == "f"] + [a for a in answers if a.dtype.kind == "f"]
    largest = max([1.0] + [float(np.abs(a).max()) for a in answers if a.dtype.kind == "f"])
    # Halves are rounded between nodes by one and not by another: some units of their eleven bits.
    relative, absolute = (1e-2, 4e-3) if any(a.dtype == np.float16 for a in floats) else (1e-3, 1e-4)
    cases.write_case(folder, model, [(given, answers)], (relative, absolute * largest), "+".join(sorted({n.op_type for n in model.graph.node})))


def first_difference(graph, name, failures):
    """Runs the graph once for each tensor alone; the shortest that differs is kept, or the whole."""
    with tempfile.TemporaryDirectory() as directory:
        tensors = [output for node in graph.nodes for output in node.output]
        for i, tensor in enumerate(tensors):
            write(Path(directory) / f"{i:03}", graph, [tensor])
        found = cases.run(directory)["cases"]
        wrong = [r for r in found if r["outcome"]["result"] == "wrong"]
        place = failures / name
        shutil.rmtree(place, ignore_errors=True)
        if wrong:
            shutil.copytree(Path(directory) / wrong[0]["case"], place)
            return wrong[0]
    write(place, graph)
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--graphs", type=int, default=10000)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--failures", type=Path, required=True)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    shutil.rmtree(arguments.failures, ignore_errors=True)
    totals, refusals, nodes = collections.Counter(), collections.Counter(), collections.Counter()
    for start in range(0, arguments.graphs, BATCH):
        graphs = {}
        with tempfile.TemporaryDirectory() as directory:
            for i in range(start, min(start + BATCH, arguments.graphs)):
                graph = grow([arguments.seed, i], PROPOSALS)
                if graph.nodes:
                    graphs[f"{arguments.seed}-{i}"] = graph
                    nodes.update(node.op_type for node in graph.nodes)
                    write(Path(directory) / f"{arguments.seed}-{i}", graph)
            found = cases.run(directory)["cases"]
        for result in found:
            totals[result["outcome"]["result"]] += 1
            if result["outcome"]["result"] == "wrong":
                print(f"WRONG {result['case']} ({result['operator']}): {cases.told(result['outcome'])}")
                least = None
                if totals["wrong"] <= CUT_DOWN:
                    least = first_difference(graphs[result["case"]], result["case"], arguments.failures)
                else:
                    write(arguments.failures / result["case"], graphs[result["case"]])
                if least:
                    print(f"  cut down to {least['operator']}: {cases.told(least['outcome'])}")
                print(f"  kept in {arguments.failures / result['case']}", flush=True)
            elif result["outcome"]["result"] == "unsupported":
                refusals.update(f"{r['operator']}: {r['detail']}" for r in result["outcome"]["refusals"])
    for reason, count in refusals.most_common():
        print(f"refused {count} times: {reason}")
    total = sum(totals.values())
    print(f"{total} graphs of {sum(nodes.values())} nodes, {len(nodes)} operators, seed {arguments.seed}")
    print(f"passed {totals['passed']}, unsupported {totals['unsupported']}, wrong {totals['wrong']}")
    sys.exit(1 if totals["wrong"] or totals["unsupported"] > REFUSED_AT_MOST * total else 0)


if __name__ == "__main__":
    main()
