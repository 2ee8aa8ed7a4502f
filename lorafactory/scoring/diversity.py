"""Diversity: how much the pictures of one prompt differ from seed to seed; low if a LoRA knows one picture only."""

from __future__ import annotations

from lorafactory.scoring.likeness import Array, ceiling


def diversity(pictures: Array) -> float | None:
    """1 - mean cosine over all pairs; None for fewer than two pictures."""
    return 1 - ceiling(pictures) if len(pictures) > 1 else None
