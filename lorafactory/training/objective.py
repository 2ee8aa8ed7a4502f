"""Noise in, loss out: what the denoiser is asked and how its answer is weighed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lorafactory.families import Base, Family, Schedule


def noise(shape: Sequence[int], generator: torch.Generator, offset: float = 0.0) -> Tensor:
    """Draw one picture's noise (c, h, w), each channel shifted by `offset` x one more draw (sd-scripts)."""
    drawn = torch.randn(tuple(shape), generator=generator)
    if offset > 0:
        drawn = drawn + offset * torch.randn((shape[0], 1, 1), generator=generator)
    return drawn


def timestep(schedule: Schedule, generator: torch.Generator) -> int:
    """Draw uniformly from all timesteps."""
    return int(torch.randint(0, schedule.num_timesteps, (), generator=generator))


def weights(schedule: Schedule, t: Tensor, gamma: float) -> Tensor:
    """Min-SNR weights (n,) (Hang et al. 2023, arXiv 2303.09556); 0 is off.

    min(snr, gamma) / snr where the model answers with the noise, / (snr + 1) where with v.
    """
    if gamma <= 0:
        return torch.ones(t.shape, device=t.device)
    snr = schedule.snr(t)
    divisor = snr + 1 if schedule.prediction_type == "v_prediction" else snr
    return torch.minimum(snr, torch.full_like(snr, gamma)) / divisor


def loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted squared error of each picture (n,): the mean over its cells, then its weight."""
    return (prediction.float() - target.float()).pow(2).mean(dim=(1, 2, 3)) * weight


def ask(
    family: Family,
    base: Base,
    *,
    clean: Tensor,
    noise: Tensor,
    t: Tensor,
    conditioning: Mapping[str, Tensor],
    weight: Tensor,
) -> Tensor:
    """Loss of each picture (n,): add the noise, ask the model, compare with what it was taught to answer."""
    noisy = base.schedule.add_noise(clean, noise, t)
    prediction = family.predict(base, noisy, t, conditioning)
    return loss(prediction, base.schedule.target(clean, noise, t), weight)
