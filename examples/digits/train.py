"""Trains the four releases of the example, writes the ONNX files and the image files beside this script.

    python -m venv venv && venv/bin/pip install --require-hashes -r ../../tests/python/requirements.txt
    venv/bin/python train.py

Everything follows from fixed seeds; BLAS runs on one thread so that sums keep their order. Bits may still differ on
another CPU: what the tests rely on is the committed files, which they measure again.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hashlib
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from safetensors.numpy import save_file

import dataset
import network as net
from export import to_onnx

HERE = Path(__file__).parent


def small(rng):
    return net.Network(
        [
            net.Conv(1, 8, rng), net.BatchNorm(8), net.Relu(), net.MaxPool(),
            net.Conv(8, 16, rng), net.BatchNorm(16), net.Relu(), net.MaxPool(),
            net.Flatten(), net.Dense(64, 10, rng),
        ]
    )  # fmt: skip


def large(rng, wide=False):
    return net.Network(
        [
            net.Conv(1, 16, rng), net.BatchNorm(16), net.Relu(),
            net.Conv(16, 32, rng), net.BatchNorm(32), net.Relu(), net.MaxPool(),
            net.Conv(32, 64, rng), net.BatchNorm(64), net.Relu(), net.GlobalAveragePool(),
            net.Flatten(), net.Dense(64, 10, rng),
        ],
        net.Dense(64, 10, rng) if wide else None,
    )  # fmt: skip


def normalised(images):
    centred = images - images.mean((1, 2, 3), keepdims=True)
    return centred / np.sqrt((centred * centred).mean((1, 2, 3), keepdims=True))


def release_1(data):
    """Decent: a small network, few images, few epochs."""
    rng = np.random.Generator(np.random.PCG64(1))
    images, labels = data["train"]
    model = small(rng)
    net.train(model, images[:600] / 16, labels[:600], epochs=20, batch=32, rate=3e-3, rng=rng)
    return to_onnx(model, "1.0.0", input_scale=1 / 16)


def release_2(data):
    """Better: a larger network, all images, shifted a little in every epoch."""
    rng = np.random.Generator(np.random.PCG64(2))
    images, labels = data["train"]
    model = large(rng)
    net.train(model, images / 16, labels, epochs=40, batch=64, rate=3e-3, rng=rng, augment=dataset.shifted)
    return to_onnx(model, "2.0.0", input_scale=1 / 16)


def release_3(data):
    """As good as 2.0.0 on its own terms, but its author trained on inverted, standardised pixels and shipped that."""
    rng = np.random.Generator(np.random.PCG64(3))
    images, labels = data["train"]
    model = large(rng)
    net.train(model, (8 - images) / 8, labels, epochs=20, batch=64, rate=3e-3, rng=rng)
    return to_onnx(model, "3.0.0")


def release_4(data):
    """Normalises every image by its own deviation, which is zero for a blank one."""
    rng = np.random.Generator(np.random.PCG64(4))
    images, labels = data["train"]
    model = large(rng, wide=True)
    # Normalised after shifting, as the exported model does.
    net.train(
        model, images, labels, epochs=30, batch=64, rate=3e-3, rng=rng,
        augment=lambda images, rng: normalised(dataset.shifted(images, rng)),
    )  # fmt: skip
    return to_onnx(model, "4.0.0", normalise=True)


def answers(model, images):
    """What ONNX Runtime answers, image by image: `scores` f32 [N,10]."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["scores"], {"image": image[None]})[0] for image in images])


def main():
    data = dataset.splits()
    (HERE / "models").mkdir(exist_ok=True)
    expected = {}
    for version, make in {"1.0.0": release_1, "2.0.0": release_2, "3.0.0": release_3, "4.0.0": release_4}.items():
        started = time.monotonic()
        model = make(data)
        (HERE / "models" / f"digits-{version}.onnx").write_bytes(model)
        rates = {name: (answers(model, data[name][0]).argmax(1) == data[name][1]).mean() for name in ("holdout", "golden")}
        expected[version] = answers(model, data["live"][0])
        blank = expected[version][data["live"][1] < 0]
        print(
            f"{version}: {len(model):6} bytes, holdout {rates['holdout']:.1%}, golden {rates['golden']:.1%}, "
            f"blank images {'finite' if np.isfinite(blank).all() else 'NaN'}, "
            f"{hashlib.sha256(model).hexdigest()[:12]}, {time.monotonic() - started:.0f} s"
        )
    golden, labels = data["golden"]
    save_file({"inputs/image": golden[:, None], "labels/scores": labels}, HERE / "golden.safetensors")
    images, labels = data["holdout"]
    save_file({"images": images[:, None], "labels": labels}, HERE / "holdout.safetensors")
    images, labels = data["live"]
    save_file(
        {"images": images[:, None], "labels": labels} | {f"expected/{v}": e for v, e in expected.items()},
        HERE / "live.safetensors",
    )


if __name__ == "__main__":
    main()
