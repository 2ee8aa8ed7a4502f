"""Find pictures that show the same: equal, nearly equal, mirrored, or the same to CLIP; keep the best of each.

\b
For example:
  lora dedupe anna
  lora dedupe ./photos --no-clip
  lora dedupe anna --clip auto --act strict
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
from lorafactory.steps._judging import Verdicts, clip_problems, room, sharpness

VERSION = 1
MODELS = ("clip",)
SHRINKS = True
BITS = 64
THUMB_PX = 16
LAYOUT = 0.95
"""Correlation of 16 x 16 thumbnails from which colours count as the same: the hash sees brightness alone, and two
drawings of one shape in other colours have equal hashes. Copies saved again, resized, brightened by a fifth or paled
by a third stay above 0.946, in the middle at 0.99."""
LOOSEST, STRICTEST = 0.97, 0.999
"""Between these `clip = "auto"` stays."""
RULES = EQUAL, NEAR, MIRRORED, CLIP = ("equal pixels", "phash", "mirrored", "clip")


class Settings(StepSettings):
    phash: int = Field(4, ge=0, le=16)
    """Bits, of 64, in which the perceptual hashes of two pictures may differ to count as one, 0 to 16. Saving again
    and resizing cost 0 to 4; above 10 other pictures match. Mirrored pictures are compared in the same way."""
    clip: float | Literal["auto"] = 0.985
    """CLIP cosine from which two pictures count as one, 0.5 to 1. Portraits of one person are all near each other:
    `auto` asks for a quarter of the distance that is usual between neighbours in this set."""
    no_clip: bool = False
    """Leave out CLIP, so that no model is needed; crops and retouched copies are then not found."""
    act: Literal["facts", "strict"] = "facts"
    """`facts` sets equal pictures aside and flags the rest. `strict` sets near-duplicates aside too, as long as ten
    pictures and two thirds of the set stay."""


@dataclass(frozen=True)
class Look:
    """What is compared of a picture."""

    picture: Picture
    pixels: str
    """Hash of the pixels."""
    bits: NDArray[np.bool_]
    mirror_bits: NDArray[np.bool_]
    layout: NDArray[np.float32]
    """A colour thumbnail as a vector of length 1, its mean taken off."""
    mirror_layout: NDArray[np.float32]
    area_px: int
    sharpness: float


@dataclass(frozen=True)
class Row:
    """One picture against all, by one rule: scores, and which of them are the same as it."""

    rule: str
    scores: NDArray[np.float32]
    threshold: float
    same: NDArray[np.bool_]


@dataclass(frozen=True)
class Nearest:
    """A picture that is like another, by which rule and how much."""

    rule: str
    index: int
    score: float
    threshold: float
    same: bool

    def words(self, name: str) -> str:
        if self.rule == EQUAL:
            return f"the same pixels as {name}"
        if self.rule == MIRRORED:
            return f"mirrored of {name} (hashes differ in {self.score:.0f} bits)"
        if self.rule == NEAR:
            return f"nearly the same as {name} (hashes differ in {self.score:.0f} bits)"
        return f"to CLIP the same as {name} ({self.score:.4f}, from {self.threshold:.4f} on)"


def check(work: Work, s: Settings) -> list[Problem]:
    problems = []
    if s.clip != "auto" and not 0.5 <= s.clip <= 1:
        problems.append(Problem(f"dedupe.clip = {s.clip}: a cosine from 0.5 to 1 is needed", "clip = 0.985, or auto"))
    return [*problems, *clip_problems(work, s.no_clip)]


def run(work: Work, s: Settings) -> Result:
    verdicts = Verdicts(work)
    looks = []
    for picture in work.track(work.set.pictures, "hashing pictures"):
        try:
            looks.append(look(picture, images.load(picture.path)))
        except images.Unreadable as error:
            verdicts.flag(picture, "unreadable", error.reason)
    vectors = None
    if not s.no_clip and len(looks) > 1:
        found = [one.picture for one in looks]
        vectors = encoders.get("clip").embed(found, work.judges.clip, work.workspace.cache, work.track)
    decide(Pairs(looks, vectors, s), verdicts, s.act == "strict")
    return Result(verdicts.summary("dedupe", len(looks)), verdicts.data, verdicts.lines)


# ---------------------------------------------------------------- looking


def look(picture: Picture, image: Image.Image) -> Look:
    mirror = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return Look(
        picture,
        images.pixel_hash(image),
        bits_of(image),
        bits_of(mirror),
        layout_of(image),
        layout_of(mirror),
        image.width * image.height,
        sharpness(image),
    )


def bits_of(image: Image.Image) -> NDArray[np.bool_]:
    """The 64 bits of the picture's perceptual hash: signs of its lowest cosine waves against their median."""
    import imagehash

    return np.asarray(imagehash.phash(image).hash, dtype=bool).ravel()


