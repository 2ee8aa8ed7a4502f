"""The discrete diffusion schedule (Ho et al. 2020, arXiv 2006.11239), from diffusers' scheduler settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from lorafactory.families._inspect import refuse

# What these schedulers share and what decides training; the rest is about sampling.
FIELDS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)


class Ddpm:
    """Adds noise, and says what the model was taught to answer: the noise, or the velocity."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        settings = {name: config[name] for name in FIELDS if name in config}
        self.prediction_type: str = settings.get("prediction_type", "epsilon")
        scheduler = DDPMScheduler(**settings)
        self.num_timesteps: int = scheduler.config.num_train_timesteps
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod
        refuse(where, self.prediction_type, zero_snr=float(self.alphas_cumprod[-1]) == 0)

    def _signal_noise(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar) and sqrt(1 - abar), shaped (n, 1, 1, 1)."""
        abar = self.alphas_cumprod[t.cpu()].to(like.device, torch.float32)[:, None, None, None]
        return abar.sqrt(), (1 - abar).sqrt()

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self._signal_noise(t, latents)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The noise, or v = sqrt(abar) noise - sqrt(1 - abar) x (Salimans & Ho 2022, arXiv 2202.00512)."""
        if self.prediction_type == "epsilon":
            return noise
        signal, sigma = self._signal_noise(t, latents)
        return signal * noise - sigma * latents

    def snr(self, t: Tensor) -> Tensor:
        """abar / (1 - abar) for each timestep (n,)."""
        abar = self.alphas_cumprod[t.cpu()].to(t.device, torch.float32)
        return abar / (1 - abar)
