"""Measures the digits example again: what the README and the demo claim of the four releases must hold.

Run by `cargo xtask test`; prints one line per claim and exits 1 if one does not hold.
"""

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from safetensors.numpy import load_file

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
VERSIONS = ("1.0.0", "2.0.0", "3.0.0", "4.0.0")
# As in the demo's ModelDeployment: `minMatching` of the golden vectors.
MIN_MATCHING = 0.90
failed = 0


def claim(holds, text):
    global failed
    failed += not holds
    print(f"{'ok    ' if holds else 'FAILED'} {text}")


def table():
    """The README's rows: release -> (held-out per cent, what Ballast does)."""
    rows = {}
    for line in (DIGITS / "README.md").read_text().splitlines():
        row = re.match(r"\| (\d\.0\.0) \|.*\| ([\d.]+) % \| (.*) \|$", line)
        if row:
            rows[row[1]] = float(row[2]), row[3]
    return rows


def answers(version, images):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    path = DIGITS / "models" / f"digits-{version}.onnx"
    session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["scores"], {"image": image})[0] for image in images])


def main():
    golden = load_file(DIGITS / "golden.safetensors")
    holdout = load_file(DIGITS / "holdout.safetensors")
    live = load_file(DIGITS / "live.safetensors")
    blank = live["labels"] < 0
    claim(live["images"].shape[1:] == (1, 1, 8, 8) and blank.any(), f"{blank.sum()} of {len(blank)} live images are blank")

    # Real images differ between the splits (two people's digits can be equal to the pixel, hence not exactly 0).
    seen = {image.tobytes() for image in [*golden["inputs/image"], *holdout["images"]]}
    shared = sum(image.tobytes() in seen for image in live["images"])
    claim(shared == 0, f"{shared} live images are among the golden or held-out ones")

    held_out = {}
    for version in VERSIONS:
        size = (DIGITS / "models" / f"digits-{version}.onnx").stat().st_size
        claim(size <= 300_000, f"{version}: {size} bytes")
        held_out[version] = float((answers(version, holdout["images"]).argmax(1) == holdout["labels"]).mean())
        matching = float((answers(version, golden["inputs/image"]).argmax(1) == golden["labels/scores"]).mean())
        passes = matching >= MIN_MATCHING
        claim(
            passes == (version != "3.0.0"),
            f"{version}: held-out {held_out[version]:.1%}, golden {matching:.1%}: {'passes' if passes else 'refused'}",
        )
        again, written = answers(version, live["images"]), live[f"expected/{version}"]
        same = np.allclose(again, written, rtol=1e-3, atol=1e-4, equal_nan=True)
        claim(same, f"{version}: the expected answers to live images are ONNX Runtime's")
        finite = np.isfinite(written).all(1)
        claim(
            finite[~blank].all() and finite[blank].all() == (version != "4.0.0") and (version != "4.0.0" or not finite[blank].any()),
            f"{version}: {(~finite).sum()} live answers are not finite",
        )
    written = table()
    claim(sorted(written) == list(VERSIONS), f"the README's table has the releases {sorted(written)}")
    for version, (percent, does) in written.items():
        measured = 100 * held_out[version]
        claim(abs(measured - percent) < 0.05001, f"{version}: the README says {percent} % of held-out images, measured {measured:.2f} %")
        refused = does.startswith("refused")
        claim(refused == (version == "3.0.0"), f"{version}: the README says it is {'refused' if refused else 'let through'}")
    better = held_out["2.0.0"] - held_out["1.0.0"]
    claim(better >= 0.01, f"2.0.0 is {100 * better:.1f} points better than 1.0.0 on held-out images")

    # A wrong attribution must show: the releases' answers differ beyond the tolerance on most images.
    for a, b in (("1.0.0", "2.0.0"), ("2.0.0", "4.0.0"), ("2.0.0", "3.0.0")):
        close = np.isclose(live[f"expected/{a}"], live[f"expected/{b}"], rtol=1e-3, atol=1e-4).all(1)
        claim(close.mean() <= 0.25, f"{a} and {b} agree to the tolerance on {close.mean():.0%} of live images")

    operators = sorted({n.op_type for v in VERSIONS for n in onnx.load(DIGITS / "models" / f"digits-{v}.onnx").graph.node})
    print("       operators:", ", ".join(operators))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
