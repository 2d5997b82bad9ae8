"""What `ballast check MODEL --target cortex-a76` says of real models and of networks at published layer shapes.

Run by `cargo xtask test`. Of every model as its maker ships it the answer must be one that a person can act on: what fits is told
in numbers (memory, bytes, GFLOP, time); what leaves dimensions open comes with the lines to paste, the numbers they would give, and
with those lines it fits. Table and JSON say the same. Prints what took longest, for information. `check_verdicts.py WORD` looks
at those with the word in their name. Exits 1 if one does not hold.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import networks
import other_networks
import quantised
from check_models import MODELS
from models import download, model_bytes

ROOT = Path(__file__).resolve().parents[2]
TARGET = "cortex-a76"
# What only a person knows: the model has two networks for two rates, and takes chunks of another length at each.
GIVEN = {"silero": ["--shape", "input=1x576", "--shape", "state=2x1x128", "--value", "sr=16000"]}
# The exit codes of docs/cli.md.
FITS, REFUSED = 0, 3
COLUMNS = ["TARGET", "VERDICT", "MEMORY", "WITH SPARE", "SIZE", "GFLOP", "TIME", "DEADLINE"]


def ballast(program, *arguments):
    """Exit code, what it said, and the seconds that it took."""
    started = time.perf_counter()
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout, done.stderr, time.perf_counter() - started


def build():
    cargo = os.environ.get("CARGO", "cargo")
    # Whole, as the suite builds it: what one package alone needs of its dependencies would be compiled once more.
    command = [cargo, "build", "--quiet", "--workspace", "--bins", "--message-format", "json"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    made = [json.loads(line) for line in output.splitlines()]
    return next(m["executable"] for m in made if m.get("executable") and m["target"]["name"] == "ballast")


def complaints(program, path, flags=()):
    """What is wrong with what is said of a model, and the seconds that the answer took."""
    code, text, err, seconds = ballast(program, "check", str(path), "--target", TARGET, *flags)
    wrong = []
    as_json, found, _, _ = ballast(program, "check", str(path), "--target", TARGET, "-o", "json", *flags)
    try:
        [verdict] = json.loads(found)
    except ValueError:
        return [f"no verdict: exit code {code}, {err.strip() or found.strip()}"], seconds, None
    if code != as_json or code != (FITS if verdict["fits"] else REFUSED):
        wrong.append(f"exit code {code} of the table, {as_json} of JSON, for {verdict['reason']}")
    if verdict["target"] != TARGET or not re.search(rf"^{TARGET} +{verdict['reason']} ", text, re.M):
        wrong.append("the table has another verdict")
    heading = text.splitlines()[0]
    wrong += [f"the table has no {column}" for column in COLUMNS if column not in heading]
    # Numbers there are either way: of the shapes that are suggested where the model leaves some open.
    for field in ("peakMemoryBytes", "sizeBytes", "gflop", "predictedLatencyMillis", "deadlineMillis"):
        if not verdict[field] > 0:
            wrong.append(f"{field} is {verdict[field]}")
    memory = verdict["memory"] or {}
    if not memory.get("rolloutBytes", 0) >= memory.get("servingBytes", 0) > memory.get("instanceBytes", 0) > 0:
        wrong.append(f"memory is {memory}")
    if " -  " in text.splitlines()[1].split("ACCURACY")[0]:
        wrong.append("the table leaves a number out")
    return wrong, seconds, verdict


def look(program, path, given):
    """As the model is, or as it is given; where it leaves dimensions open once more with what is suggested."""
    wrong, seconds, verdict = complaints(program, path, given)
    if verdict is None or verdict["fits"]:
        return wrong, seconds, verdict and verdict["reason"]
    if verdict["reason"] != "OpenDimensions":
        return [*wrong, f"{verdict['reason']}: {verdict['message']}"], seconds, verdict["reason"]
    flags = []
    for opened in verdict["openInputs"]:
        if opened["name"] not in verdict["inputsYaml"] or not opened["suggested"]:
            wrong.append(f"nothing is suggested for {opened['name']}")
            continue
        flags += ["--shape", f"{opened['name']}={'x'.join(map(str, opened['suggested']))}"]
    if " ".join(flags) not in verdict["message"]:
        wrong.append("the message lacks the flags to paste")
    more, again, closed = complaints(program, path, flags)
    if closed is None or not closed["fits"]:
        wrong.append(f"with {' '.join(flags)} it does not fit: {closed and closed['message']}")
    return wrong + more, max(seconds, again), "OpenDimensions, then Fits"


def models(words):
    """Names and files."""
    folder = download()
    for name, file in MODELS.items():
        if not words or any(word in name for word in words):
            yield name, model_bytes(folder, file)
    for make in networks.ALL + other_networks.ALL + quantised.ALL:
        net = make()
        if not words or any(word in net.name for word in words):
            yield net.name, net.model().SerializeToString()


def main():
    words, program, times, failed = sys.argv[1:], build(), {}, 0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        for name, content in models(words):
            path.write_bytes(content)
            wrong, times[name], said = look(program, path, GIVEN.get(name, ()))
            failed += bool(wrong)
            print(f"{'FAILED' if wrong else 'ok    '} {name}: {'; '.join(wrong) or said}")
    for name, seconds in sorted(times.items(), key=lambda item: -item[1])[:3]:
        print(f"{name} took {seconds:.1f} s")
    print(f"{len(times) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not times else 0)


if __name__ == "__main__":
    main()
