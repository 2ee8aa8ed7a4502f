"""What a training run will do, counted before it starts, and without torch: the plan printed is the plan run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorafactory import networks
from lorafactory.errors import InputError, SettingsError
from lorafactory.families import Frame
from lorafactory.training import buckets, optimizers
from lorafactory.training.settings import TrainSettings


@dataclass(frozen=True)
class Example:
    """One picture of the set."""

    name: str
    """Unique in the set; random draws are tied to it."""
    path: Path
    sha256: str
    """Of the file's bytes."""
    caption: str
    repeats: int
    width: int
    """Pixels, upright."""
    height: int


@dataclass(frozen=True)
class Item:
    """One picture in one batch: which, and its how manieth time in this epoch."""

    example: Example
    fit: buckets.Fit
    repeat: int

    @property
    def frame(self) -> Frame:
        return frame(self.example, self.fit)


@dataclass(frozen=True)
class Plan:
    """Exact numbers of a run."""

    images: int
    samples: int
    """Pictures seen per epoch: the sum of all repeats."""
    batches_per_epoch: int
    steps_per_epoch: int
    epochs: int
    steps: int
    saves: tuple[int, ...]
    """Epochs after which a LoRA is saved, counted from 1; the last is always among them."""
    per_bucket: Mapping[buckets.Size, int]
    """Samples per epoch in each."""
    fits: Mapping[str, buckets.Fit]
    """By the picture's name."""

    @property
    def repeats(self) -> float:
        """Mean over the pictures."""
        return self.samples / self.images

    def __str__(self) -> str:
        times = f"{self.repeats:g}" if self.repeats == int(self.repeats) else f"{self.repeats:.1f}"
        return (
            f"{self.images} images x {times} repeats x {self.epochs} epochs = {self.steps} steps "
            f"({self.batches_per_epoch} batches an epoch, {len(self.saves)} saves)"
        )


def plan(examples: Sequence[Example], settings: TrainSettings) -> Plan:
    """Count everything. A batch never mixes buckets, so each bucket's last one may be short."""
    problems = check(settings)
    if problems:
        raise SettingsError("\n".join(problems))
    if not examples:
        raise InputError("There is no picture to train on.")
    fits = fit_all(examples, settings)
    counts: dict[buckets.Size, int] = {}
    for example in examples:
        bucket = fits[example.name].bucket
        counts[bucket] = counts.get(bucket, 0) + example.repeats
    batches = sum(math.ceil(n / settings.batch) for n in counts.values())
    if batches == 0:
        raise InputError("Every picture has 0 repeats: there is nothing to train on.")
    steps_per_epoch = math.ceil(batches / settings.gradient_accumulation)
    every, last = settings.save_every_epochs, settings.epochs
    return Plan(
        images=len(examples),
        samples=sum(counts.values()),
        batches_per_epoch=batches,
        steps_per_epoch=steps_per_epoch,
        epochs=last,
        steps=steps_per_epoch * last,
        saves=tuple(e for e in range(1, last + 1) if e == last or e % every == 0),
        per_bucket=dict(sorted(counts.items())),
        fits=fits,
    )


def check(s: TrainSettings) -> list[str]:
    """Say what is wrong between settings that are each right by themselves, and which names nothing knows."""
    problems = optimizers.check(s.optimizer, s.optimizer_args, s.scheduler)
    if s.network not in networks.names():
        problems.append(f"There is no adapter kind {s.network!r}. Known: {', '.join(networks.names())}.")
    if s.bucket_step % 8:
        problems.append(f"bucket_step must be a multiple of 8 pixels, one latent cell; {s.bucket_step} is not.")
    if s.resolution < s.bucket_step:
        problems.append(f"resolution {s.resolution} is below bucket_step {s.bucket_step}: no bucket fits.")
    if s.min_bucket > s.max_bucket:
        problems.append(f"min_bucket {s.min_bucket} is above max_bucket {s.max_bucket}.")
    return problems


def fit_all(examples: Sequence[Example], s: TrainSettings) -> dict[str, buckets.Fit]:
    """Find every picture's bucket; say all that have none, and all names that are taken twice."""
    fits: dict[str, buckets.Fit] = {}
    problems = []
    for example in examples:
        if example.name in fits:
            problems.append(f"{example.path}: a second picture of the name {example.name!r}.")
        try:
            fits[example.name] = buckets.fit(
                (example.width, example.height),
                s.resolution,
                s.min_bucket,
                s.max_bucket,
                s.bucket_step,
                upscale=s.bucket_upscale,
                name=str(example.path),
            )
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    return fits


def frame(example: Example, fit: buckets.Fit) -> Frame:
    return Frame(original=(example.width, example.height), crop=fit.crop, target=fit.bucket)
