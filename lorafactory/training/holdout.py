"""What training does to pictures it never sees: their loss over fixed pairs of timestep and noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lorafactory.families import Base, Family
from lorafactory.training import captions, objective
from lorafactory.training.conditioning import Words
from lorafactory.training.latents import Pictures
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
        """`cache` is the workspace's cache folder."""
        self.family, self.base, self.settings = family, base, settings
        fits = fit_all(examples, settings)
        self.fitted = [(example, fits[example.name]) for example in examples]
        latents = Pictures(family, base, settings, cache)
        self.pictures = [(example, frame(example, fit), latents(example, fit)[0]) for example, fit in self.fitted]

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
            noise = torch.stack([torch.randn(mean.shape, generator=g) for g in draws]).to(self.base.device)
            t = torch.tensor(times, device=self.base.device)
            clean = mean.to(self.base.device).expand_as(noise)
            with autocast(self.base):
                text = captions.steady(example.caption, self.settings)
                conditioning = words([text] * PAIRS, [place] * PAIRS)
                answer, target = objective.ask(
                    self.family, self.base, clean=clean, noise=noise, t=t, conditioning=conditioning
                )
            total += float((answer.float() - target.float()).pow(2).mean(dim=(1, 2, 3)).mean())
        return total / len(self.pictures)
