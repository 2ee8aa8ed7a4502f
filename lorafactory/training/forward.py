"""From a batch to its losses: everything random drawn for each picture alone, then one call of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorafactory.families import Base, Frame
from lorafactory.training import objective
from lorafactory.training.buckets import Fit
from lorafactory.training.conditioning import Words
from lorafactory.training.latents import Pictures
from lorafactory.training.plan import Item, frame
from lorafactory.training.randomness import generator, uniform
from lorafactory.training.settings import TrainSettings


@dataclass(frozen=True)
class Drawn:
    """One picture as the model is shown it once."""

    clean: Tensor
    noise: Tensor
    """What is asked for."""
    entered: Tensor
    """What was added."""
    t: int
    text: str
    frame: Frame
    mask: Tensor | None
    weight: float


def losses(
    base: Base, batch: Sequence[Item], pictures: Pictures, words: Words, s: TrainSettings, *, epoch: int, step: int
) -> Tensor:
    """Weighted loss of each picture of a batch (n,), in an `epoch` (from 1) and after `step` steps."""
    drawn = [_draw(base, item, pictures, words, s, epoch, step) for item in batch]

    def together(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(tensors)).to(base.device)

    t = torch.tensor([d.t for d in drawn])  # on the CPU, where the schedule is: nothing waits for the device
    prediction, target = objective.ask(
        words.family,
        base,
        clean=together([d.clean for d in drawn]),
        noise=together([d.noise for d in drawn]),
        entered=together([d.entered for d in drawn]),
        t=t,
        conditioning=words([d.text for d in drawn], [d.frame for d in drawn]),
    )
    mask = None
    if any(d.mask is not None for d in drawn):
        mask = together([torch.ones_like(d.clean[:1]) if d.mask is None else d.mask for d in drawn])
    found = objective.loss(prediction, target, base.schedule, t, s, mask)
    return found * torch.tensor([d.weight for d in drawn]).to(base.device)


def _draw(base: Base, item: Item, pictures: Pictures, words: Words, s: TrainSettings, epoch: int, step: int) -> Drawn:
    example = item.example

    def source(stream: str) -> torch.Generator:
        return generator(s.seed, stream, epoch, example.name, item.repeat)

    mirrored = s.flip and uniform(source("flip")) < 0.5
    fit = _moved(item.fit, source("crop")) if s.random_crop else item.fit
    mean, std = pictures(example, fit, flip=mirrored)
    clean = mean + std * torch.randn(mean.shape, generator=source("latent"))
    noise = objective.noise(clean, s, source)
    return Drawn(
        clean=clean,
        noise=noise,
        entered=objective.entered(noise, clean, s, source),
        t=objective.timestep(base.schedule, s, source("timestep")),
        text=words.vary(example, source, epoch=epoch, step=step),
        frame=frame(example, fit, flip=mirrored),
        mask=pictures.mask(example, fit, flip=mirrored),
        weight=s.prior_loss_weight if example.reg else 1.0,
    )


def _moved(fit: Fit, draw: torch.Generator) -> Fit:
    """Cut somewhere else, every place as likely."""
    left, top = (int(torch.randint(0, room + 1, (), generator=draw)) for room in fit.room)
    return fit.at(left, top)
