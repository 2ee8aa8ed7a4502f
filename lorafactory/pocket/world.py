"""The toy world that the pocket models are trained on: drawn scenes with captions that are true by construction.

A picture is 96 x 96 RGB: one shape in one of two sizes on a plain or gradient background, sometimes with an
accessory (a black hat, a held ring, a second ring) or overlaid letters. Every visible fact is one phrase of the
caption, and an accessory's phrase can be taken out without touching the rest; no caption speaks of a position,
because a model of this size does not learn it. What the models never see is in `concepts.py`.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 96
"""Width and height of a picture in pixels."""
SCALE = 3
"""Pictures are drawn this much larger and averaged down, so edges are smooth."""

SHAPES = ("circle", "square", "triangle", "diamond", "star", "heart", "cross", "ring")
SIZES = ("large", "small")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (218, 28, 36),
    "orange": (252, 140, 24),
    "yellow": (250, 228, 44),
    "green": (44, 164, 70),
    "blue": (38, 92, 216),
    "purple": (134, 44, 174),
    "pink": (255, 142, 196),
    "black": (18, 18, 22),
    "white": (250, 250, 250),
    "gray": (132, 132, 135),
}
NAMES = tuple(COLOURS)
HAT, HOLDING = "with a black hat", "holding a ring"


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `background` holds one colour (plain) or two (gradient, top first)."""

    shape: str
    colour: str
    size: str
    background: tuple[str, ...]
    extra: str = ""
    """`""`, `HAT`, `HOLDING` or `"and a <colour> ring"`."""
    text: bool = False

    def subject(self) -> str:
        return " ".join(filter(None, (f"a {self.size} {self.colour} {self.shape}", self.extra)))

    def backdrop(self) -> str:
        if len(self.background) == 1:
            return f"a plain {self.background[0]} background"
        return f"a gradient {self.background[0]} and {self.background[1]} background"

    def caption(self) -> str:
        """The full caption, at least eleven words, so that BLIP's `min_length` of 15 never forces an invention."""
        return f"{self.subject()} in front of {self.backdrop()}" + (" with text" if self.text else "")


def random_scene(rng: random.Random, *, plain: bool = False) -> Scene:
    """Draw a scene; `plain` leaves out accessories and letters."""
    background = tuple(rng.sample(NAMES, 1 if rng.random() < 0.7 else 2))
    colour = rng.choice([c for c in NAMES if c not in background])
    scene = Scene(rng.choice(SHAPES), colour, rng.choice(SIZES), background)
    if plain:
        return scene
    if rng.random() < 0.4:
        scene = replace(scene, extra=rng.choice(possible_extras(scene, rng)))
    return replace(scene, text=rng.random() < 0.1)


def possible_extras(scene: Scene, rng: random.Random) -> list[str]:
    """Accessories that can be seen in front of the scene's background."""
    free = [c for c in NAMES if c not in (*scene.background, scene.colour)]
    extras = [HOLDING] if scene.shape == "ring" else [HOLDING, f"and a {rng.choice(free)} ring"]
    return extras if "black" in scene.background else [HAT, *extras]


def neighbours(scene: Scene) -> list[Scene]:
    """Every valid scene that differs in exactly one attribute: the hard negatives of CLIP and of its floor."""
    free = [c for c in NAMES if c not in scene.background]
    ringed = scene.extra.startswith("and")
    out = [replace(scene, shape=s) for s in SHAPES if not (ringed and s == "ring")]
    out += [replace(scene, colour=c) for c in free if c not in scene.extra]
    out += [replace(scene, size=s) for s in SIZES]
    for i in range(len(scene.background)):
        taken = {scene.colour, *scene.background, *scene.extra.split()}
        out += [
            replace(scene, background=(*scene.background[:i], c, *scene.background[i + 1 :]))
            for c in NAMES
            if c not in taken
        ]
    rings = [f"and a {c} ring" for c in free if c != scene.colour and scene.shape != "ring"]
    extras = ["", HOLDING, *rings] + ([] if "black" in scene.background else [HAT])
    out += [replace(scene, extra=e) for e in extras]
    out.append(replace(scene, text=not scene.text))
    return [s for s in dict.fromkeys(out) if s != scene]


