"""The training loop, top to bottom; `train` is longer than other functions so that it is read in one go.

Every draw is named (`randomness.generator`), so the same plan on the same machine gives the same LoRA to the
last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lorafactory import families
from lorafactory.errors import FailedError
from lorafactory.families import Base
from lorafactory.training import adapter, forward, objective, optimizers
from lorafactory.training.conditioning import Words
from lorafactory.training.holdout import Holdout
from lorafactory.training.latents import Pictures
from lorafactory.training.order import batches
from lorafactory.training.plan import Example, Item, Plan, plan
from lorafactory.training.precision import autocast
from lorafactory.training.randomness import generator
from lorafactory.training.settings import TrainSettings


@dataclass(frozen=True)
class Save:
    """The adapter after an epoch, in the names and shapes of the file; fp32, on the CPU."""

    epoch: int
    step: int
    tensors: dict[str, Tensor]
    losses: tuple[float, ...]
    """Of every step so far."""
    holdout: float | None
    """Mean loss of the held-out pictures; None where there are none."""


@dataclass(frozen=True)
class Outcome:
    """What a whole run came to."""

    plan: Plan
    losses: tuple[float, ...]
    """One per step: the mean over its pictures."""
    epoch_means: tuple[float, ...]
    holdout_before: float | None
    holdout_after: tuple[float, ...]
    """One per save."""


def train(
    base: Base,
    examples: Sequence[Example],
    settings: TrainSettings,
    *,
    cache: Path,
    on_step: Callable[[int, float, float], None] = lambda step, loss, lr: None,
    on_save: Callable[[Save], None] = lambda save: None,
    held_out: Sequence[Example] = (),
) -> Outcome:
    """Train an adapter on a loaded base; each save is handed to `on_save`. The base is left as it was.

    `cache` is the workspace's cache folder.
    """
    run = plan(examples, settings)
    family = families.get(base.family)
    objective.check(base, settings)
    fitted = [(example, run.fits[example.name]) for example in examples]
    pictures = Pictures(family, base, settings, cache)
    pictures.prepare(fitted)
    holdout = Holdout(family, base, held_out, settings, cache)
    words = Words(family, base, settings, cache=cache, steps=run.steps)
    words.prepare([*fitted, *holdout.fitted])

    rates = settings.rates(base.parts)
    parts = list(rates)
    matrices = adapter.attach(
        family,
        base,
        kind=settings.network,
        settings=settings,
        parts=parts,
        generator=lambda name: generator(settings.seed, "init", name),
    )
    groups = [(rates[part], matrices.parameters(part)) for part in parts]
    trained = [parameter for _, parameters in groups for parameter in parameters]
    losses: list[float] = []
    measured: list[float] = []
    try:
        optimizer = optimizers.make(settings.optimizer, settings.optimizer_args, groups)
        schedule = optimizers.schedule(optimizer, settings, run.steps)
        # gradients of fp16 would vanish unscaled; with other precisions the scaler does nothing
        scaler = torch.amp.GradScaler(base.device.type, enabled=settings.dtype == "fp16")
        before = holdout.measure(words)

        for epoch in range(1, run.epochs + 1):
            todo = batches(run, examples, settings, epoch)
            for start in range(0, len(todo), settings.gradient_accumulation):
                group = todo[start : start + settings.gradient_accumulation]
                seen = sum(len(batch) for batch in group)
                loss = 0.0
                for batch in group:
                    with autocast(base, settings.dtype):
                        drawn = forward.losses(base, batch, pictures, words, settings, epoch=epoch, step=len(losses))
                        share = drawn.sum() / seen
                    torch.autograd.backward(scaler.scale(share))
                    loss += float(share.detach())
                if not math.isfinite(loss):
                    raise _not_finite(loss, len(losses) + 1, epoch, group)
                if settings.max_grad_norm > 0:
                    scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
                lr = float(schedule.get_last_lr()[0])
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                losses.append(loss)
                on_step(len(losses), loss, lr)

            if epoch in run.saves:
                now = holdout.measure(words)
                measured += [] if now is None else [now]
                on_save(Save(epoch, len(losses), matrices.state(), tuple(losses), now))
    finally:
        matrices.detach()
        words.bring_back()
    each = run.steps_per_epoch
    means = tuple(sum(losses[i : i + each]) / each for i in range(0, len(losses), each))
    return Outcome(run, tuple(losses), means, before, tuple(measured))


def _not_finite(loss: float, step: int, epoch: int, group: Sequence[Sequence[Item]]) -> FailedError:
    pictures = sorted({str(item.example.path) for batch in group for item in batch})
    return FailedError(
        f"The loss became {loss} at step {step} (epoch {epoch}), on these pictures:\n"
        + "\n".join(f"  {picture}" for picture in pictures)
        + "\nLower the learning rate (lr), or use dtype bf16 or fp32 and not fp16. Earlier saves are whole."
    )
