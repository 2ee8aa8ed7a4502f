"""Noise in, loss out: what the denoiser is asked and how its answer is weighed.

FORMULAS is the one table of everything that a setting can change here, each entry with its source. `snr` is
abar / (1 - abar) of a timestep, the signal-to-noise ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lorafactory.families import Base, Family, Schedule
from lorafactory.training.randomness import uniform
from lorafactory.training.settings import TrainSettings

Source = Callable[[str], torch.Generator]
"""A generator for one picture's draw, by the name of what is drawn."""
CAP = 1000.0
"""Largest ratio that debiased weights tell apart: near timestep 0 it has no bound."""


@dataclass(frozen=True)
class Formula:
    """One formula, where it stands in the order of things, and where it is from."""

    stage: str
    """`noise`, `input`, `error`, `border`, `weight` or `mask`."""
    compute: Callable[..., Tensor]
    source: str


# ---------------------------------------------------------------- noise, input: (noise, clean, settings, source)


def _offset(noise: Tensor, clean: Tensor, s: TrainSettings, source: Source) -> Tensor:
    """noise + max(o + k |mean of the channel|, 0) * one draw per channel."""
    strength = s.noise_offset * (uniform(source("noise_offset_strength")) if s.noise_offset_random else 1)
    means = clean.mean(dim=(1, 2), keepdim=True).abs()
    shift = (strength + s.adaptive_noise_scale * means).clamp(min=0)
    return noise + shift * torch.randn((noise.shape[0], 1, 1), generator=source("noise_offset"))


def _multires(noise: Tensor, clean: Tensor, s: TrainSettings, source: Source) -> Tensor:
    """Noise + sum of discount^i * (noise of 1/r^i the size, enlarged), r from 2 to 4, brought back to deviation 1."""
    draw = source("multires")
    channels, height, width = noise.shape
    for i in range(s.multires_iterations):
        ratio = (2 + 2 * uniform(draw)) ** i
        small = (max(1, int(height / ratio)), max(1, int(width / ratio)))
        layer = torch.randn((1, channels, *small), generator=draw)
        noise = noise + interpolate(layer, size=(height, width), mode="bilinear")[0] * s.multires_discount**i
        if 1 in small:
            break
    return noise / noise.std()


def _perturbed(noise: Tensor, clean: Tensor, s: TrainSettings, source: Source) -> Tensor:
    """Return what is added to the picture: noise + gamma * another draw; the answer stays `noise`."""
    strength = s.ip_noise_gamma * (uniform(source("ip_noise_strength")) if s.ip_noise_gamma_random else 1)
    return noise + strength * torch.randn(noise.shape, generator=source("ip_noise"))


# ---------------------------------------------------------------- border: (snr, t as a share of all, settings)


def _border_snr(snr: Tensor, share: Tensor, s: TrainSettings) -> Tensor:
    """(1 - c) / (1 + sigma)^2 + c, sigma = sqrt((1 - abar) / abar)."""
    return (1 - s.huber_c) / (1 + snr.rsqrt()) ** 2 + s.huber_c


def _border_exponential(snr: Tensor, share: Tensor, s: TrainSettings) -> Tensor:
    """Return c^(t / T) * scale: the scale at first, c times as much at the end."""
    return torch.exp(math.log(s.huber_c) * share) * s.huber_scale


def _border_constant(snr: Tensor, share: Tensor, s: TrainSettings) -> Tensor:
    return torch.full_like(snr, s.huber_c * s.huber_scale)


# ---------------------------------------------------------------- weight: (snr, whether the model answers v, settings)


def _min_snr(snr: Tensor, v: bool, s: TrainSettings) -> Tensor:
    """min(snr, gamma) / snr where the model answers with the noise, / (snr + 1) where with v."""
    return snr.clamp(max=s.min_snr_gamma) / (snr + 1 if v else snr)


def _debiased(snr: Tensor, v: bool, s: TrainSettings) -> Tensor:
    """1 / sqrt(snr) where the model answers with the noise, 1 / (snr + 1) where with v."""
    capped = snr.clamp(max=CAP)
    return 1 / (capped + 1) if v else capped.rsqrt()


def _v_like_noise(snr: Tensor, v: bool, s: TrainSettings) -> Tensor:
    """Return snr / (snr + 1), by which the squared error of v becomes that of the noise."""
    capped = snr.clamp(max=CAP)
    return capped / (capped + 1)


