"""Do the pictures differ where they should: behind the subject, in pose and framing, and in what CLIP sees.

What all pictures share is what a LoRA binds to its trigger, so a wall or a pose that is always the same is learned
with the face. Three measures, each the median over all pairs of pictures: the colour distance of the borders (CIE76
Delta E, mean over 12 cells), the correlation of the small gray middles, and CLIP's cosine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lorafactory import encoders
from lorafactory.setcheck import SEED, Finding
from lorafactory.setcheck.looks import Array, Look
from lorafactory.step import Work

BACKGROUND = 10.0
"""Delta E of two borders below which they are one background. Measured: one picture 20 % brighter or darker 5, frames
of one shot with a moving camera 6, portraits of different persons (LFW) 15, unrelated photographs 30."""
POSE = 0.5
"""Correlation of two middles from which pose and framing are the same. Measured: frames of one shot with a moving
camera 0.57, different persons' faces cropped alike (LFW) 0.31, unrelated photographs 0."""
ALIKE = 0.95
"""CLIP cosine from which pictures are nearly the same; kohya-colab calls 0.97 to 0.99 duplicates."""
ENOUGH = 3
"""Pictures below which there is nothing to compare."""
MOST = 300
"""Of larger sets every second, third ... picture is compared."""
POCKET_SIDE = 96
"""The pocket's CLIP knows drawings of this size."""


def findings(work: Work, looks: Sequence[Look], *, no_clip: bool) -> list[Finding]:
    """The rows about variety."""
    if len(looks) < ENOUGH:
        return []
    looks = looks[:: 1 + len(looks) // MOST]
    rows = [background(looks), pose(looks)]
    return rows if no_clip else [*rows, content(work, looks)]


def background(looks: Sequence[Look]) -> Finding:
    borders = np.stack([look.border for look in looks])
    value = typical(np.linalg.norm(borders[:, None] - borders[None], axis=-1).mean(-1))
    said = f"borders differ by {value:.0f} Delta E" + ("" if value >= BACKGROUND else ": nearly one background")
    wanted = f"{BACKGROUND:g} or more: vary what is behind"
    return Finding("variety of background", said, wanted, SEED, "ok" if value >= BACKGROUND else "note")


def pose(looks: Sequence[Look]) -> Finding:
    middles = np.stack([look.strip.ravel() for look in looks])
    middles = middles - middles.mean(1, keepdims=True)
    middles /= np.maximum(np.linalg.norm(middles, axis=1, keepdims=True), 1e-9)
    value = typical(middles @ middles.T)
    said = f"middles correlate by {value:.2f}" + ("" if value < POSE else ": nearly one pose")
    wanted = f"below {POSE:g}: faces to different sides"
    return Finding("variety of pose", said, wanted, SEED, "ok" if value < POSE else "note")


def typical(pairs: Array) -> float:
    """Median over the pairs of an (n, n) table."""
    return float(np.median(pairs[np.triu_indices(len(pairs), 1)]))


def content(work: Work, looks: Sequence[Look]) -> Finding:
    """What CLIP says of the whole set; its vectors come from the cache, or go into it."""
    what, wanted = "variety to CLIP", f"cosine below {ALIKE:g}"
    kind = encoders.get("clip")
    if work.judges.pocket and any(max(look.size) > POCKET_SIDE for look in looks):
        return Finding(what, "not measured: the pocket's CLIP knows only its drawings", wanted, "lorafactory")
    if lacking := kind.missing(work.judges.clip):
        return Finding(what, f"not measured: {lacking}", wanted, "kohya-colab", "note")
    pictures = [look.picture for look in looks]
    with tempfile.TemporaryDirectory() as spare:  # looking at a folder makes no workspace
        cache = work.workspace.cache if work.workspace.root.is_dir() else Path(spare)
        vectors = kind.embed(pictures, work.judges.clip, cache, work.track).astype(np.float64)
    value = typical(vectors @ vectors.T)
    said = f"cosine {value:.2f}" + ("" if value < ALIKE else ": nearly one picture")
    return Finding(what, said, wanted, "kohya-colab", "ok" if value < ALIKE else "note")