def layout_of(image: Image.Image) -> NDArray[np.float32]:
    small = image.resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX, reducing_gap=2)
    values = np.asarray(small, dtype=np.float32).ravel()
    values = values - values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6), dtype=np.float32)


# ---------------------------------------------------------------- comparing


class Pairs:
    """All pairs of a set, by every rule; a row at a time, so that memory grows with the set and not its square."""

    def __init__(self, looks: Sequence[Look], vectors: NDArray[np.float32] | None, s: Settings) -> None:
        self.looks = looks
        self.vectors = vectors
        self._signs = signs([one.bits for one in looks])
        self._mirrors = signs([one.mirror_bits for one in looks])
        self._layouts = np.array([one.layout for one in looks])
        self._pixels = np.array([one.pixels for one in looks])
        self._bits = s.phash
        self.clip = calibrated(vectors) if s.clip == "auto" else s.clip

    def row(self, i: int) -> list[Row]:
        """All pictures against picture i, by each rule."""
        one = self.looks[i]
        apart = (BITS - self._signs @ self._signs[i]) / 2
        turned = (BITS - self._signs @ self._mirrors[i]) / 2
        near = (apart <= self._bits) & (self._layouts @ one.layout >= LAYOUT)
        mirrored = (turned <= self._bits) & (self._layouts @ one.mirror_layout >= LAYOUT)
        equal = self._pixels == one.pixels
        rows = [
            Row(EQUAL, equal.astype(np.float32), 1.0, equal),
            Row(NEAR, apart, float(self._bits), near),
            Row(MIRRORED, turned, float(self._bits), mirrored & ~near & ~equal),
        ]
        if self.vectors is not None:
            cosine = self.vectors @ self.vectors[i]
            rows.append(Row(CLIP, cosine, self.clip, cosine >= self.clip))
        for row in rows:
            row.same[i] = False
        return rows


def signs(rows: list[NDArray[np.bool_]]) -> NDArray[np.float32]:
    """Bits as +1 and -1: of two such rows the product is 64 less twice the bits that differ."""
    return np.where(np.array(rows).reshape(-1, BITS), 1, -1).astype(np.float32)


def calibrated(vectors: NDArray[np.float32] | None) -> float:
    """A cosine at a quarter of the usual distance between neighbours of this set."""
    if vectors is None or len(vectors) < 3:
        return 0.985
    nearest = []
    for i, vector in enumerate(vectors):
        cosine = vectors @ vector
        cosine[i] = -1
        nearest.append(float(cosine.max()))
    return float(np.clip(1 - (1 - np.median(nearest)) / 4, LOOSEST, STRICTEST))


# ---------------------------------------------------------------- deciding


