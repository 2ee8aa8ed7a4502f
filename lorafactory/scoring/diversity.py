"""Diversity: how much the pictures of one prompt differ from seed to seed; low if a LoRA knows one picture only."""

from __future__ import annotations

import numpy as np

from lorafactory.scoring.likeness import Array


def diversity(pictures: Array) -> float | None:
    """1 - mean cosine over all pairs; None for fewer than two pictures."""
    n = len(pictures)
    return 1 - float((np.square(pictures.sum(axis=0)).sum() - n) / (n * (n - 1))) if n > 1 else None
