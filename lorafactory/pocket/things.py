"""Things that nobody has a word for: a body, what sticks out of it, and marks, made up at random.

DINOv2's pocket form learns from them to know a thing again in whatever colour, place, turn and size, and to tell it
from the same thing with one detail changed. What `concepts.py` holds is not among them but by chance: one in some ten
thousand is a star with an eye.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from lorafactory.pocket import world

Point = tuple[float, float]
Bend = Callable[[Point], Point]
TONES = (*world.NAMES, *("white", "black") * 5)
"""Colours of marks: every second is white or black, as eyes and windows are."""
FORMS = ("disc", "disc", "disc", "band", "square", "triangle", "star", "diamond", "cross")
CIRCLE = [(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 40)]


@dataclass(frozen=True)
class Part:
    """A filled polygon, or a ring through which what is behind shows. Numbers are in units of the thing's radius."""

    points: tuple[Point, ...]
    ring: float = 0.0
    """Of a ring: its outer radius; `points` is its middle then."""
    tone: str = ""
    """A mark's own colour; empty is the body's."""
    run: float = 0.0
    """How much of the body's colour ran into the mark, 0 to 1."""

    def moved(self, x: float, y: float) -> Part:
        return replace(self, points=tuple((px + x, py + y) for px, py in self.points))

    def scaled(self, factor: float) -> Part:
        x, y = self.middle
        points = tuple((x + (px - x) * factor, y + (py - y) * factor) for px, py in self.points)
        return replace(self, points=points, ring=self.ring * factor)

    @property
    def middle(self) -> Point:
        xs, ys = zip(*self.points, strict=True)
        return sum(xs) / len(xs), sum(ys) / len(ys)


@dataclass(frozen=True)
class Thing:
    """What is the same in every picture of it."""

    parts: tuple[Part, ...]
    """In the body's colour; the body is the first."""
    marks: tuple[Part, ...]
    bent: int = 0
    """Seed of how it is bent out of shape; 0 is not at all."""


# ---------------------------------------------------------------- making up


def random_thing(rng: random.Random) -> Thing:
    limbs = [limb(rng) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    marks: list[Part] = []
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3))):
        marks.append(mark(rng, marks))
    return Thing((body(rng), *limbs), tuple(marks))


def body(rng: random.Random) -> Part:
    """One of the world's shapes, a box, an ellipse, or a polygon of three to nine corners."""
    kind = rng.random()
    if kind < 0.4:
        shape = rng.choice(world.SHAPES)
        return formed({"circle": "disc", "ring": "band"}.get(shape, shape), 0, 0, 0.95)
    wide, tall = rng.uniform(0.4, 1.1), rng.uniform(0.4, 1.1)
    if kind < 0.6:
        return box(0, 0, wide, tall)
    if kind < 0.75:
        return Part(tuple((wide * px, tall * py) for px, py in CIRCLE))
    corners = rng.randint(3, 9)
    angles = [2 * math.pi * (i + rng.uniform(-0.3, 0.3)) / corners for i in range(corners)]
    return Part(tuple((r * math.cos(a), r * math.sin(a)) for a in angles for r in [rng.uniform(0.45, 1.15)]))


def limb(rng: random.Random) -> Part:
    """Something at the rim of the body: a disc, a ring, a box or a fin."""
    angle, away = rng.uniform(0, 2 * math.pi), rng.uniform(0.6, 1.0)
    x, y, kind = away * math.cos(angle), away * math.sin(angle), rng.random()
    if kind < 0.35:
        return formed(rng.choice(("disc", "band")), x, y, rng.uniform(0.3, 0.65))
    if kind < 0.7:
        return box(x, y, rng.uniform(0.12, 0.5), rng.uniform(0.12, 0.5))
    fin = [(-0.3, 0.0), (rng.uniform(0.4, 0.8), -0.5), (rng.uniform(0.4, 0.8), 0.5)]
    return Part(tuple(world.place(fin, x, y, 1.0, angle)))


def mark(rng: random.Random, under: list[Part]) -> Part:
    """A spot; every second time in the middle of the one before it."""
    form = rng.choice(FORMS)
    if under and rng.random() < 0.5:
        (x, y), inner = under[-1].middle, size(under[-1]) * rng.uniform(0.35, 0.65)
        return formed(form, x, y, inner, rng.choice([t for t in TONES if t != under[-1].tone]))
    away, angle = rng.choice((0.0, rng.uniform(0, 0.6))), rng.uniform(0, 2 * math.pi)
    return formed(form, away * math.cos(angle), away * math.sin(angle), rng.uniform(0.13, 0.45), rng.choice(TONES))


def formed(form: str, x: float, y: float, radius: float, tone: str = "") -> Part:
    """A disc, a band, or one of the world's polygons."""
    if form == "band":
        return Part(((x, y),), ring=radius, tone=tone)
    points = CIRCLE if form == "disc" else world.outline(form)
    return Part(tuple(world.place(points, x, y, radius, 0.0)), tone=tone)


def box(x: float, y: float, wide: float, tall: float) -> Part:
    return Part(tuple((x + sx * wide, y + sy * tall) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))))


def size(part: Part) -> float:
    """The distance of its outermost point from its middle."""
    x, y = part.middle
    return part.ring or max(math.hypot(px - x, py - y) for px, py in part.points)


# ---------------------------------------------------------------- nearly the same


