"""Find pictures that show the same: equal, nearly equal, mirrored, or the same to CLIP; keep the best of each.

The best has the most pixels times sharpness, then the least compression loss, then the earliest place in the set; of
equal pictures the first that has a caption.
Groups are stars around it: where A is like B and B like C, C does not go for the sake of A.

\b
For example:
  lora dedupe anna
  lora dedupe ./photos --no-clip
  lora dedupe anna --clip 0.985 --act strict
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from lorafactory.dataset import Picture
from lorafactory.errors import Problem
from lorafactory.step import Result, StepSettings, Work
from lorafactory.steps._judging import Verdicts, acting, clip_problems, room
from lorafactory.steps._looks import Look, Seen, see
from lorafactory.steps._pairs import (
    BYTES,
    MIRRORED,
    PHASH,
    PIXELS,
    TIERS,
    Near,
    Pairs,
    Thresholds,
    calibrated,
    stars,
)

VERSION = 3
MODELS = ("clip",)
SHRINKS = True
SHARPER = 1.5
"""Photographs saved again as JPEG measure 0.93 to 1.19 of their sharpness, blurred ones 0.5 to 0.7: what lies within
this factor counts as equally sharp, and compression decides."""
LOSS = 0.02
"""Steps in which compression loss is compared."""


class Settings(StepSettings):
    phash: int = Field(4, ge=0, le=16)
    """Bits, of 64, in which the perceptual hashes of two pictures may differ to count as one, 0 to 16. Saving again
    and resizing cost 0 to 4; above 10 other pictures match. Mirrored pictures are compared in the same way."""
    review: int = Field(10, ge=0, le=16)
    """Bits up to which two pictures may be one, 0 to 16: flagged for a person, never set aside. Brightened by a third,
    a photograph differs by 0 to 8."""
    clip: float | Literal["auto"] = "auto"
    """CLIP cosine from which two pictures count as one, 0.5 to 1. Portraits of one person are all near each other, so
    `auto` asks for a quarter of the distance that is usual to the third nearest in this set: 0.95 to 0.999."""
    no_clip: bool = False
    """Leave out CLIP, so that no model is needed; crops and retouched copies are then not found."""
    act: Literal["auto", "facts", "strict"] = "auto"
    """`facts` sets equal pictures aside and flags the rest. `strict` sets near-duplicates aside too, as long as ten
    pictures and two thirds of the set stay. `auto` is strict with generated pictures and goes by facts for others."""

    @field_validator("clip", mode="before")
    @classmethod
    def cosine(cls, value: Any) -> Any:
        try:
            return value if value == "auto" else float(value)
        except (TypeError, ValueError):
            raise ValueError("should be a cosine from 0.5 to 1, as in 0.985, or auto") from None


def check(work: Work, s: Settings) -> list[Problem]:
    problems = []
    if s.clip != "auto" and not 0.5 <= s.clip <= 1:
        problems.append(Problem(f"dedupe.clip = {s.clip}: a cosine from 0.5 to 1 is needed", "clip = 0.985, or auto"))
    return [*problems, *clip_problems(work, s.no_clip)]


def run(work: Work, s: Settings) -> Result:
    verdicts = Verdicts(work)
    seen = see(work, clip=not s.no_clip and len(work.set.pictures) > 1, exact=True)
    verdicts.unreadable(seen)
    for picture, one in zip(seen.pictures, seen.looks, strict=True):
        work.note.looked(picture, one.pixels or "", one.bits)
    decide(seen, s, verdicts)
    return Result(verdicts.summary("dedupe", len(seen.looks)), verdicts.data, verdicts.lines)


# ---------------------------------------------------------------- the best


def best_first(looks: Sequence[Look]) -> list[int]:
    return sorted(range(len(looks)), key=lambda i: (*worse(looks[i]), i))


def worse(one: Look) -> tuple[float, int]:
    """Sorts the best first: most pixels times sharpness, then the least compression loss."""
    sharp = SHARPER ** round(math.log(max(one.sharpness, 0.01)) / math.log(SHARPER))
    return (-one.area_px * sharp, int(one.blocks / LOSS))


# ---------------------------------------------------------------- deciding


def decide(seen: Seen, s: Settings, verdicts: Verdicts) -> None:
    """Set aside what has equal bytes or pixels; of the rest, set aside or flag what is the same as a better picture."""
    if len(seen.looks) < 2:
        return
    pictures, order = seen.pictures, best_first(seen.looks)
    captions = verdicts.work.set.captions()
    facts = equals(seen, order, captions)
    clip = calibrated(seen.vectors) if s.clip == "auto" else 1 - s.clip
    pairs = Pairs(seen.looks, seen.vectors, Thresholds(s.phash, max(s.phash, s.review), clip))
    by_hand = {i for i, p in enumerate(pictures) if verdicts.work.past.stays(p.name)}
    nearest: dict[int, list[Near]] = {}
    opinions = stars(pairs, order, set(facts), by_hand, nearest.__setitem__)
    for i in range(len(pictures)):
        why = facts.get(i) or opinions.get(i, [])
        note_rest(i, nearest[i], why, pictures, verdicts.work)
    left = room(verdicts.work, [p for i, p in enumerate(pictures) if i not in facts])
    may = acting(verdicts.work, s.act)
    for i, why in facts.items():
        out(pictures[i], why[0], pictures, captions, verdicts, act=True)
    for i, why in sorted(opinions.items(), key=lambda item: (certainty(item[1][0]), item[0])):
        act = left > 0 and why[0].sure and may(pictures[i])
        left -= out(pictures[i], why[0], pictures, captions, verdicts, act=act)


def equals(seen: Seen, order: Sequence[int], captions: Mapping[str, str]) -> dict[int, list[Near]]:
    """For every picture whose pixels a better one has: that one, by its bytes too if they are the same.

    One with a caption is better than one without, so that no words are lost.
    """
    first: dict[str | None, int] = {}
    for i in sorted(order, key=lambda i: not captions.get(seen.pictures[i].name)):
        first.setdefault(seen.looks[i].pixels, i)
    found = {}
    for i, one in enumerate(seen.looks):
        if (best := first[one.pixels]) != i:
            same_bytes = seen.pictures[i].sha256 == seen.pictures[best].sha256
            found[i] = [Near(tier, best, 0.0, 0.0, True) for tier in (BYTES, PIXELS) if same_bytes or tier == PIXELS]
    return found


def certainty(why: Near) -> tuple[int, float]:
    """Sorts what should go first to the front: equal hashes before CLIP's opinion."""
    return (TIERS.index(why.tier), why.distance)


