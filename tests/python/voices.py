"""Microphones that stream to a gateway which carries silero-vad's state, each held to ONNX Runtime that is given its state.

Run by a test of the whole system:
  voices.py model FILE              writes the model
  voices.py stream HOST:PORT MODEL  streams, and exits 1 if an answer differs
"""

import http.client
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort

from models import download, model_bytes

FILE = "silero_vad.onnx"
RATE = 16000
# A frame is 32 ms with the 4 ms before it.
FRAME, CONTEXT = 512, 64
MICROPHONES, FRAMES = 200, 12
# Connections at a time; each has many microphones, whose frames come by turns.
CONNECTIONS = 8
ABSOLUTE, RELATIVE = 1e-4, 1e-3


def sound(microphone):
    """A hum with formants that comes and goes, of another pitch for each microphone, and noise."""
    time = np.arange(FRAME * FRAMES) / RATE
    pitch = 90 + microphone
    hum = sum(np.sin(2 * np.pi * pitch * k * time) / k * np.exp(-(((pitch * k - 600) / 500) ** 2)) for k in range(1, 20))
    noise = np.random.default_rng(microphone).normal(0, 0.01, len(time))
    loud = np.sin(2 * np.pi * 3 * time + microphone) > -0.2
    padded = np.concatenate([np.zeros(CONTEXT), hum * loud * 0.3 + noise]).astype(np.float32)
    return [padded[i * FRAME : i * FRAME + FRAME + CONTEXT][None] for i in range(FRAMES)]


class Gateway:
    def __init__(self, address, model):
        self.connection, self.path = http.client.HTTPConnection(address, timeout=60), f"/v2/models/{model}/infer"

    def ask(self, chunk, parameters):
        """Raw bytes behind the JSON, so that both hear the very same numbers."""
        tensor = {"name": "input", "shape": list(chunk.shape), "datatype": "FP32", "parameters": {"binary_data_size": chunk.nbytes}}
        head = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        self.connection.request("POST", self.path, head + chunk.tobytes(), headers)
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())


def name(microphone):
    """Both of Triton's forms."""
    return microphone if microphone % 2 else f"hall-3/microphone-{microphone}"


def stream(address, model, session, microphones):
    """Their frames by turns, as they are spoken. What went wrong, and how far answers were off at most."""
    gateway, wrong, worst = Gateway(address, model), [], 0.0
    sounds = {m: sound(m) for m in microphones}
    states = {m: np.zeros((2, 1, 128), np.float32) for m in microphones}
    for frame in range(FRAMES):
        for m in microphones:
            chunk = sounds[m][frame]
            probability, states[m] = session.run(None, {"input": chunk, "state": states[m], "sr": np.array(RATE)})
            begin, end = frame == 0, frame == FRAMES - 1
            parameters = {"sequence_id": name(m)} | ({"sequence_start": True} if begin else {}) | ({"sequence_end": True} if end else {})
            status, answer = gateway.ask(chunk, parameters)
            if status != 200:
                wrong.append(f"microphone {m}, frame {frame}: {status} {answer}")
                continue
            outputs = {o["name"]: np.float32(o["data"]) for o in answer["outputs"]}
            if list(outputs) != ["output"] or answer["parameters"]["sequence_id"] != name(m) or "ballast_sequence_reset" in answer["parameters"]:
                wrong.append(f"microphone {m}, frame {frame}: {answer}")
                continue
            off = float(abs(outputs["output"] - probability.ravel()).max())
            worst = max(worst, off)
            if off > ABSOLUTE + RELATIVE * float(abs(probability).max()):
                wrong.append(f"microphone {m}, frame {frame}: {outputs['output']}, ONNX Runtime has {probability.ravel()}")
    return wrong, worst


def main():
    content = model_bytes(download(), FILE)
    if sys.argv[1] == "model":
        Path(sys.argv[2]).write_bytes(content)
        return
    address, model = sys.argv[2:]
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    # A check that any state would pass is none: with another one's the answers must be others.
    chunk, sr = sound(1)[5], np.array(RATE)
    fresh = session.run(None, {"input": chunk, "state": np.zeros((2, 1, 128), np.float32), "sr": sr})
    later = session.run(None, {"input": chunk, "state": fresh[1], "sr": sr})
    assert abs(fresh[0] - later[0]).max() > 10 * ABSOLUTE, "state makes no difference to this sound"
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        parts = [range(part, MICROPHONES, CONNECTIONS) for part in range(CONNECTIONS)]
        results = list(pool.map(lambda part: stream(address, model, session, part), parts))
    wrong = [line for lines, _ in results for line in lines]
    print("\n".join(wrong[:20]))
    print(f"{MICROPHONES} microphones, {FRAMES} frames each, worst difference {max(worst for _, worst in results):.2e}, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
