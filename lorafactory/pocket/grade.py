"""A grader that looks at pixels, not through a model: what shape, colour and background does a picture show?

It knows how the world draws: the background is one colour or a vertical gradient, read off the top and bottom rows;
everything that differs from it is foreground; a silhouette is compared with drawn templates by intersection over union.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lorafactory.pocket import world

Mask = NDArray[np.bool_]
Pixels = NDArray[np.float32]
GRID = 40
"""Silhouettes are compared on a grid of this side."""


@dataclass(frozen=True)
class Seen:
    """What the pixels say of a picture."""

    shape: str
    colour: str
    background: tuple[str, ...]
    match: float
    """Intersection over union of the silhouette with its best template."""

    def agrees(self, scene: world.Scene) -> bool:
        """Shape, colour and background are those of the scene."""
        return (self.shape, self.colour, self.background) == (scene.shape, scene.colour, scene.background)


def as_pixels(picture: Image.Image) -> Pixels:
    side = (world.SIDE, world.SIDE)
    image = picture.convert("RGB")
    image = image if image.size == side else image.resize(side, Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32)


def name_colour(rgb: Iterable[float]) -> str:
    """The nearest named colour."""
    value = np.asarray(list(rgb))
    return min(world.NAMES, key=lambda n: float(np.square(value - world.COLOURS[n]).sum()))


def background(pixels: Pixels) -> tuple[tuple[str, ...], Pixels]:
    """The background's names (one if plain, top and bottom if gradient) and its picture without a foreground."""
    sides = np.concatenate([pixels[:, :5], pixels[:, -5:]], 1)
    rows = np.median(sides, axis=1)
    top, bottom = np.median(rows[:6], 0), np.median(rows[-6:], 0)
    fitted = np.linspace(top, bottom, world.SIDE)[:, None].repeat(world.SIDE, 1).astype(np.float32)
    names = (name_colour(top), name_colour(bottom))
    plain = names[0] == names[1] or float(np.abs(top - bottom).max()) < 45
    middle = name_colour(np.median(rows, 0))
    return ((middle,) if plain else names), fitted


def foreground(pixels: Pixels) -> Mask:
    """What differs from the background, without specks."""
    _, fitted = background(pixels)
    mask = np.sqrt(np.square(pixels - fitted).sum(-1)) > 60
    mask = ndimage.binary_opening(mask, iterations=1)
    return largest(mask)


def largest(mask: Mask) -> Mask:
    """The largest connected part."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = ndimage.sum_labels(mask, labels, range(1, count + 1))
    part: Mask = labels == 1 + int(np.argmax(sizes))
    return part


def silhouette(mask: Mask) -> Mask:
    """The mask cut to its bounding box and scaled to `GRID` on its longer side, centred."""
    if not mask.any():
        return np.zeros((GRID, GRID), dtype=bool)
    rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = GRID / max(cut.shape)
    size = (max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale)))
    small = np.asarray(Image.fromarray(cut.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 127
    out = np.zeros((GRID, GRID), dtype=bool)
    y, x = (GRID - small.shape[0]) // 2, (GRID - small.shape[1]) // 2
    out[y : y + small.shape[0], x : x + small.shape[1]] = small
    return out


def overlap(a: Mask, b: Mask) -> float:
    """Intersection over union."""
    union = float((a | b).sum())
    return float((a & b).sum()) / union if union else 0.0


@cache
def templates() -> dict[str, list[Mask]]:
    """Each shape's silhouette at several turns."""
    made: dict[str, list[Mask]] = {}
    for shape in world.SHAPES:
        for turn in (-0.24, -0.16, -0.08, 0.0, 0.08, 0.16, 0.24):
            canvas = world.Canvas([(0, 0, 0)])
            canvas.shape(shape, world.SIDE / 2, world.SIDE / 2, 34, turn, (255, 255, 255))
            mask = np.asarray(canvas.finish().convert("L")) > 127
            made.setdefault(shape, []).append(silhouette(mask))
    return made


def best_shape(mask: Mask) -> tuple[str, float]:
    """The shape whose template overlaps most, and how much."""
    cut = silhouette(mask)
    scores = {shape: max(overlap(cut, t) for t in ts) for shape, ts in templates().items()}
    shape = max(scores, key=lambda s: scores[s])
    return shape, scores[shape]


def see(picture: Image.Image) -> Seen:
    """Read shape, colour and background of a picture with one object."""
    pixels = as_pixels(picture)
    names, _ = background(pixels)
    mask = foreground(pixels)
    shape, match = best_shape(mask)
    core = ndimage.binary_erosion(mask, iterations=2)
    chosen = pixels[core if core.any() else mask]
    colour = name_colour(np.median(chosen, 0)) if len(chosen) else "none"
    return Seen(shape, colour, names, match)


def self_test(count: int = 400, seed: int = 3) -> float:
    """Share of true single-object pictures that the grader reads right."""
    rng = random.Random(seed)
    scenes = [world.random_scene(rng, plain=True) for _ in range(count)]
    return sum(see(world.draw(s, rng)).agrees(s) for s in scenes) / count
