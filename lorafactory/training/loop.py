"""The training loop, top to bottom; `train` is longer than other functions so that it is read in one go.

Every draw is named (`randomness.generator`), so the same plan on the same machine gives the same LoRA to the
last bit, killed or not. Latents and texts are cached, so there are no data workers. torch's own autocast and
GradScaler are what accelerate would wrap; on one device it would add its pickled states and nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lorafactory.families import Base
from lorafactory.training import card, memory
from lorafactory.training.checkpoint import Keeper
from lorafactory.training.memory import Means
from lorafactory.training.pace import Pace
from lorafactory.training.plan import Example, Plan, plan
from lorafactory.training.saves import START, Point
from lorafactory.training.session import Session, Start
from lorafactory.training.settings import TrainSettings
from lorafactory.training.stopping import stopping


@dataclass(frozen=True)
class Begun:
    """What is known once everything is ready for the first step, or for the next one of a killed run."""

    history: tuple[tuple[float, float], ...]
    """Loss and learning rate of the steps that an earlier process did."""
    seconds: float | None
    """Of a step on the largest bucket, where it was tried out."""


@dataclass(frozen=True)
class Save:
    """The adapter after a step, in the names and shapes of the file; fp32, on the CPU."""

    epoch: int
    """That the step belongs to, counted from 1."""
    step: int
    tensors: dict[str, Tensor]
    losses: tuple[float, ...]
    """Of every step so far."""
    holdout: float | None
    """Mean loss of the held-out pictures; None where there are none."""
    means: Means
    ends_epoch: bool = True
    """False if it comes in the middle of one."""
    average: dict[str, Tensor] | None = None
    """The running average of the adapter, with `ema`."""


@dataclass(frozen=True)
class Outcome:
    """What a whole run came to."""

    plan: Plan
    losses: tuple[float, ...]
    """One per step: the mean over its pictures."""
    holdout_before: float | None
    holdout_after: tuple[float, ...]
    """One per save."""


def train(
    base: Base,
    examples: Sequence[Example],
    settings: TrainSettings,
    *,
    cache: Path,
    on_begin: Callable[[Begun], None] = lambda begun: None,
    on_step: Callable[[int, float, float], None] = lambda step, loss, lr: None,
    on_save: Callable[[Save], None] = lambda save: None,
    on_sample: Callable[[int, int], None] = lambda step, epoch: None,
    on_event: Callable[[int, str], None] = lambda step, text: None,
    held_out: Sequence[Example] = (),
    start: Start | None = None,
    keeper: Keeper | None = None,
) -> Outcome:
    """Train an adapter on a loaded base; each save is handed to `on_save`. The base is left as it was.

    `cache` is the workspace's cache folder. `keeper` keeps the states to go back to, and goes on from the newest one
    it finds. `on_event` hears what a person should know, with the steps done by then.
    """
    run, start, keeper = plan(examples, settings), start or Start(), keeper or Keeper()
    at = Session(base, examples, held_out, run, settings, cache=cache, start=start, keeper=keeper, say=on_event)
    now, room, pace = at.now, at.room, Pace()
    try:
        resumed = at.resume()
        timed = not resumed and (base.device.type == "cuda" or memory.is_real(base))
        on_begin(Begun(tuple(now.history), at.try_out() if timed else None))
        if not resumed:
            at.measure()
            if START in run.sampled:
                with at.visit():
                    on_sample(start.step, start.epoch)
            at.keep()
        room.begun = True
        with stopping() as asked:
            for epoch, group in at.steps():
                began = time.perf_counter()
                loss, norm = room.fits(at.gradients, epoch, group)
                if not now.is_sound(loss, norm):
                    what = "gradient" if math.isfinite(loss) else "loss"
                    at.go_back(f"The {what} became {norm if what == 'gradient' else loss}", epoch, group)
                    continue
                if (lr := at.update(loss)) is None:
                    continue
                on_step(at.step, loss, lr)
                if strange := pace.took(time.perf_counter() - began):
                    on_event(at.step, f"step {at.step} {strange}.{card.others() if base.device.type == 'cuda' else ''}")

                point = Point(epoch - start.epoch, now.step)
                if point in run.saves:
                    found = at.measure()
                    with at.visit():
                        ends = now.step % run.steps_per_epoch == 0
                        tensors, average = at.tensors()
                        on_save(Save(epoch, at.step, tensors, now.losses, found, room.means, ends, average))
                if point in run.sampled:
                    with at.visit():
                        on_sample(at.step, epoch)
                if point in run.saves or asked() or keeper.due(now.step):
                    at.keep()
                if asked():
                    raise KeyboardInterrupt
    finally:
        at.close()
    return Outcome(run, now.losses, next(iter(now.holdout), None), tuple(now.holdout[1:]))
