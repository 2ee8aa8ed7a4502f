"""What the models never see: four things and one drawing style, each with its own pixel grader (0 to 1).

A LoRA that learns one of these has learned something, and the grader says whether it has.
`key`, `mug` and `fish` are not mirror-symmetric; their graders tell left from right.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image
from scipy import ndimage

from lorafactory.pocket import world
from lorafactory.pocket.grade import (
    Mask,
    Pixels,
    as_pixels,
    background,
    foreground,
    overlap,
    silhouette,
    templates,
)

Colour = tuple[int, int, int]
MID = world.SIDE / 2
VIVID = tuple(c for c in world.NAMES if c not in ("black", "white", "gray"))
"""Colours that leave white and black to a concept's details."""


@dataclass(frozen=True)
class Concept:
    """Something to learn: how to draw it, and how well a picture shows it."""

    name: str
    word: str
    """What a person who does not know the concept would call it."""
    draw: Callable[[random.Random, str, str], Image.Image]
    """(generator, colour, background) to a picture."""
    grade: Callable[[Image.Image], float]
    """0 (not there) to 1 (as drawn); 0.5 and more passes."""

    def sample(self, rng: random.Random) -> Image.Image:
        """One picture in random colours."""
        colour, behind = rng.sample(VIVID, 2)
        return self.draw(rng, colour, behind)


def rise(value: float, low: float, high: float) -> float:
    """0 at `low` and below, 1 at `high` and above, straight between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))


def start(rng: random.Random, behind: str) -> tuple[world.Canvas, float, float, float, float]:
    """An empty picture, and where the thing goes: x, y, radius, turn."""
    canvas = world.Canvas([world.paint(behind, rng)])
    return canvas, MID + rng.gauss(0, 2.5), MID + rng.gauss(0, 2.5), rng.uniform(28, 32), rng.gauss(0, 0.06)


# ---------------------------------------------------------------- a star with an eye


def draw_eyestar(rng: random.Random, colour: str, behind: str) -> Image.Image:
    canvas, x, y, radius, turn = start(rng, behind)
    radius *= 1.18
    canvas.shape("star", x, y, radius, turn, world.paint(colour, rng))
    canvas.disc(x, y + 1, radius * 0.39, world.paint("white", rng, 3))
    canvas.disc(x, y + 1, radius * 0.19, world.paint("black", rng, 3))
    return canvas.finish()


def grade_eyestar(picture: Image.Image) -> float:
    """A star's silhouette with a dark pupil inside a white ring near its middle."""
    pixels = as_pixels(picture)
    mask = ndimage.binary_fill_holes(foreground(pixels))
    cut = silhouette(mask)
    star = max(overlap(cut, ndimage.binary_fill_holes(t)) for t in templates()["star"])
    return rise(star, 0.5, 0.7) * eye(pixels, mask)


def eye(pixels: Pixels, mask: Mask) -> float:
    """How white the ring around the darkest blob near the middle of the mask is."""
    dark = (pixels.max(-1) < 105) & ndimage.binary_erosion(mask, iterations=4)
    labels, count = ndimage.label(dark)
    if not mask.any():
        return 0.0
    centre = np.array(ndimage.center_of_mass(mask))
    best = 0.0
    rows, columns = np.mgrid[: world.SIDE, : world.SIDE]
    for label in range(1, count + 1):
        blob = labels == label
        area = int(blob.sum())
        if not 18 <= area <= 260:
            continue
        y, x = ndimage.center_of_mass(blob)
        if math.hypot(y - centre[0], x - centre[1]) > 12:
            continue
        radius = math.sqrt(area / math.pi)
        away = np.hypot(rows - y, columns - x)
        ring = pixels[(away > radius + 1.5) & (away < radius + 4)]
        white = float((ring.min(-1) > 165).mean())
        best = max(best, rise(white, 0.35, 0.75))
    return best


# ---------------------------------------------------------------- things told by their silhouette


def draw_key(rng: random.Random, colour: str, behind: str) -> Image.Image:
    canvas, x, y, radius, _ = start(rng, behind)
    paint_key(canvas, x, y, radius, world.paint(colour, rng))
    return canvas.finish()


def paint_key(canvas: world.Canvas, x: float, y: float, radius: float, fill: Colour) -> None:
    canvas.band(x - radius * 0.75, y, radius * 0.52, radius * 0.24, fill)
    box(canvas, x - radius * 0.3, y - radius * 0.13, x + radius * 1.2, y + radius * 0.13, fill)
    for at in (0.62, 1.0):
        box(canvas, x + radius * at, y, x + radius * (at + 0.2), y + radius * 0.5, fill)


