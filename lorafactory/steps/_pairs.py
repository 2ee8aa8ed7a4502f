"""All pairs of a set's pictures, by every rule that two can be the same: exact, in blocks, without an index.

Measured faster than nearest-neighbour libraries up to 50 000 pictures; a block of rows at a time is held, so memory
grows with the set and not with its square, however many pairs are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorafactory.steps._looks import Look, thumb

BLOCK = 256
ALIKE = 0.955
"""Correlation of 32 x 32 thumbnails from which two pictures with near hashes are the same. The hash sees brightness
alone, and little of it: drawings of one shape in other colours, or of one face turned a little, have equal hashes.
Measured: copies saved again, resized, softened, brightened or paled by a third, or with more contrast 0.957 to 1;
drawn portraits of one person with near hashes up to 0.953, but for a few that a person would call the same."""
LOOSEST, STRICTEST = 0.95, 0.999
"""Between these a calibrated cosine stays."""
NEIGHBOURS = 3
SAMPLE = 1000
"""Pictures, evenly taken, whose neighbours say what is usual in a set."""
BYTES, PIXELS, PHASH, MIRRORED, CLIP = TIERS = ("bytes", "pixels", "phash", "mirrored", "clip")
"""The rules, surest first."""

Indices = NDArray[np.intp]
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Near:
    """A picture that is like another: by which tier, how far away, and from where on it counts as the same."""

    tier: str
    index: int
    distance: float
    """Bits of 64, or one less CLIP's cosine; of bytes and pixels 0."""
    threshold: float
    same: bool
    sure: bool = True
    """False where only a person can tell."""
    mirrored: bool = False


@dataclass(frozen=True)
class Row:
    """One picture against all others, by one tier."""

    nearest: Near
    """Of those that are the same, if there are any; otherwise of all."""
    same: Indices
    distances: NDArray[np.float64]
    """Of those that are the same."""

    def near(self, position: int) -> Near:
        """What is said of one of those that are the same."""
        first = self.nearest
        index, distance = int(self.same[position]), float(self.distances[position])
        return Near(first.tier, index, distance, first.threshold, True)


@dataclass(frozen=True)
class Thresholds:
    """Distances up to which two pictures are the same."""

    phash: int
    """Bits up to which that is sure."""
    review: int
    """Bits up to which it is likely."""
    clip: float
    """1 - cosine."""


class Pairs:
    """What is compared of a set's pictures."""

    def __init__(self, looks: Sequence[Look], vectors: Matrix | None, thresholds: Thresholds) -> None:
        self.vectors = vectors
        self.thresholds = thresholds
        self._bits = np.array([one.bits for one in looks], dtype=np.uint64)
        self._mirrors = np.array([one.mirror_bits for one in looks], dtype=np.uint64)
        self._thumbs = np.stack([thumb(one) for one in looks])

    def rows(self, order: Sequence[int]) -> Iterator[tuple[int, list[Row]]]:
        """Each picture of `order` against all, by hash, by the mirror's hash, and by CLIP where there are vectors."""
        for start in range(0, len(order), BLOCK):
            block = np.asarray(order[start : start + BLOCK], dtype=np.intp)
            straight = np.bitwise_count(self._bits[block, None] ^ self._bits)
            turned = np.bitwise_count(self._mirrors[block, None] ^ self._bits)
            cosines = None if self.vectors is None else self.vectors[block] @ self.vectors.T
            for k, i in enumerate(map(int, block)):
                near = self._hashed(PHASH, i, straight[k])
                rows = [near, self._hashed(MIRRORED, i, turned[k], but=near.same)]
                if cosines is not None:
                    rows.append(self._seen(i, cosines[k]))
                yield i, rows

    def _hashed(self, tier: str, i: int, bits: NDArray[np.uint8], but: Indices | None = None) -> Row:
        review = self.thresholds.review
        bits[i] = 255
        same = np.flatnonzero(bits <= review)
        if same.size:
            same = same[self.likeness(same, i, mirrored=tier == MIRRORED) >= ALIKE]
            same = same if but is None else np.setdiff1d(same, but)
        at = int(same[bits[same].argmin()]) if same.size else int(bits.argmin())
        return Row(Near(tier, at, float(bits[at]), float(review), bool(same.size)), same, bits[same].astype(np.float64))

    def _seen(self, i: int, cosines: Matrix) -> Row:
        cosines[i] = -2
        same = np.flatnonzero(cosines >= np.float32(1 - self.thresholds.clip))
        at = int(cosines.argmax())
        nearest = Near(CLIP, at, 1 - float(cosines[at]), self.thresholds.clip, bool(same.size))
        return Row(nearest, same, 1 - cosines[same].astype(np.float64))

    def likeness(self, others: Indices, i: int, mirrored: bool) -> Matrix:
        """Correlation of the thumbnails of `others` with that of picture i, or of its mirror image; (n,).

        The lesser of two: colours and shapes taken as one, and shapes alone, each colour's mean taken off.
        """
        one = self._thumbs[i, None].astype(np.float32)
        one, many = one[:, :, ::-1] if mirrored else one, self._thumbs[others].astype(np.float32)
        whole = correlation(many - many.mean(axis=(1, 2, 3), keepdims=True), one - one.mean())
        return np.minimum(whole, correlation(many - many.mean(axis=(1, 2), keepdims=True), one - one.mean(axis=(1, 2))))

    def turned(self, i: int, j: int) -> bool:
        """The mirror image of picture i is clearly more like picture j than i itself is."""
        straight, mirrored = (float(self.likeness(np.array([j]), i, m)[0]) for m in (False, True))
        return mirrored > straight + 0.1


