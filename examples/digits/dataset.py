"""The images: the UCI digits that scikit-learn ships, split once and for ever.

Splits do not overlap: `train` is all a network ever sees, `golden` becomes the acceptance test that every release must
pass, `holdout` measures accuracy, `live` is what the demo's load generator sends. Blank images (a covered lens, an
over-exposed frame) are added to `live` only: nobody thought of them when training.
"""

import numpy as np
from sklearn.datasets import load_digits

SPLIT_SEED = 20_240_601
SIZES = {"train": 1097, "golden": 100, "holdout": 500, "live": 100}
# Positions of blank frames among the live images; values are the constant pixel.
BLANKS = {17: 0.0, 43: 0.0, 71: 16.0, 97: 0.0}


def splits():
    """name -> (images f32 [N,1,8,8] with raw pixels 0..16, labels i64 [N]); a blank image's label is -1."""
    digits = load_digits()
    images = digits.images.astype(np.float32)[:, None, :, :]
    labels = digits.target.astype(np.int64)
    order = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(len(images))
    assert sum(SIZES.values()) == len(images)
    out, start = {}, 0
    for name, size in SIZES.items():
        chosen = order[start : start + size]
        out[name] = (images[chosen], labels[chosen])
        start += size
    live_images, live_labels = list(out["live"][0]), list(out["live"][1])
    for position, pixel in sorted(BLANKS.items()):
        live_images.insert(position, np.full((1, 8, 8), pixel, np.float32))
        live_labels.insert(position, -1)
    out["live"] = (np.stack(live_images), np.array(live_labels, np.int64))
    return out


def shifted(images, rng):
    """Each image moved by up to one pixel up or down and left or right, zeros moving in."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty_like(images)
    for i, (dy, dx) in enumerate(rng.integers(0, 3, size=(len(images), 2))):
        out[i] = padded[i, :, dy : dy + 8, dx : dx + 8]
    return out
