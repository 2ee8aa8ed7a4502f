"""Likeness (CLIP-I) and prompt fit (CLIP-T). Rows of arrays are embeddings of length 1, so a product is a cosine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def likeness(pictures: Array, training: Array) -> Array:
    """Mean cosine of each picture to the training pictures (n,)."""
    means: Array = (pictures @ training.T).mean(axis=1)
    return means


def ceiling(training: Array) -> float:
    """Mean cosine of training pictures to each other: what a picture drawn from the same set would score."""
    n = len(training)
    if n < 2:
        return 1.0
    return float((np.square(training.sum(axis=0)).sum() - n) / (n * (n - 1)))


def fit(pictures: Array, texts: Array) -> Array:
    """Cosine of each picture to the text of the same row (n,)."""
    cosines: Array = (pictures * texts).sum(axis=1)
    return cosines


def standard_error(per_prompt: Array, rounds: int = 2000, seed: int = 0) -> float:
    """Bootstrap the standard error of the mean of (prompts, seeds).

    Seeds are drawn again within each prompt: the prompts were chosen, only the noise was chance.
    """
    prompts, seeds = per_prompt.shape
    if seeds < 2:
        return 0.0
    drawn = np.random.default_rng(seed).integers(0, seeds, (rounds, prompts, seeds))
    means = np.take_along_axis(per_prompt[None], drawn, axis=2).mean(axis=(1, 2))
    return float(means.std())