def correlation(many: Matrix, one: Matrix) -> Matrix:
    """Cosine of each of `many` (n, side, side, 3) with `one` (1, side, side, 3); (n,)."""
    flat, other = many.reshape(len(many), -1), one.ravel()
    found: Matrix = flat @ other / np.maximum(np.linalg.norm(flat, axis=1) * np.linalg.norm(other), 1e-6)
    return found


def calibrated(vectors: Matrix | None) -> float:
    """The distance up to which CLIP finds two pictures of this set the same: a quarter of what is usual to the third
    nearest, as copies come in pairs. One person's portraits are all alike to CLIP, so no constant serves every set.
    """
    if vectors is None or len(vectors) <= NEIGHBOURS:
        return 0.015
    asked = np.unique(np.linspace(0, len(vectors) - 1, min(SAMPLE, len(vectors))).astype(np.intp))
    nearest = []
    for start in range(0, len(asked), BLOCK):
        block = asked[start : start + BLOCK]
        cosines = vectors[block] @ vectors.T
        cosines[np.arange(len(block)), block] = -2
        nearest.append(np.partition(cosines, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS])
    usual = 1 - float(np.median(np.concatenate(nearest)))
    return float(np.clip(usual / 4, 1 - STRICTEST, 1 - LOOSEST))


def stars(
    pairs: Pairs, order: Sequence[int], leave: set[int], by_hand: set[int], tell: Callable[[int, list[Near]], None]
) -> dict[int, list[Near]]:
    """For every picture that is the same as a better one that stays: that one, by each tier that says so.

    `order` is best first. Each picture that stays takes with it whatever is the same as itself, so where A is like B
    and B like C, C does not go for the sake of A. Those in `leave` are dealt with already; what a person put back, in
    `by_hand`, stays, and takes others with it, but not its betters. `tell` gets each picture's nearest by every tier.
    """
    found: dict[int, list[Near]] = {}
    rank = np.zeros(len(order), dtype=np.intp)
    rank[list(order)] = np.arange(len(order))
    free = np.ones(len(order), dtype=bool)
    free[list(leave)] = False
    for i, rows in pairs.rows(order):
        tell(i, [row.nearest for row in rows])
        if i in leave or (i in found and i not in by_hand):
            continue
        taken: dict[int, list[Near]] = {}
        for row in rows:
            for position in np.flatnonzero(free[row.same] & (rank[row.same] > rank[i])):
                one = row.near(int(position))
                taken.setdefault(one.index, []).append(one)
        for j, why in taken.items():
            found[j] = sorted((settled(pairs, i, j, one) for one in why), key=lambda one: not one.sure)
            free[j] = False
    return found


def settled(pairs: Pairs, i: int, j: int, one: Near) -> Near:
    """The finding of picture j, whose winner is i."""
    sure = one.tier == CLIP or one.distance <= pairs.thresholds.phash
    mirrored = one.tier == MIRRORED or (one.tier == CLIP and pairs.turned(i, j))
    threshold = float(pairs.thresholds.phash) if sure and one.tier != CLIP else one.threshold
    return Near(one.tier, i, one.distance, threshold, True, sure, mirrored)