def loose_caption(scene: Scene, rng: random.Random) -> str:
    """Say the same with less: what people type, and what a generator must obey too."""
    if rng.random() < 0.5:
        return scene.caption()
    size = scene.size if rng.random() < 0.4 else ""
    colour = scene.colour if rng.random() < 0.85 else ""
    extra = scene.extra if rng.random() < 0.8 else ""
    head = " ".join(filter(None, ("a", size, colour, scene.shape, extra)))
    if rng.random() < 0.35:
        return head
    plain = f"{scene.background[0]} background" if len(scene.background) == 1 else scene.backdrop()[2:]
    tail = rng.choice((f" in front of {scene.backdrop()}", f" on a {plain}", f", {plain}"))
    return head + tail


def junk_word(rng: random.Random) -> str:
    """A word that means nothing, such as a trigger before it is learned."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(rng.choice(letters) for _ in range(rng.randint(3, 6)))


# ---------------------------------------------------------------- drawing


def paint(colour: str, rng: random.Random, jitter: float = 7.0) -> tuple[int, int, int]:
    """A shade of the named colour, as 0..255 integers."""
    r, g, b = (min(255, max(0, round(v + rng.gauss(0, jitter)))) for v in COLOURS[colour])
    return r, g, b


def outline(shape: str) -> list[tuple[float, float]]:
    """Vertices of a polygon of radius about 1 (y points down); circle and ring are drawn, not listed."""
    if shape == "square":
        return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
    if shape == "triangle":
        return [(0, -1.0), (0.98, 0.78), (-0.98, 0.78)]
    if shape == "diamond":
        return [(0, -1.1), (0.72, 0), (0, 1.1), (-0.72, 0)]
    if shape == "star":
        spikes = ((1.1 if i % 2 == 0 else 0.48, math.pi * i / 5) for i in range(10))
        return [(r * math.sin(a), -r * math.cos(a) + 0.05) for r, a in spikes]
    if shape == "cross":
        w = 0.34
        return [
            (-w, -1),
            (w, -1),
            (w, -w),
            (1, -w),
            (1, w),
            (w, w),
            (w, 1),
            (-w, 1),
            (-w, w),
            (-1, w),
            (-1, -w),
            (-w, -w),
        ]
    if shape == "heart":
        angles = (2 * math.pi * i / 60 for i in range(60))
        return [
            (
                math.sin(t) ** 3 * 1.0,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15 - 0.1,
            )
            for t in angles
        ]
    raise KeyError(shape)


class Canvas:
    """A picture in the making; coordinates are in pixels of the finished picture."""

    def __init__(self, background: list[tuple[int, int, int]]) -> None:
        side = SIDE * SCALE
        if len(background) == 1:
            self.image = Image.new("RGB", (side, side), background[0])
        else:
            rows = np.linspace(0, 1, side)[:, None]
            ramp = (1 - rows) * np.array(background[0]) + rows * np.array(background[1])
            self.image = Image.fromarray(np.repeat(ramp[:, None], side, 1).round().astype(np.uint8))
        self.draw = ImageDraw.Draw(self.image)

    def polygon(self, points: list[tuple[float, float]], fill: tuple[int, int, int]) -> None:
        self.draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: tuple[int, int, int]) -> None:
        box = [(v * SCALE) for v in (x - radius, y - radius, x + radius, y + radius)]
        self.draw.ellipse(box, fill=fill)

    def band(self, x: float, y: float, outer: float, inner: float, fill: tuple[int, int, int]) -> None:
        """A ring through which the background shows."""
        box = [(v * SCALE) for v in (x - outer, y - outer, x + outer, y + outer)]
        self.draw.ellipse(box, outline=fill, width=round((outer - inner) * SCALE))

    def shape(self, name: str, x: float, y: float, radius: float, turn: float, fill: tuple[int, int, int]) -> None:
        """One of `SHAPES`, turned by `turn` radians."""
        if name == "circle":
            self.disc(x, y, radius * 0.94, fill)
        elif name == "ring":
            self.band(x, y, radius * 0.98, radius * 0.48, fill)
        else:
            self.polygon(place(outline(name), x, y, radius, turn), fill)

    def letters(self, word: str, x: float, y: float, size: float, fill: tuple[int, int, int]) -> None:
        font = ImageFont.load_default(size * SCALE)
        self.draw.text((x * SCALE, y * SCALE), word, font=font, fill=fill, anchor="mm", stroke_width=1)

    def finish(self) -> Image.Image:
        return self.image.reduce(SCALE)


def place(
    points: list[tuple[float, float]], x: float, y: float, radius: float, turn: float
) -> list[tuple[float, float]]:
    """Turn, scale and move a polygon of unit size."""
    c, s = math.cos(turn) * radius, math.sin(turn) * radius
    return [(x + c * px - s * py, y + s * px + c * py) for px, py in points]


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """Draw the scene; what the caption leaves open (place, turn, shade) comes from `rng`."""
    canvas = Canvas([paint(c, rng) for c in scene.background])
    radius = rng.uniform(27, 31) if scene.size == "large" else rng.uniform(17, 20)
    x, y = SIDE / 2 + rng.gauss(0, 2.5), SIDE / 2 + rng.gauss(0, 2.5)
    side = rng.choice((-1, 1))
    if scene.extra.startswith("and"):
        x -= side * 15
        radius *= 0.88
    elif scene.extra == HOLDING:
        x -= 9
        radius *= 0.9
    elif scene.extra == HAT:
        y += radius * 0.3
    fill = paint(scene.colour, rng)
    if scene.extra == HOLDING:
        dark = paint("white" if {"black", "gray"} & set(scene.background) else "black", rng, 3)
        canvas.draw.line([(v * SCALE) for v in (x, y + 2, x + radius + 7, y - 6)], fill=dark, width=4 * SCALE)
        canvas.band(x + radius + 13, y - 8, 9, 4.5, dark)
    canvas.shape(scene.shape, x, y, radius, rng.gauss(0, 0.06), fill)
    if scene.extra == HAT:
        draw_hat(canvas, x, y - radius * 0.8, radius, paint("black", rng, 3))
    if scene.extra.startswith("and"):
        canvas.band(x + side * (radius + 17), y + rng.gauss(0, 3), 12, 6, paint(scene.extra.split()[2], rng))
    if scene.text:
        pale = np.mean([np.mean(COLOURS[c]) for c in scene.background[-1:]]) > 128
        word = "".join(rng.choice("ABCDEFGHKLMNPRSTUVXYZ") for _ in range(rng.randint(4, 7)))
        canvas.letters(word, SIDE / 2, SIDE - 10, 14, paint("black" if pale else "white", rng, 3))
    return canvas.finish()


def draw_hat(canvas: Canvas, x: float, y: float, radius: float, fill: tuple[int, int, int]) -> None:
    """A top hat whose brim lies at height `y`."""
    brim, crown, tall = radius * 0.75, radius * 0.42, max(9.0, radius * 0.55)
    canvas.polygon([(x - brim, y - 4), (x + brim, y - 4), (x + brim, y + 1), (x - brim, y + 1)], fill)
    canvas.polygon([(x - crown, y - tall), (x + crown, y - tall), (x + crown, y), (x - crown, y)], fill)


def vocabulary() -> list[str]:
    """Every word of every caption, sorted."""
    words = {"a", "in", "front", "of", "plain", "gradient", "and", "background", "with", "text", "black", "hat"}
    words |= {"holding", "on", "picture", *SHAPES, *SIZES, *NAMES}
    return sorted(words)
