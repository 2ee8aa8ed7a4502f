"""Find pictures that spoil a set: too small, blurred, dark, pale, flat, oddly shaped, or unlike all the others.

\b
For example:
  lora filter anna
  lora filter ./photos --min-side 512 --no-clip
  lora filter anna --act strict
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from lorafactory import encoders, images
from lorafactory.dataset import Picture
from lorafactory.errors import Problem
from lorafactory.step import Result, StepSettings, Work
from lorafactory.steps._judging import Verdicts, clip_problems, robust_z, room, sharpness

VERSION = 1
MODELS = ("clip",)
SHRINKS = True
NEIGHBOURS = 3
ENOUGH = 5
"""Pictures from which on a set says something about one of them."""
LEAST_BLUR, LEAST_OUTLIER = 0.15, 0.02
"""The least spread of log sharpness and of CLIP cosine that a set is taken to have."""


class Settings(StepSettings):
    min_side: int = Field(256, ge=1, le=4096)
    """Shorter side in pixels below which a picture is too small, 1 to 4096; enlarged, it teaches blur."""
    sharp: float = Field(0.3, ge=0, le=1)
    """Sharpness of the best edges, at 512 pixels, below which a picture is blurred, 0 to 1: a sharp photograph has
    0.5 to 0.9, one seen through a Gaussian of 2 pixels 0.3 or less. 0 leaves it to the comparison with the set."""
    dark: float = Field(0.28, ge=0, le=1)
    """Brightness, 0 to 1, that the brightest hundredth of a picture must reach."""
    light: float = Field(0.95, ge=0, le=1)
    """Brightness, 0 to 1, that the darkest twentieth of a picture must stay below."""
    contrast: float = Field(0.15, ge=0, le=1)
    """Range, 0 to 1, that the levels of red, green or blue must span, the extreme 200ths left out; in fog, or where
    nothing is, none does. Not how many levels there are: a flat drawing has few, and is no worse for it."""
    ratio: float = Field(0.35, ge=0, le=1)
    """Shorter by longer side below which the shape is odd, 0 to 1; buckets would crop most of such a picture."""
    spread: float = Field(3.0, ge=1, le=20)
    """How many times the set's own spread a picture may be blurrier than its middle, 1 to 20."""
    outlier: float = Field(3.0, ge=1, le=20)
    """The same for likeness to the rest (mean CLIP cosine to the three nearest), 1 to 20; beyond, it is off topic."""
    no_clip: bool = False
    """Leave out CLIP, so that no model is needed; pictures of something else are then not found."""
    act: Literal["facts", "strict"] = "facts"
    """`facts` sets too small pictures aside and flags the rest. `strict` sets all of them aside, the worst first, as
    long as ten pictures and two thirds of the set stay."""


@dataclass(frozen=True)
class Look:
    """What is measured of a picture."""

    picture: Picture
    short_px: int
    ratio: float
    sharpness: float
    p5: float
    """Brightness below which a twentieth of the pixels is."""
    p99: float
    contrast: float
    """Span of the levels of red, green or blue, whichever is widest: two colours can be of one gray."""


@dataclass(frozen=True)
class Finding:
    """What a rule says of a picture."""

    rule: str
    score: float
    threshold: float
    bad: bool
    words: str
    severity: float = 0.0
    """How far beyond, in units that are comparable between rules; the worst leave first."""


FACT = "too small"
REASONS = {
    FACT: "small",
    "blur": "blurred",
    "blur in the set": "blurred",
    "dark": "dark",
    "light": "light",
    "low contrast": "flat",
    "odd ratio": "ratio",
    "outlier": "outlier",
}
"""Rule to the folder of `set_aside/` that its pictures go to."""


def check(work: Work, s: Settings) -> list[Problem]:
    return clip_problems(work, s.no_clip)


def run(work: Work, s: Settings) -> Result:
    verdicts = Verdicts(work)
    looks = []
    for picture in work.track(work.set.pictures, "judging pictures"):
        try:
            looks.append(look(picture, images.load(picture.path)))
        except images.Unreadable as error:
            verdicts.flag(picture, "unreadable", error.reason)
    vectors = None
    if not s.no_clip and len(looks) >= ENOUGH:
        found = [one.picture for one in looks]
        vectors = encoders.get("clip").embed(found, work.judges.clip, work.workspace.cache, work.track)
    decide(looks, findings(looks, vectors, s), verdicts, s.act == "strict")
    return Result(verdicts.summary("filter", len(looks)), verdicts.data, verdicts.lines)


# ---------------------------------------------------------------- looking


def look(picture: Picture, image: Image.Image) -> Look:
    small = image.copy()
    small.thumbnail((512, 512), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float64) / 255
    brightness = np.sqrt(values**2 @ np.array([0.241, 0.691, 0.068]))  # as perceived (Finley's HSP), 0 to 1
    p5, p99 = np.percentile(brightness, (5, 99))
    low, high = np.percentile(values, (0.5, 99.5), axis=(0, 1))
    short, long = sorted(image.size)
    return Look(picture, short, short / long, sharpness(image), float(p5), float(p99), float((high - low).max()))


