"""Sets of synthetic faces, seeded: a symmetrical and an asymmetrical part, noise, some of them flipped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from lorafactory.setcheck.looks import REACH, SIDE

Array = NDArray[np.float64]
SHAPE = (SIDE, SIDE + 2 * REACH)


def faces(seed: int, asymmetry: float, *, count: int = 20, noise: float = 0.8) -> tuple[list[Array], list[bool]]:
    """`count` strips of one face, and which of them (35 %) are flipped."""
    rng = np.random.default_rng(seed)
    even, odd = (gaussian_filter(rng.normal(size=SHAPE), 3, mode="nearest") for _ in range(2))
    even, odd = even + even[:, ::-1], odd - odd[:, ::-1]
    face = even / even.std() + asymmetry * odd / odd.std()
    flipped = [bool(f) for f in rng.permutation(count) < round(0.35 * count)]
    return [(face[:, ::-1] if f else face) + noise * rng.normal(size=SHAPE) for f in flipped], flipped


def photographs(seed: int, asymmetry: float, *, count: int = 12) -> tuple[list[Image.Image], list[bool]]:
    """The same as pictures of 160 x 128 pixels, each with its subject a little off the middle."""
    rng = np.random.default_rng(seed)
    strips, flipped = faces(seed, asymmetry, count=count, noise=0.1)
    pictures = []
    for strip in strips:
        gray = np.clip(128 + 35 * np.roll(strip, rng.integers(-1, 2), axis=1), 0, 255).astype(np.uint8)
        pictures.append(Image.fromarray(gray).resize((160, 128), Image.Resampling.BICUBIC).convert("RGB"))
    return pictures, flipped
