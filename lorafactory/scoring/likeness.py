"""Likeness to the training pictures, part by part, and prompt fit (CLIP-T).

Rows are embeddings of length 1, so a product is a cosine. A picture has one part, as DINOv2 sees it, or many: CLIP's
patches, as its one vector of the whole is a meaning, which an object shares with others of its class (2208.12242).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
DIGITS = 6


def own_parts(training: Array, baseline: Array) -> Array:
    """How much each part of the training pictures is their own (m, parts): what the base draws as well is no likeness.

    The squared distance (1 - cosine) to the nearest part of the baseline's pictures, as shares of each picture.
    """
    others = baseline.reshape(-1, baseline.shape[2]).T
    weights = np.stack([(1 - (picture @ others).max(axis=1)).clip(1e-6) ** 2 for picture in training])
    shares: Array = weights / weights.sum(axis=1, keepdims=True)
    return shares


def matches(pictures: Array, training: Array, weights: Array) -> Array:
    """How much of each training picture is in each picture (n, m): each part's nearest, by its weight."""
    m, parts, width = training.shape
    flat = training.reshape(-1, width).T
    found = [((picture @ flat).max(axis=0).reshape(m, parts) * weights).sum(axis=1) for picture in pictures]
    rows: Array = np.array(found, np.float64).reshape(len(pictures), m)
    return rows


def likeness(found: Array) -> Array:
    """Match with the likest training picture, from (n, m) to (n,): a set shows its subject in more ways than one.

    Rounded, so that a picture scores the same in whatever company it is measured: equal saves must tie.
    """
    best: Array = found.max(axis=1).round(DIGITS)
    return best


def itself(found: Array) -> float:
    """Likeness of the training pictures to each other, from their matches (m, m), each but with itself."""
    m = len(found)
    if m < 2:
        return 1.0
    return float(likeness(found[~np.eye(m, dtype=bool)].reshape(m, m - 1)).mean())


def fit(pictures: Array, others: Array) -> Array:
    """Cosine of each picture to the text, or to the picture, of the same row (n,)."""
    cosines: Array = (pictures * others).sum(axis=1)
    return cosines


def standard_error(scores: Array, rounds: int = 2000, seed: int = 0) -> float:
    """Bootstrap the standard error of the mean over cells, each a prompt and a seed (Efron & Tibshirani 1993, 6)."""
    drawn = np.random.default_rng(seed).integers(0, len(scores), (rounds, len(scores)))
    return float(scores[drawn].mean(axis=1).std())
