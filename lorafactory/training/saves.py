"""After which steps there is a save, or a row of samples, and which saves stay. Pure: the plan counts with it too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from lorafactory.training.settings import TrainSettings

T = TypeVar("T")


class Point(NamedTuple):
    """A moment of a training: after this step."""

    epoch: int
    """The epoch that the step belongs to, counted from 1."""
    step: int
    """Steps done, over all epochs."""


START = Point(0, 0)
"""Before the first step: what the base draws by itself."""


def saved(s: TrainSettings, epochs: int, each: int) -> tuple[Point, ...]:
    """When to save in a training of so many epochs with `each` steps; the end is always among them."""
    if s.save_every_steps or s.save_at:
        return points(epochs, each, every=s.save_every_steps, at=s.save_at)
    return points(epochs, each, every=s.save_every_epochs * each)


def sampled(s: TrainSettings, epochs: int, each: int) -> tuple[Point, ...]:
    """When to draw samples: never, or at the start, as often as is set, and at the end."""
    if s.sample_every_steps:
        return START, *points(epochs, each, every=s.sample_every_steps)
    if s.sample_every_epochs:
        return START, *points(epochs, each, every=s.sample_every_epochs * each)
    return ()


def points(epochs: int, each: int, *, every: int = 0, at: Iterable[int] = ()) -> tuple[Point, ...]:
    """After every so many steps, after the steps `at`, and at the end; what would come after the end does not."""
    last = epochs * each
    chosen = {last, *at, *(range(every, last, every) if every else ())}
    return tuple(Point(math.ceil(step / each), step) for step in sorted(chosen) if step <= last)


def kept(saves: Sequence[T], keep_last: int) -> tuple[T, ...]:
    """Which of these saves stay: the first and the last `keep_last`; all if that is 0."""
    return tuple(saves) if keep_last == 0 else tuple(dict.fromkeys((*saves[:1], *saves[-keep_last:])))


def label(point: Point, *, ends_epoch: bool) -> str:
    """What people call a save."""
    return f"epoch {point.epoch}" if ends_epoch else f"step {point.step}"


AVERAGE = "-ema"
"""At the end of a file's name, before `.safetensors`: the average beside a save."""


def stem(name: str, point: Point, *, ends_epoch: bool) -> str:
    """Name of a save's file without its ending, as kohya's: NAME-000004 ends epoch 4, else NAME-step00001500."""
    return f"{name}-{point.epoch:06}" if ends_epoch else f"{name}-step{point.step:08}"