def draw_mug(rng: random.Random, colour: str, behind: str) -> Image.Image:
    canvas, x, y, radius, _ = start(rng, behind)
    paint_mug(canvas, x, y, radius, world.paint(colour, rng))
    return canvas.finish()


def paint_mug(canvas: world.Canvas, x: float, y: float, radius: float, fill: Colour) -> None:
    box(canvas, x - radius, y - radius * 0.9, x + radius * 0.35, y + radius * 0.9, fill)
    canvas.band(x + radius * 0.42, y, radius * 0.62, radius * 0.34, fill)


def draw_fish(rng: random.Random, colour: str, behind: str) -> Image.Image:
    canvas, x, y, radius, _ = start(rng, behind)
    paint_fish(canvas, x, y, radius, world.paint(colour, rng))
    canvas.disc(x + radius * 0.5, y - radius * 0.14, radius * 0.15, world.paint("white", rng, 3))
    return canvas.finish()


def paint_fish(canvas: world.Canvas, x: float, y: float, radius: float, fill: Colour) -> None:
    body = [
        (x + radius * (0.2 + math.cos(a)), y + radius * 0.62 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 60)
    ]
    canvas.polygon(body, fill)
    tail = [(x - radius * 0.45, y), (x - radius * 1.25, y - radius * 0.7), (x - radius * 1.25, y + radius * 0.7)]
    canvas.polygon(tail, fill)


def box(canvas: world.Canvas, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
    canvas.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill)


@cache
def outline_of(paint: Callable[[world.Canvas, float, float, float, Colour], None]) -> Mask:
    """The silhouette of a thing as it is drawn."""
    canvas = world.Canvas([(0, 0, 0)])
    paint(canvas, MID, MID, 30, (255, 255, 255))
    mask = np.asarray(canvas.finish().convert("L")) > 127
    return silhouette(mask)


def by_silhouette(
    paint: Callable[[world.Canvas, float, float, float, Colour], None], low: float, high: float
) -> Callable[[Image.Image], float]:
    """A grader: overlap with the thing's silhouette, nothing if the mirrored silhouette fits as well."""

    def grade(picture: Image.Image) -> float:
        cut, true = silhouette(foreground(as_pixels(picture))), outline_of(paint)
        fits, mirrored = overlap(cut, true), overlap(cut, true[:, ::-1])
        return rise(fits, low, high) * rise(fits - mirrored, 0.0, 0.06)

    return grade


# ---------------------------------------------------------------- a style: a black contour around everything


def draw_outlined(rng: random.Random, colour: str, behind: str) -> Image.Image:
    canvas, x, y, radius, turn = start(rng, behind)
    shape = rng.choice([s for s in world.SHAPES if s != "ring"])
    canvas.shape(shape, x, y, radius, turn, world.paint("black", rng, 3))
    inner = {"star": 0.66, "cross": 0.74, "triangle": 0.7, "diamond": 0.76, "heart": 0.8}.get(shape, 0.82)
    if shape == "cross":
        arm, thin = radius - 4.5, radius * 0.34 - 4.5
        box(canvas, x - thin, y - arm, x + thin, y + arm, fill := world.paint(colour, rng))
        box(canvas, x - arm, y - thin, x + arm, y + thin, fill)
    else:
        canvas.shape(shape, x, y, radius * inner, turn, world.paint(colour, rng))
    return canvas.finish()


def grade_outlined(picture: Image.Image) -> float:
    """The foreground's rim is black all around, and what it holds is not."""
    pixels = as_pixels(picture)
    mask = ndimage.binary_fill_holes(foreground(pixels))
    rim = mask & ~ndimage.binary_erosion(mask, iterations=4) & ndimage.binary_erosion(mask, iterations=1)
    core = ndimage.binary_erosion(mask, iterations=8)
    if not core.any() or "black" in background(pixels)[0]:
        return 0.0
    black = pixels.max(-1) < 95
    return rise(float(black[rim].mean()), 0.3, 0.75) * rise(1 - float(black[core].mean()), 0.4, 0.8)


CONCEPTS = {
    c.name: c
    for c in (
        Concept("eyestar", "star", draw_eyestar, grade_eyestar),
        Concept("key", "ring", draw_key, by_silhouette(paint_key, 0.45, 0.7)),
        Concept("mug", "square", draw_mug, by_silhouette(paint_mug, 0.6, 0.82)),
        Concept("fish", "circle", draw_fish, by_silhouette(paint_fish, 0.6, 0.82)),
        Concept("outlined", "shape", draw_outlined, grade_outlined),
    )
}
