"""In which order the pictures of an epoch are seen, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from lorafactory.training.buckets import Size
from lorafactory.training.plan import Example, Item, Plan
from lorafactory.training.randomness import generator
from lorafactory.training.settings import TrainSettings

T = TypeVar("T")


def batches(plan: Plan, examples: Sequence[Example], settings: TrainSettings, epoch: int) -> list[list[Item]]:
    """One epoch's batches, shuffled within each bucket and among each other; the same whenever asked for."""
    by_bucket: dict[Size, list[Item]] = {}
    for example in examples:
        fit = plan.fits[example.name]
        by_bucket.setdefault(fit.bucket, []).extend(Item(example, fit, r) for r in range(plan.times[example.name]))
    found: list[list[Item]] = []
    for bucket, items in sorted(by_bucket.items()):
        shuffled = _shuffled(items, generator(settings.seed, "order", epoch, *bucket))
        found += [shuffled[i : i + settings.batch] for i in range(0, len(shuffled), settings.batch)]
    return _shuffled(found, generator(settings.seed, "order", epoch))


def _shuffled(items: Sequence[T], source: torch.Generator) -> list[T]:
    return [items[i] for i in torch.randperm(len(items), generator=source).tolist()]