SCRIPTS = "sd-scripts library/custom_train_functions.py: "
UTIL = "sd-scripts library/train_util.py: "
FORMULAS: Mapping[str, Formula] = {
    # the settings of their names switch these on, and they act in this order
    "noise_offset": Formula("noise", _offset, SCRIPTS + "apply_noise_offset"),
    "multires_iterations": Formula("noise", _multires, SCRIPTS + "pyramid_noise_like"),
    "ip_noise_gamma": Formula("input", _perturbed, "arXiv 2301.11706; " + UTIL + "get_noise_noisy_latents_and_..."),
    # `loss` chooses one: (difference, border)
    "l2": Formula("error", lambda d, c: d.pow(2), "mean squared error"),
    "l1": Formula("error", lambda d, c: d.abs(), "mean absolute error"),
    "huber": Formula("error", lambda d, c: 2 * c * ((d.pow(2) + c**2).sqrt() - c), UTIL + "conditional_loss"),
    "smooth_l1": Formula("error", lambda d, c: 2 * ((d.pow(2) + c**2).sqrt() - c), UTIL + "conditional_loss"),
    # `huber_schedule` chooses one
    "snr": Formula("border", _border_snr, UTIL + "get_huber_threshold_if_needed"),
    "exponential": Formula("border", _border_exponential, UTIL + "get_huber_threshold_if_needed"),
    "constant": Formula("border", _border_constant, UTIL + "get_huber_threshold_if_needed"),
    # (error of each cell, mask)
    "masked_loss": Formula("mask", lambda error, mask: error * mask, SCRIPTS + "apply_masked_loss"),
    "min_snr_gamma": Formula("weight", _min_snr, "arXiv 2303.09556; " + SCRIPTS + "apply_snr_weight"),
    "debiased": Formula("weight", _debiased, "arXiv 2310.08442; " + SCRIPTS + "apply_debiased_estimation"),
    "scale_v_pred_loss": Formula("weight", _v_like_noise, SCRIPTS + "scale_v_prediction_loss_like_noise_prediction"),
}


def switched_on(stage: str, s: TrainSettings) -> Iterator[Formula]:
    """The formulas of a stage whose settings are on."""
    return (f for name, f in FORMULAS.items() if f.stage == stage and getattr(s, name))


# ---------------------------------------------------------------- what training asks


def timestep(schedule: Schedule, s: TrainSettings, generator: torch.Generator) -> int:
    """Draw uniformly from `min_timestep` up to and without `max_timestep`."""
    last = min(s.max_timestep, schedule.num_timesteps)
    return int(torch.randint(min(s.min_timestep, last - 1), last, (), generator=generator))


def noise(clean: Tensor, s: TrainSettings, source: Source) -> Tensor:
    """Draw the noise (c, h, w) of one picture's latents, on the CPU."""
    drawn = torch.randn(clean.shape, generator=source("noise"))
    for formula in switched_on("noise", s):
        drawn = formula.compute(drawn, clean, s, source)
    return drawn


def entered(noise: Tensor, clean: Tensor, s: TrainSettings, source: Source) -> Tensor:
    """Draw the noise that is really added to one picture: that which is asked for, unless it is perturbed."""
    for formula in switched_on("input", s):
        noise = formula.compute(noise, clean, s, source)
    return noise


def weights(schedule: Schedule, t: Tensor, s: TrainSettings) -> Tensor:
    """Weight of each picture's timestep (n,), ones where nothing is on."""
    snr, v = schedule.snr(t), schedule.prediction_type == "v_prediction"
    weight = torch.ones(t.shape, device=t.device)
    for formula in switched_on("weight", s):
        weight = weight * formula.compute(snr, v, s)
    return weight


def loss(
    prediction: Tensor, target: Tensor, schedule: Schedule, t: Tensor, s: TrainSettings, mask: Tensor | None = None
) -> Tensor:
    """Weighted error of each picture (n,): of its cells (c, h, w), times its mask (1, h, w), the mean."""
    border = FORMULAS[s.huber_schedule].compute(schedule.snr(t), t / schedule.num_timesteps, s)
    difference = prediction.float() - target.float()
    error = FORMULAS[s.loss].compute(difference, border[:, None, None, None].to(difference.device))
    if mask is not None:
        error = FORMULAS["masked_loss"].compute(error, mask)
    return error.mean(dim=(1, 2, 3)) * weights(schedule, t, s).to(error.device)


def ask(
    family: Family,
    base: Base,
    *,
    clean: Tensor,
    noise: Tensor,
    t: Tensor,
    conditioning: Mapping[str, Any],
    entered: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the model's answer to latents with noise (n, c, h, w), and what it was taught to answer."""
    noisy = base.schedule.add_noise(clean, noise if entered is None else entered, t)
    return family.predict(base, noisy, t.to(base.device), conditioning), base.schedule.target(clean, noise, t)
