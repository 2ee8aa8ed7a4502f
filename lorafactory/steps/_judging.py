"""What the steps that judge pictures share: what CLIP needs, what was generated, and how far an opinion may act.

Facts act, opinions flag: a tiny or doubled picture is set aside; what statistics or CLIP think is only said, unless
`act = "strict"`, the picture was generated or a person named the rule, and then within `room`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafactory import encoders, images
from lorafactory.dataset import Picture
from lorafactory.errors import LoraError, Problem
from lorafactory.past import BY_HAND
from lorafactory.step import Work
from lorafactory.steps._import import synthetic_prompt
from lorafactory.steps._looks import Seen

FLOOR = 10
"""Pictures below which opinions take nothing out of a set."""
SHARE = 3
"""Opinions take at most one in so many pictures out of a set."""
OPINIONS = frozenset(
    (
        "similar",
        "mirrored",
        "blurred",
        "dark",
        "light",
        "flat",
        "ratio",
        "grey",
        "text",
        "outlier",
        "prompt",
        "unwanted",
    )
)
"""Folders of `set_aside/` that opinions fill."""
POCKET_SIDE = 96


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


# ---------------------------------------------------------------- generated pictures


def prompts_of(work: Work) -> dict[str, str]:
    """Name of every generated picture to its prompt: as it was imported, or by the `.json` beside it."""
    if work.place.owned:
        return dict(work.past.synthetic)
    return {p.name: told for p in work.set.pictures if (told := synthetic_prompt(p.path)) is not None}


def acting(work: Work, act: str) -> Callable[[Picture], bool]:
    """Whether an opinion may set a picture aside: with `strict` every one, with `auto` the generated ones."""
    generated = prompts_of(work) if act == "auto" else {}
    return lambda picture: act == "strict" or picture.name in generated


# ---------------------------------------------------------------- acting


@dataclass
class Verdicts:
    """What a step did with the pictures, for its Result."""

    work: Work
    lines: list[str] = field(default_factory=list)
    data: dict[str, list[Any]] = field(default_factory=lambda: {"set_aside": [], "flagged": [], "findings": []})

    def unreadable(self, seen: Seen) -> None:
        broken = [p for p in self.work.set.pictures if p.name in seen.unreadable] if seen.unreadable else []
        for picture in broken:
            self.flag(picture, "unreadable", seen.unreadable[picture.name])

    def found(self, picture: Picture, tier: str, **told: Any) -> None:
        """Say for machines why a picture is set aside or flagged."""
        self.data["findings"].append({"picture": picture.name, "rule": tier, **told})

    def kept_by_hand(self, picture: Picture, otherwise: str) -> bool:
        """True, and recorded, if a person wants this picture in the set: it stays, whatever is thought of it."""
        if not self.work.past.stays(picture.name):
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
