"""Artefacts: pictures that are too sharp, too soft, too loud or too flat for both the set and the base.

An overtrained LoRA draws "pixelated clay" or breaks up; three plain statistics see that without a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from lorafactory.scoring.likeness import Array

SIDE = 256
"""Pictures are measured at most this large, so that a training picture's own size does not count."""
SPREAD = np.array([0.15, 0.05, 0.15])
"""Least standard deviation per feature: a set of like pictures must not make every difference a fault."""


def features(images: Sequence[Image.Image], side: int) -> Array:
    """Log sharpness, saturation 0..1, log share of fine detail; (n, 3). `side` is that of the drawn pictures."""
    side = min(side, SIDE)
    return np.array([_features(ImageOps.fit(i.convert("RGB"), (side, side), Image.Resampling.LANCZOS)) for i in images])


def _features(image: Image.Image) -> list[float]:
    gray = np.asarray(image.convert("L"), np.float64)
    edges = 4 * gray[1:-1, 1:-1] - gray[:-2, 1:-1] - gray[2:, 1:-1] - gray[1:-1, :-2] - gray[1:-1, 2:]
    saturation = np.asarray(image.convert("HSV"), np.float64)[..., 1].mean() / 255
    energy = np.abs(np.fft.fft2(gray - gray.mean())) ** 2
    high = np.abs(np.fft.fftfreq(len(gray))) > 0.25
    fine = energy[high[:, None] | high].sum() / max(energy.sum(), 1e-9)
    return [float(np.log1p(edges.std())), float(saturation), float(np.log10(fine + 1e-6))]


def oddness(pictures: Array, training: Array, baseline: Array) -> Array:
    """Standard deviations from the set or from the baseline, whichever is nearer, by the worst feature; (n,)."""
    scores = [np.abs(pictures - f.mean(axis=0)) / np.maximum(f.std(axis=0), SPREAD) for f in (training, baseline)]
    worst: Array = np.minimum(*scores).max(axis=1)
    return worst
