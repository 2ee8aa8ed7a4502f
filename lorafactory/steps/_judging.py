"""What the steps that judge pictures share: a look at each one, what CLIP needs, and how far an opinion may act.

Facts act, opinions flag: a broken, tiny or doubled picture is set aside; what statistics or CLIP think is only said,
unless `act = "strict"`, and then within `room`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lorafactory import encoders, images
from lorafactory.dataset import Picture
from lorafactory.errors import LoraError, Problem
from lorafactory.past import BY_HAND
from lorafactory.step import Work

FLOOR = 10
"""Pictures below which opinions take nothing out of a set."""
SHARE = 3
"""Opinions take at most one in so many pictures out of a set."""
OPINIONS = frozenset({"similar", "mirrored", "blurred", "dark", "light", "flat", "ratio", "outlier"})
"""Folders of `set_aside/` that opinions fill."""
POCKET_SIDE = 96
LOOKED_AT_PX = 512
"""Sharpness is judged at this longer side: what a trainer sees of a picture, not what a camera saved."""
REACH_PX = 4
"""How far from an edge sharpness looks for the two levels that the edge parts."""


# ---------------------------------------------------------------- checks


def clip_problems(work: Work, no_clip: bool) -> list[Problem]:
    """What is wrong or doubtful about CLIP's part in a step."""
    if no_clip:
        return []
    found = strangers(work)
    if said := encoders.get("clip").missing(work.judges.clip):
        return [*found, Problem(said, "or --no-clip, to go on without its opinion")]
    return found


def strangers(work: Work) -> list[Problem]:
    """A warning where the pocket's models will be asked about pictures that are no pocket drawings."""
    if not work.judges.pocket:
        return []
    paths = [*(p.path for p in work.set.pictures), *images.find_sources(work.originals)]
    if not any(max(_size(path)) > POCKET_SIDE for path in paths):
        return []
    warning = "the pocket's CLIP and BLIP know only drawings of 96 pixels: what they say of these pictures means little"
    fix = '--no-clip, and one caption for all, as in --text "a photo"; or a real base, as in --base FILE.safetensors'
    return [Problem(warning, fix, fatal=False)]


def _size(path: Path) -> tuple[int, int]:
    try:
        return images.size(path)
    except LoraError:
        return (0, 0)


# ---------------------------------------------------------------- looking


def sharpness(image: Image.Image) -> float:
    """How much of a strong edge's height lies between two neighbouring pixels: 1 is a step, 0.1 a fog.

    Only edges at least half as strong as the strongest count, and the sharpest tenth of them, so neither a plain
    background nor a soft one behind a sharp subject makes a picture blurred, and contrast and size cancel out.
    Measured at 512 pixels: photographs 0.43 to 0.95, the same after a Gaussian of 2 pixels 0.21 to 0.31.
    """
    small = image.copy()
    small.thumbnail((LOOKED_AT_PX, LOOKED_AT_PX), Image.Resampling.BOX)
    values = np.asarray(small.convert("RGB"), dtype=np.int16)
    reach = 2 * REACH_PX + 1
    if min(values.shape[:2]) <= reach:
        return 1.0
    height = _over(values, reach, np.maximum) - _over(values, reach, np.minimum)
    steps = np.zeros_like(values)
    steps[:, 1:] = np.abs(np.diff(values, axis=1))
    steps[1:] = np.maximum(steps[1:], np.abs(np.diff(values, axis=0)))
    edges = height >= max(0.5 * float(height.max()), 8)
    if not edges.any():
        return 1.0
    return float(np.percentile(_over(steps, reach, np.maximum)[edges] / height[edges], 90))


def _over(values: NDArray[np.int16], reach: int, pick: np.ufunc) -> NDArray[np.int16]:
    """`pick` over every window of reach x reach, doubling the window as long as it fits."""
    for axis in (0, 1):
        width = 1
        while width < reach:
            step = min(width, reach - width)
            size = values.shape[axis] - step
            values = pick(values.take(range(size), axis), values.take(range(step, size + step), axis))
            width += step
    return values


# ---------------------------------------------------------------- acting


@dataclass
class Verdicts:
    """What a step did with the pictures, for its Result."""

    work: Work
    lines: list[str] = field(default_factory=list)
    data: dict[str, list[str]] = field(default_factory=lambda: {"set_aside": [], "flagged": []})

    def kept_by_hand(self, picture: Picture, otherwise: str) -> bool:
        """True, and recorded, if a person has put this picture back: it stays, whatever is thought of it."""
        if self.work.past.hand.get(picture.name) != "put back":
            return False
        self.work.note(picture, "kept", BY_HAND, why=otherwise)
        self.lines.append(f"{picture.name}: {otherwise}, kept by hand")
        return True

    def aside(self, picture: Picture, reason: str, rule: str, words: str, **told: Any) -> None:
        self.data["set_aside"].append(picture.name)
        done = "set aside" if self.work.apply else "would be set aside"
        self.lines.append(f"{picture.name}: {words}, {done}")
        self.work.aside(picture, reason, rule, why=words, **told)

    def flag(self, picture: Picture, rule: str, words: str, **told: Any) -> None:
        if picture.name not in self.data["flagged"]:
            self.data["flagged"].append(picture.name)
        self.lines.append(f"{picture.name}: {words}, flagged")
        self.work.note(picture, "flagged", rule, why=words, **told)

    def summary(self, step: str, seen: int) -> str:
        out, flagged = len(self.data["set_aside"]), len(self.data["flagged"])
        done = "set aside" if self.work.apply else "would be set aside (--apply does it)"
        parts = ([f"{out} {done}"] if out else []) + ([f"{flagged} flagged"] if flagged else [])
        return f"{step}: {seen} pictures, {', '.join(parts) or 'nothing found'}"


def room(work: Work, pictures: Sequence[Picture]) -> int:
    """How many of these pictures opinions may still take out: never below 10, never over a third of the set.

    What opinions took out earlier counts, or every further run would take its own third.
    """
    taken = sum(path.parent.name in OPINIONS for path in work.set.aside.values())
    return max(0, min((len(pictures) + taken) // SHARE - taken, len(pictures) - FLOOR))


def robust_z(values: Iterable[float], least_spread: float) -> NDArray[np.float64]:
    """Distance of each value from the median in units of the spread (1.4826 x MAD, a normal's standard deviation).

    `least_spread` keeps sets in which nearly all are alike from calling a hair's breadth remarkable.
    """
    array = np.asarray(list(values), dtype=np.float64)
    if not array.size:
        return array
    middle = np.median(array)
    spread = max(1.4826 * float(np.median(np.abs(array - middle))), least_spread)
    return np.asarray((array - middle) / spread)