def altered(thing: Thing, rng: random.Random) -> Thing:
    """The thing with one detail changed, as in a drawing that is nearly right."""
    ways = [add, bend, other_body, other_limb]
    if thing.marks:
        ways += [drop, drop, run, run, move, recolour, resize]
    return rng.choice(ways)(thing, rng)


def add(thing: Thing, rng: random.Random) -> Thing:
    return replace(thing, marks=(*thing.marks, mark(rng, list(thing.marks))))


def bend(thing: Thing, rng: random.Random) -> Thing:
    return replace(thing, bent=rng.randint(1, 1 << 30))


def other_body(thing: Thing, rng: random.Random) -> Thing:
    return replace(thing, parts=(body(rng), *thing.parts[1:]))


def other_limb(thing: Thing, rng: random.Random) -> Thing:
    """One more, or where there are some, as often one less."""
    limbs = thing.parts[2:] if len(thing.parts) > 1 and rng.random() < 0.5 else (*thing.parts[1:], limb(rng))
    return replace(thing, parts=(thing.parts[0], *limbs))


def drop(thing: Thing, rng: random.Random) -> Thing:
    gone = rng.randrange(len(thing.marks))
    return replace(thing, marks=tuple(m for i, m in enumerate(thing.marks) if i != gone))


def run(thing: Thing, rng: random.Random) -> Thing:
    return changed(thing, rng, lambda m: replace(m, run=rng.uniform(0.4, 0.9)))


def move(thing: Thing, rng: random.Random) -> Thing:
    angle, away = rng.uniform(0, 2 * math.pi), rng.uniform(0.25, 0.5)
    return changed(thing, rng, lambda m: m.moved(away * math.cos(angle), away * math.sin(angle)))


def recolour(thing: Thing, rng: random.Random) -> Thing:
    return changed(thing, rng, lambda m: replace(m, tone=rng.choice([t for t in world.NAMES if t != m.tone])))


def resize(thing: Thing, rng: random.Random) -> Thing:
    return changed(thing, rng, lambda m: m.scaled(rng.choice((0.5, 0.6, 1.6))))


def changed(thing: Thing, rng: random.Random, how: Callable[[Part], Part]) -> Thing:
    """The thing with one of its marks changed."""
    at = rng.randrange(len(thing.marks))
    return replace(thing, marks=tuple(how(m) if i == at else m for i, m in enumerate(thing.marks)))


# ---------------------------------------------------------------- drawing


def draw(thing: Thing, rng: random.Random, wobble: float = 0.0) -> Image.Image:
    """A picture of the thing; colours, place, size and turn come from `rng`.

    `wobble` is by how much of its radius the thing is out of shape as it is by an unsteady hand, the same thing still.
    """
    behind = rng.sample(world.NAMES, 1 if rng.random() < 0.75 else 2)
    free = [c for c in world.NAMES if c not in behind]
    own = [c for c in free if c not in {m.tone for m in thing.marks}]
    fill = world.paint(rng.choice(own or free), rng)
    canvas = world.Canvas([world.paint(c, rng) for c in behind])
    middle = world.SIDE / 2 + rng.gauss(0, 3), world.SIDE / 2 + rng.gauss(0, 3)
    where = (*middle, rng.uniform(24, 36), rng.gauss(0, 0.08))
    bent, unsteady = waves(thing.bent), waves(rng.randint(1, 1 << 30) if wobble else 0, wobble)

    def how(point: Point) -> Point:
        return unsteady(bent(point))

    for part in thing.parts:
        paint(canvas, part, where, how, fill)
    for spot in thing.marks:
        tone = zip(world.paint(spot.tone, rng, 4), fill, strict=True)
        r, g, b = (round(t * (1 - spot.run) + f * spot.run) for t, f in tone)
        paint(canvas, spot, where, how, (r, g, b))
    return canvas.finish()


def waves(seed: int, height: float = 0.0) -> Bend:
    """How a thing is bent: as a reflection in water is, by `height`, or by what is another thing."""
    if not seed:
        return lambda point: point
    rng = np.random.default_rng(seed)
    high, long, at = height or rng.uniform(0.06, 0.16), rng.uniform(2, 5, 4), rng.uniform(0, 2 * math.pi, 4)

    def bent(point: Point) -> Point:
        (x, y), (a, b, c, d) = point, at
        right = math.sin(long[0] * y + a) + math.sin(long[1] * x + b)
        down = math.sin(long[2] * x + c) + math.sin(long[3] * y + d)
        return x + high * right, y + high * down

    return bent


def paint(
    canvas: world.Canvas,
    part: Part,
    where: tuple[float, float, float, float],
    how: Bend,
    fill: tuple[int, int, int],
) -> None:
    """Draw a part; `where` is x, y, radius and turn of the thing, in pixels and radians."""
    placed = world.place([how(p) for p in dense(part.points)], *where)
    if part.ring:
        outer = part.ring * where[2]
        canvas.band(*placed[0], outer, outer * 0.52, fill)
    else:
        canvas.polygon(placed, fill)


def dense(points: tuple[Point, ...]) -> list[Point]:
    """The polygon with each side in four, so that it can bend."""
    sides = zip(points, (*points[1:], points[0]), strict=True)
    return [(ax + (bx - ax) * i / 4, ay + (by - ay) * i / 4) for (ax, ay), (bx, by) in sides for i in range(4)]