def decide(pairs: Pairs, verdicts: Verdicts, strict: bool) -> None:
    """Set aside what has equal pixels; of the rest, set aside or flag what is the same as a better picture."""
    looks = pairs.looks
    best_first = sorted(range(len(looks)), key=lambda i: quality(looks[i]))
    first_of: dict[str, int] = {}
    for i in best_first:
        first_of.setdefault(looks[i].pixels, i)
    facts = {
        i: [Nearest(EQUAL, best, 1.0, 1.0, True)] for i, one in enumerate(looks) if (best := first_of[one.pixels]) != i
    }
    by_hand = {i for i, one in enumerate(looks) if verdicts.work.past.hand.get(one.picture.name) == "put back"}
    opinions = stars([i for i in best_first if i not in facts], pairs, by_hand)
    for i in range(len(looks) if len(looks) > 1 else 0):
        found = [nearest(i, by_rule) for by_rule in pairs.row(i)]
        note_rest(i, found, (facts | opinions).get(i, []), looks, verdicts.work)
    left = room(verdicts.work, [one.picture for i, one in enumerate(looks) if i not in facts]) if strict else 0
    for i, why in facts.items():
        out(looks[i].picture, why[0], looks, verdicts, act=True)
    for i, why in sorted(opinions.items(), key=lambda item: certainty(item[1][0], looks[item[0]])):
        left -= out(looks[i].picture, why[0], looks, verdicts, act=left > 0)


def stars(best_first: list[int], pairs: Pairs, by_hand: set[int]) -> dict[int, list[Nearest]]:
    """For every picture that is the same as a better one that stays: that one, by each rule that says so.

    Each picture that stays takes with it whatever is the same as itself, so where A is like B and B like C, C does
    not go for the sake of A. What a person put back stays, and takes others with it, but not its betters.
    """
    found: dict[int, list[Nearest]] = {}
    rank = {i: position for position, i in enumerate(best_first)}
    for i in best_first:
        if i in found and i not in by_hand:
            continue
        rows = pairs.row(i)
        for j in map(int, np.flatnonzero(np.any([row.same for row in rows], axis=0))):
            if rank.get(j, -1) > rank[i] and j not in found:
                found[j] = [Nearest(r.rule, i, float(r.scores[j]), r.threshold, True) for r in rows if r.same[j]]
    return found


def certainty(why: Nearest, one: Look) -> tuple[int, float, str]:
    """Sorts what should go first to the front: equal hashes before CLIP's opinion."""
    return (RULES.index(why.rule), -why.score if why.rule == CLIP else why.score, one.picture.name)


def quality(one: Look) -> tuple[float, float, str]:
    """Sorts the best first: most pixels, then the sharpest, then the earliest name."""
    return (-one.area_px, -round(one.sharpness, 2), one.picture.name)


def nearest(i: int, row: Row) -> Nearest:
    """The other picture that a rule finds most like picture i."""
    close = row.scores.astype(np.float64) * (1 if row.rule in (EQUAL, CLIP) else -1) + 1000 * row.same
    close[i] = -np.inf
    j = int(close.argmax())
    return Nearest(row.rule, j, float(row.scores[j]), row.threshold, bool(row.same[j]))


def note_rest(i: int, found: list[Nearest], why: list[Nearest], looks: Sequence[Look], work: Work) -> None:
    """Record what came nearest by every rule but the one by which the picture is dealt with."""
    agree = [one.rule for one in why]
    for one in found:
        if one.rule not in agree[:1]:
            verdict = "flagged" if one.rule in agree else "kept"
            rival = None if one.rule == EQUAL and not one.same else looks[one.index].picture
            work.note(looks[i].picture, verdict, one.rule, score=one.score, threshold=one.threshold, rival=rival)


def out(picture: Picture, why: Nearest, looks: Sequence[Look], verdicts: Verdicts, act: bool) -> bool:
    """Set aside or flag one picture; return whether it was set aside."""
    rival = looks[why.index].picture
    words = why.words(rival.name)
    if verdicts.kept_by_hand(picture, words):
        return False
    if act:
        reason = {EQUAL: "duplicate", MIRRORED: "mirrored"}.get(why.rule, "similar")
        verdicts.aside(picture, reason, why.rule, words, score=why.score, threshold=why.threshold, rival=rival)
    else:
        verdicts.flag(picture, why.rule, words, score=why.score, threshold=why.threshold, rival=rival)
    return act
