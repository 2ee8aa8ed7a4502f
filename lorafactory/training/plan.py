"""What a training run will do, counted before it starts, and without torch: the plan printed is the plan run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorafactory import crops, images, networks
from lorafactory.crops import Box
from lorafactory.errors import InputError, SettingsError
from lorafactory.families import Frame
from lorafactory.training import buckets, optimizers
from lorafactory.training.saves import Point, kept, sampled, saved
from lorafactory.training.settings import TrainSettings

MASK_TOLERANCE = 0.02
"""How far the shape of a mask may be from that of its picture, as a share."""


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
    trigger: str = ""
    """What calls the LoRA, where the caption says it."""
    reg: bool = False
    """A regularisation picture: shows what the class looks like without the LoRA."""
    mask: Path | None = None
    """A grey picture that says what of it is learned."""
    crop: Box | None = None
    """The part of it that is trained on; None: all of it."""

    @property
    def size(self) -> buckets.Size:
        """Width and height of what is trained on."""
        return crops.size_of(self.crop) if self.crop else (self.width, self.height)


@dataclass(frozen=True)
class Item:
    """One picture in one batch: which, and its how manieth time in this epoch."""

    example: Example
    fit: buckets.Fit
    repeat: int


@dataclass(frozen=True)
class Plan:
    """Exact numbers of a run."""

    images: int
    """Without those of regularisation."""
    batch: int
    samples: int
    """Pictures seen per epoch: the sum of all repeats."""
    reg_samples: int
    """How many of them are of regularisation."""
    batches_per_epoch: int
    steps_per_epoch: int
    epochs: int
    steps: int
    saves: tuple[Point, ...]
    """(epoch, step) after which a LoRA is saved; the end is always among them."""
    stay: int
    """How many of them are kept."""
    sampled: tuple[Point, ...]
    """(epoch, step) after which samples are drawn; (0, 0) is before the first step."""
    per_bucket: Mapping[buckets.Size, int]
    """Samples per epoch in each."""
    fits: Mapping[str, buckets.Fit]
    """By the picture's name."""
    times: Mapping[str, int]
    """How often an epoch shows each picture, by name."""

    @property
    def repeats(self) -> float:
        """Mean over the pictures, without those of regularisation."""
        return (self.samples - self.reg_samples) / self.images

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends with this step."""
        return step % self.steps_per_epoch == 0

    def __str__(self) -> str:
        mean = f"{self.repeats:.1f}".removesuffix(".0")
        more = f" and {self.reg_samples} of regularisation" if self.reg_samples else ""
        saves = f"{len(self.saves)} saves" + (f" ({self.stay} stay)" if self.stay < len(self.saves) else "")
        buckets = f"{len(self.per_bucket)} bucket" + ("s" if len(self.per_bucket) > 1 else "")
        return (
            f"{self.images} images x {mean} repeats{more} x {self.epochs} epochs / batch {self.batch} = "
            f"{self.steps} steps, {saves}, {buckets}"
        )


def plan(examples: Sequence[Example], settings: TrainSettings) -> Plan:
    """Count everything. A batch never mixes buckets, so each bucket's last one may be short."""
    problems = check(settings)
    if problems:
        raise SettingsError("\n".join(problems))
    if not any(not example.reg for example in examples):
        raise InputError("There is no picture to train on.")
    fits = fit_all(examples, settings)
    times = times_of(examples)
    counts: dict[buckets.Size, int] = {}
    for example in examples:
        bucket = fits[example.name].bucket
        counts[bucket] = counts.get(bucket, 0) + times[example.name]
    batches = sum(math.ceil(n / settings.batch) for n in counts.values())
    if batches == 0:
        raise InputError("Every picture has 0 repeats: there is nothing to train on.")
    steps_per_epoch = math.ceil(batches / settings.gradient_accumulation)
    last = _epochs(settings, steps_per_epoch)
    saves = saved(settings, last, steps_per_epoch)
    return Plan(
        images=sum(not e.reg for e in examples),
        batch=settings.batch,
        samples=sum(counts.values()),
        reg_samples=sum(times[e.name] for e in examples if e.reg),
        batches_per_epoch=batches,
        steps_per_epoch=steps_per_epoch,
        epochs=last,
        steps=steps_per_epoch * last,
        saves=saves,
        stay=len(kept(saves, settings.keep_last)),
        sampled=sampled(settings, last, steps_per_epoch),
        per_bucket=dict(sorted(counts.items())),
        fits=fits,
        times=times,
    )


