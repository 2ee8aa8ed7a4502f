"""Memorisation: a drawn picture that is nearer to a training picture than training pictures are to each other.

CLIP alone calls every good likeness a copy, and coarse pixels alone call every plain background one; so a copy is
what is too near in both. Mirror images count as the picture they mirror.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from lorafactory.scoring.likeness import Array

SIDE = 16
"""Pixels of the coarse view; it forgives noise and compression, not another composition."""
PERCENTILE = 95
TWINS = 0.99
"""Training pictures with coarse pixels this near, mirrored or not, are one picture twice: they set no limit."""


@dataclass(frozen=True)
class Gallery:
    """n training pictures, then their n mirror images, as CLIP and as coarse pixels; rows of length 1."""

    clip: Array
    pixels: Array

    @property
    def count(self) -> int:
        return len(self.clip) // 2


@dataclass(frozen=True)
class Limits:
    """How near two different pictures of the set come: the 95th percentile of each one's nearest."""

    clip: float
    pixels: float


@dataclass(frozen=True)
class Nearest:
    """The training picture that a drawn one is nearest to."""

    index: int
    mirrored: bool
    clip: float
    pixels: float
    copy: bool


def gallery(training: Sequence[Image.Image], encode: Callable[[list[Image.Image]], Array]) -> Gallery:
    both = [*training, *(ImageOps.mirror(image) for image in training)]
    return Gallery(encode(both), coarse(both))


def coarse(images: Sequence[Image.Image]) -> Array:
    """Each image as SIDE x SIDE colours about their mean, of length 1: products are correlations."""
    small = [np.asarray(i.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), np.float64) for i in images]
    flat = np.stack(small).reshape(len(small), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    rows: Array = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return rows


def limits(known: Gallery) -> Limits:
    """Leave one out: each training picture against all the others and their mirror images."""
    n = known.count
    clip, pixels = known.clip[:n] @ known.clip.T, known.pixels[:n] @ known.pixels.T
    twins = (pixels[:, :n] >= TWINS) | (pixels[:, n:] >= TWINS) | np.eye(n, dtype=bool)
    other = ~np.tile(twins, 2)
    rows = other.any(axis=1)
    if not rows.any():
        return Limits(1.0, 1.0)
    nearest = (np.where(other, m, -1.0).max(axis=1)[rows] for m in (clip, pixels))
    return Limits(*(float(np.percentile(values, PERCENTILE)) for values in nearest))


def nearest(known: Gallery, limit: Limits, clip: Array, pixels: Array) -> list[Nearest]:
    """For each drawn picture the training picture that it may be a copy of, else the one that it is most like."""
    by_clip, by_pixels = clip @ known.clip.T, pixels @ known.pixels.T
    copies = (by_clip > limit.clip) & (by_pixels > limit.pixels)
    order = (by_clip + by_pixels + 4 * copies).argmax(axis=1)
    found = []
    for i, j in enumerate(map(int, order)):
        mirrored = j >= known.count
        near = float(by_clip[i, j]), float(by_pixels[i, j])
        found.append(Nearest(j % known.count, mirrored, *near, copy=bool(copies[i, j])))
    return found
