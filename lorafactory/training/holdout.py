"""What training does to pictures it never sees: their loss over fixed pairs of timestep and noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lorafactory import heartbeat
from lorafactory.training import captions, objective
from lorafactory.training.buckets import Fit
from lorafactory.training.conditioning import Words
from lorafactory.training.latents import Pictures
from lorafactory.training.plan import Example, frame
from lorafactory.training.precision import autocast
from lorafactory.training.randomness import generator

PAIRS = 16


class Holdout:
    """Pictures kept out of training. Every measurement asks exactly the same questions."""

    def __init__(self, fitted: Sequence[tuple[Example, Fit]], latents: Pictures) -> None:
        self.family, self.base, self.settings = latents.family, latents.base, latents.settings
        self.pictures = [(example, frame(example, fit), latents(example, fit)[0]) for example, fit in fitted]

    @torch.no_grad()
    def measure(self, words: Words, at_once: int = PAIRS) -> float | None:
        """Mean squared error over all pictures and pairs, unweighted: one yardstick whatever the settings.

        `at_once` pairs go through the model together. None where no picture is held out.
        """
        if not self.pictures:
            return None
        total = 0.0
        for example, place, mean in self.pictures:
            heartbeat.alive()
            # one timestep from each sixteenth of the schedule, so that few pairs cover it
            width = self.base.schedule.num_timesteps / PAIRS
            draws = [generator(self.settings.seed, "holdout", example.name, pair) for pair in range(PAIRS)]
            times = [int((pair + torch.rand((), generator=g).item()) * width) for pair, g in enumerate(draws)]
            noises = torch.stack([torch.randn(mean.shape, generator=g) for g in draws]).to(self.base.device)
            text, errors = captions.steady(example.caption, self.settings), []
            for t, noise in zip(torch.split(torch.tensor(times), at_once), torch.split(noises, at_once), strict=True):
                clean = mean.to(self.base.device).expand_as(noise)
                with autocast(self.base):
                    told = words([text] * len(t), [place] * len(t))
                    answer, target = objective.ask(
                        self.family, self.base, clean=clean, noise=noise, t=t, conditioning=told
                    )
                errors.append((answer.float() - target.float()).pow(2).mean(dim=(1, 2, 3)))
            total += float(torch.cat(errors).mean())
        return total / len(self.pictures)