def _epochs(s: TrainSettings, steps_per_epoch: int) -> int:
    """As many whole epochs as `max_steps` allows."""
    if not s.max_steps:
        return s.epochs
    if s.max_steps < steps_per_epoch:
        raise SettingsError(
            f"max_steps {s.max_steps} is less than one epoch, which has {steps_per_epoch} steps: "
            "raise it, or give the pictures fewer repeats."
        )
    return min(s.epochs, s.max_steps // steps_per_epoch)


def times_of(examples: Sequence[Example]) -> dict[str, int]:
    """How often an epoch shows each picture: its repeats; those of regularisation as often as all others together.

    Kohya's rule (sd-scripts `library/train_util.py: DreamBoothDataset`): regularisation pictures are taken in order
    with their own repeats until they are as many as the others, then each once more, round after round.
    """
    times = {e.name: e.repeats for e in examples if not e.reg}
    missing = sum(times.values())
    reg = [e.name for e in examples if e.reg and e.repeats]
    for example in (e for e in examples if e.reg):
        times[example.name] = example.repeats if missing > 0 else 0
        missing -= times[example.name]
    for index, name in enumerate(reg if missing > 0 else []):
        times[name] += missing // len(reg) + (index < missing % len(reg))
    return times


def check(s: TrainSettings) -> list[str]:
    """Say what is wrong between settings that are each right by themselves, and which names nothing knows."""
    problems = [*optimizers.check(s.optimizer, s.optimizer_args, s.scheduler), *optimizers.check_rates(s)]
    problems += networks.check(s)
    if s.bucket_step % 8:
        problems.append(f"bucket_step must be a multiple of 8 pixels, one latent cell; {s.bucket_step} is not.")
    if s.resolution < s.bucket_step:
        problems.append(f"resolution {s.resolution} is below bucket_step {s.bucket_step}: no bucket fits.")
    if s.min_bucket > s.max_bucket:
        problems.append(f"min_bucket {s.min_bucket} is above max_bucket {s.max_bucket}.")
    if s.min_timestep >= s.max_timestep:
        problems.append(f"min_timestep {s.min_timestep} must be below max_timestep {s.max_timestep}.")
    if s.adaptive_noise_scale and not s.noise_offset:
        problems.append("adaptive_noise_scale changes the noise offset, and noise_offset is 0: set both, or none.")
    if any(step < 1 for step in s.save_at):
        problems.append(f"save_at = {list(s.save_at)}: steps are counted from 1.")
    return problems + _check_text_cache(s)


def _check_text_cache(s: TrainSettings) -> list[str]:
    """Nothing is switched off in silence: with `cache_text` no caption may come up that was not encoded before."""
    if not s.cache_text:
        return []
    trained = [name for name in ("text_encoder_lr", "text_encoder_2_lr") if getattr(s, name)]
    return [
        f"cache_text encodes each caption once, and {name} needs the text encoders: turn one of them off."
        for name in (*trained, *s.varying())
    ]


def fit_all(examples: Sequence[Example], s: TrainSettings) -> dict[str, buckets.Fit]:
    """Find every picture's bucket; say all that have none, and all names that are taken twice."""
    fits: dict[str, buckets.Fit] = {}
    problems = []
    for example in examples:
        if example.name in fits:
            problems.append(f"{example.path}: a second picture of the name {example.name!r}.")
        try:
            fits[example.name] = buckets.fit(
                example.size,
                s.resolution,
                s.min_bucket,
                s.max_bucket,
                s.bucket_step,
                upscale=s.bucket_upscale,
                name=str(example.path),
            )
            _check_crop(example)
            _check_mask(example)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    return fits


def _check_crop(example: Example) -> None:
    if example.crop and crops.outside(example.crop, (example.width, example.height)):
        raise InputError(
            f"{example.path}: {crops.NAME} cuts out {list(example.crop)}, and it has {example.width}x{example.height} "
            "pixels; mend that line, or take it out."
        )


def _check_mask(example: Example) -> None:
    """A mask covers its picture: it may be of another size, but not of another shape."""
    if example.mask is None:
        return
    width, height = images.size(example.mask)
    if abs(width * example.height / (height * example.width) - 1) > MASK_TOLERANCE:
        raise InputError(
            f"{example.mask}: {width}x{height} is another shape than its picture's {example.width}x{example.height}; "
            "make it as large as the picture, or take it away."
        )


def frame(example: Example, fit: buckets.Fit, *, flip: bool = False) -> Frame:
    """What SDXL is told of a picture: its own size, kohya's crop, and its bucket."""
    frame_of = buckets.letterbox(example.size, fit.bucket, flip=flip)
    return Frame(original=example.size, crop=frame_of, target=fit.bucket)