def likeness(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean cosine of each picture to the three that are most like it."""
    means = []
    for i, vector in enumerate(vectors):
        others = np.delete(vectors @ vector, i)
        means.append(float(np.sort(others)[-NEIGHBOURS:].mean()))
    return np.asarray(means)


# ---------------------------------------------------------------- judging


def findings(looks: Sequence[Look], vectors: NDArray[np.float32] | None, s: Settings) -> list[list[Finding]]:
    """What every rule says of every picture."""
    if not looks:
        return []
    relative = len(looks) >= ENOUGH
    blur = robust_z(np.log([max(one.sharpness, 1e-3) for one in looks]), LEAST_BLUR)
    found = [absolute(one, s) for one in looks]
    for i, z in enumerate(blur if relative else ()):
        words = f"less sharp than the set ({z:.1f} spreads, at least {-s.spread:g})"
        found[i].append(below("blur in the set", z, -s.spread, words, -z / s.spread))
    if vectors is not None:
        like = likeness(vectors)
        for i, z in enumerate(robust_z(like, LEAST_OUTLIER)):
            words = f"unlike the others (CLIP {like[i]:.3f}, {z:.1f} spreads, at least {-s.outlier:g})"
            found[i].append(below("outlier", z, -s.outlier, words, -z / s.outlier))
    return found


def absolute(one: Look, s: Settings) -> list[Finding]:
    """What can be said of a picture without the others."""
    small = f"too small ({one.short_px} pixels, at least {s.min_side})"
    blurred = f"blurred (sharpness {one.sharpness:.2f}, at least {s.sharp:g})"
    dark = f"dark (brightest {one.p99:.2f}, at least {s.dark:g})"
    light = f"washed out (darkest {one.p5:.2f}, at most {s.light:g})"
    flat = f"without contrast ({one.contrast:.2f}, at least {s.contrast:g})"
    odd = f"oddly shaped ({one.ratio:.2f} of its length wide, at least {s.ratio:g})"
    return [
        below(FACT, one.short_px, s.min_side, small),
        below("blur", one.sharpness, s.sharp, blurred, s.sharp / max(one.sharpness, 0.01)),
        below("dark", one.p99, s.dark, dark, s.dark / max(one.p99, 0.01)),
        Finding("light", one.p5, s.light, one.p5 > s.light, light, one.p5 / max(s.light, 0.01)),
        below("low contrast", one.contrast, s.contrast, flat, s.contrast / max(one.contrast, 0.01)),
        below("odd ratio", one.ratio, s.ratio, odd, s.ratio / max(one.ratio, 0.01)),
    ]


def below(rule: str, score: float, threshold: float, words: str, severity: float = 1.0) -> Finding:
    return Finding(rule, float(score), threshold, bool(score < threshold), words, float(severity))


# ---------------------------------------------------------------- deciding


def decide(looks: list[Look], found: list[list[Finding]], verdicts: Verdicts, strict: bool) -> None:
    """Record every rule's finding for every picture; set aside what is too small, and the worst if `strict`."""
    bad = {i: [f for f in row if f.bad] for i, row in enumerate(found) if any(f.bad for f in row)}
    facts = [i for i, row in bad.items() if row[0].rule == FACT]
    opinions = sorted((i for i in bad if i not in facts), key=lambda i: -max(f.severity for f in bad[i]))
    left = room(verdicts.work, [one.picture for i, one in enumerate(looks) if i not in facts]) if strict else 0
    by_hand = {i for i in bad if verdicts.kept_by_hand(looks[i].picture, ", ".join(f.words for f in bad[i]))}
    leaving = [*facts, *[i for i in opinions if i not in by_hand][:left]]
    for i, row in enumerate(found):
        last = max(bad[i], key=lambda f: (f.rule == FACT, f.severity)) if i in leaving and i not in by_hand else None
        for finding in row:
            if finding is not last:
                note(looks[i].picture, finding, verdicts, quiet=last is not None or i in by_hand)
        if last is not None:
            told = {"score": last.score, "threshold": last.threshold}
            verdicts.aside(looks[i].picture, REASONS[last.rule], last.rule, last.words, **told)


def note(picture: Picture, finding: Finding, verdicts: Verdicts, quiet: bool) -> None:
    """Record one rule by which the picture stays."""
    score, threshold = finding.score, finding.threshold
    if finding.bad and not quiet:
        verdicts.flag(picture, finding.rule, finding.words, score=score, threshold=threshold)
    else:
        verdict = "flagged" if finding.bad else "kept"
        verdicts.work.note(picture, verdict, finding.rule, score=score, threshold=threshold)