# ---------------------------------------------------------------- telling


def words(why: Near, winner: str) -> str:
    """A finding with its tier, distance, threshold and winner."""
    numbers = f"{why.tier}: distance {why.distance:.4g}, threshold {why.threshold:.4g}"
    if why.tier in (BYTES, PIXELS):
        return f"the same {why.tier} as {winner} ({numbers})"
    mirror = "mirrored" if why.mirrored else ""
    if why.tier == MIRRORED:
        return f"{'' if why.sure else 'perhaps '}mirrored of {winner} ({numbers} bits)"
    if why.tier == PHASH:
        return f"{'nearly' if why.sure else 'perhaps'} the same as {winner} ({numbers} bits)"
    return f"to CLIP the same as {winner}{mirror and ', ' + mirror} ({numbers})"


def note_rest(i: int, nearest: list[Near], why: list[Near], pictures: Sequence[Picture], work: Work) -> None:
    """Record what came nearest by every tier but the one by which the picture is dealt with."""
    told = {one.tier: one for one in [*nearest, *why]}
    agree = [one.tier for one in why]
    for tier in (BYTES, PIXELS):
        if tier not in told:
            work.note(pictures[i], "kept", tier, score=1.0, threshold=0.0)
    for one in told.values():
        if one.tier not in agree[:1]:
            verdict = "flagged" if one.tier in agree else "kept"
            rival = pictures[one.index]
            work.note(pictures[i], verdict, one.tier, score=one.distance, threshold=one.threshold, rival=rival)


def leaving(caption: str, stays: str) -> str:
    """What is to be said of words that leave with a picture, and are not those of the one that stays."""
    return f'; its caption goes with it: "{caption}"' if caption and caption != stays else ""


def out(
    picture: Picture, why: Near, pictures: Sequence[Picture], captions: Mapping[str, str], verdicts: Verdicts, act: bool
) -> bool:
    """Set aside or flag one picture; return whether it was set aside."""
    rival = pictures[why.index]
    said = words(why, rival.name)
    said += leaving(captions.get(picture.name, ""), captions.get(rival.name, "")) if act else ""
    if verdicts.kept_by_hand(picture, said):
        return False
    told: dict[str, Any] = {"score": why.distance, "threshold": why.threshold, "rival": rival}
    verdicts.found(picture, why.tier, distance=why.distance, threshold=why.threshold, winner=rival.name)
    if act:
        reason = {BYTES: "duplicate", PIXELS: "duplicate", MIRRORED: "mirrored"}.get(why.tier, "similar")
        verdicts.aside(picture, reason, why.tier, said, **told)
    else:
        verdicts.flag(picture, why.tier, said, **told)
    return act
