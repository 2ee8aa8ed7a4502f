"""Which pictures of a set are probably mirrored: selfies are, and a face's two sides differ.

CLIP hardly sees a flip, so small gray middles are compared. With f_i the middle of picture i, A_ij =
sim(f_i, f_j) - sim(f_i, mirror f_j) is above 0 where two pictures show the same side. Split into what a flip keeps and
what it reverses, f = s + a, and A_ij = 2 a_i.a_j: the signs of A's leading eigenvector are the two groups, and the
first eigenvalue stands out from the second only if one asymmetry runs through the set. Below `GAP` that is left open.

Measured on 20 synthetic faces, 35 % flipped, noise 0.8, 60 sets (tests/setcheck/test_orientation.py): at asymmetry 0.3
all on the right side, gaps 2.5 to 15; at 0 gaps 1.0 to 1.9, so nothing is said. In 200 draws of 20 different persons'
faces (the LFW subset in scikit-image) the gap stays below 2.4. Light from one side, or heads that all turn, are
asymmetries too, so this is an opinion: a note, and a change only where a person asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from lorafactory.setcheck import SEED, Finding, count, some
from lorafactory.setcheck.looks import REACH, SIDE, Array, Look

GAP = 2.5
"""First by second eigenvalue below which nothing is said."""
ENOUGH = 6
"""Pictures below which nothing is said."""
CLEAR = 0.35
"""Share of the eigenvector's mean size from which a picture counts as on one side."""
LEAST = 1e-3
"""Share of a picture's detail that a mirror must reverse on average; below, there is no side to tell."""
FINE, COARSE = 1.0, 5.0
"""Deviations of the Gaussians, in small pixels, between which detail counts: below is noise, above is lighting."""


@dataclass(frozen=True)
class Sides:
    """The two orientations that were found, as indices of the pictures."""

    gap: float
    most: tuple[int, ...] = ()
    fewer: tuple[int, ...] = ()
    unsure: tuple[int, ...] = ()

    @property
    def open(self) -> bool:
        """True if nothing can be said of the set."""
        return bool(self.doubt)

    @property
    def doubt(self) -> str:
        """Why nothing can be said of the set, in words; empty if something can."""
        if self.gap < GAP:
            return f"no one difference stands out (gap {self.gap:.2f})"
        told = len(self.most) + len(self.fewer)
        if len(self.unsure) > told:
            return f"only {told} of {count(told + len(self.unsure))} lean clearly to a side (gap {self.gap:.1f})"
        return ""


def sides(strips: Sequence[Array]) -> Sides:
    """Tell the orientations apart; each strip is (SIDE, SIDE + 2 REACH)."""
    if len(strips) < ENOUGH:
        return Sides(0.0, unsure=tuple(range(len(strips))))
    odd = np.stack([turned(strip).ravel() for strip in strips])
    values, vectors = np.linalg.eigh(2 * odd @ odd.T)
    gap = float(values[-1] / max(values[-2], 1e-12)) if (odd**2).sum() > LEAST * len(strips) else 0.0
    along = vectors[:, -1] * np.sqrt(len(strips))
    left, right = np.flatnonzero(along <= -CLEAR), np.flatnonzero(along >= CLEAR)
    most, fewer = (left, right) if len(left) >= len(right) else (right, left)
    unsure = np.flatnonzero(np.abs(along) < CLEAR)
    return Sides(gap, *(tuple(int(i) for i in group) for group in (most, fewer, unsure)))


def turned(strip: Array) -> Array:
    """The part of a picture's middle, of length 1 as a whole, that a mirror reverses; (SIDE, SIDE)."""
    detail = gaussian_filter(strip, FINE, mode="nearest") - gaussian_filter(strip, COARSE, mode="nearest")
    middle = aligned(detail)
    length = float(np.linalg.norm(middle))
    return (middle - middle[:, ::-1]) / (2 * length) if length > 1e-9 else np.zeros_like(middle)


def aligned(detail: Array) -> Array:
    """The window whose own mirror image is most like it: a face's axis comes to the middle."""
    fall = np.exp(-(((np.arange(SIDE) - (SIDE - 1) / 2) / (SIDE / 3)) ** 2) / 2)
    best, found = -np.inf, detail[:, REACH : REACH + SIDE]
    for shift in sorted(range(2 * REACH + 1), key=lambda x: abs(x - REACH)):
        window = detail[:, shift : shift + SIDE]
        window = (window - window.mean()) * np.outer(fall, fall)
        alike = float((window * window[:, ::-1]).sum() / max((window**2).sum(), 1e-12))
        if alike > best:
            best, found = alike, window
    return found


def finding(looks: Sequence[Look], kind: str, found: Sides) -> Finding:
    """The row about left and right."""
    what, wanted = "left and right", "all one way round"
    rule = f"{SEED}; eigengap from {GAP} on, and half of the pictures clear"
    if kind == "style":
        return Finding(what, "does not matter for a style", wanted, rule)
    if len(looks) < ENOUGH:
        return Finding(what, f"too few pictures to tell, {ENOUGH} needed", wanted, rule)
    if found.open:
        return Finding(what, f"cannot be told: {found.doubt}", wanted, rule)
    if not found.fewer:
        return Finding(what, f"all one way (gap {found.gap:.1f})", wanted, rule)
    names = tuple(looks[i].name for i in found.fewer)
    value = f"{count(len(names))} probably mirrored (gap {found.gap:.1f}): {some(names)}; --fix-mirrored turns them"
    return Finding(what, value, wanted, rule, "note", names)
