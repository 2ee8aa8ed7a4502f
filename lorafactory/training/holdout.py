"""What training does to pictures it never sees: their loss over fixed pairs of timestep and noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lorafactory.families import Base, Family
from lorafactory.training import latents, objective
from lorafactory.training.conditioning import Words
from lorafactory.training.plan import Example, fit_all, frame
from lorafactory.training.precision import autocast
from lorafactory.training.randomness import generator
from lorafactory.training.settings import TrainSettings

PAIRS = 16


class Holdout:
    """Pictures kept out of training. Every measurement asks exactly the same questions."""

    def __init__(
        self, family: Family, base: Base, examples: Sequence[Example], settings: TrainSettings, cache: Path
    ) -> None:
        self.family, self.base, self.settings = family, base, settings
        fits = fit_all(examples, settings)
        found = latents.all_of(family, base, [(e, fits[e.name]) for e in examples], cache=cache, flip=False)
        self.pictures = [(e, frame(e, fits[e.name]), found[e.name, False][0]) for e in examples]

    @torch.no_grad()
    def measure(self, words: Words) -> float | None:
        """Mean squared error over all pictures and pairs, unweighted: one yardstick whatever the settings."""
        if not self.pictures:
            return None
        total = 0.0
        for example, place, mean in self.pictures:
            # one timestep from each sixteenth of the schedule, so that few pairs cover it
            width = self.base.schedule.num_timesteps / PAIRS
            draws = [generator(self.settings.seed, "holdout", example.name, pair) for pair in range(PAIRS)]
            times = [int((pair + torch.rand((), generator=g).item()) * width) for pair, g in enumerate(draws)]
            noise = torch.stack([objective.noise(mean.shape, g) for g in draws]).to(self.base.device)
            t = torch.tensor(times, device=self.base.device)
            clean = mean.to(self.base.device).expand_as(noise)
            with autocast(self.base, self.settings.dtype):
                conditioning = words([example.caption] * PAIRS, [place] * PAIRS)
                losses = objective.ask(
                    self.family,
                    self.base,
                    clean=clean,
                    noise=noise,
                    t=t,
                    conditioning=conditioning,
                    weight=torch.ones_like(t),
                )
            total += float(losses.mean())
        return total / len(self.pictures)
