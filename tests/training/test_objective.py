"""Noise, targets and weights against their formulas."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from lorafactory.errors import BaseError
from lorafactory.families._ddpm import Ddpm
from lorafactory.training import objective
from lorafactory.training.randomness import generator

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
T = torch.tensor([0, 17, 250, 600, 999])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_and_target_are_those_of_diffusers(kind: str) -> None:
    ours, theirs = Ddpm({**SD, "prediction_type": kind}, "base"), DDPMScheduler(**SD, prediction_type=kind)
    clean = torch.randn(5, 4, 3, 2, generator=generator(1))
    noise = torch.randn(5, 4, 3, 2, generator=generator(2))
    torch.testing.assert_close(ours.add_noise(clean, noise, T), theirs.add_noise(clean, noise, T))
    target = noise if kind == "epsilon" else theirs.get_velocity(clean, noise, T)
    torch.testing.assert_close(ours.target(clean, noise, T), target)


def test_min_snr_weights() -> None:
    noise, velocity = Ddpm(SD, "base"), Ddpm({**SD, "prediction_type": "v_prediction"}, "base")
    abar = DDPMScheduler(**SD).alphas_cumprod[T]
    snr = abar / (1 - abar)
    torch.testing.assert_close(noise.snr(T), snr)
    torch.testing.assert_close(objective.weights(noise, T, 5), snr.clamp(max=5) / snr)
    torch.testing.assert_close(objective.weights(velocity, T, 5), snr.clamp(max=5) / (snr + 1))
    assert objective.weights(noise, T, 0).tolist() == [1] * 5


def test_zero_terminal_snr() -> None:
    config = {**SD, "rescale_betas_zero_snr": True}
    assert float(Ddpm({**config, "prediction_type": "v_prediction"}, "base").snr(T)[-1]) == 0
    with pytest.raises(BaseError, match="needs v_prediction"):
        Ddpm(config, "base")
    with pytest.raises(BaseError, match="'flow'"):
        Ddpm({**SD, "prediction_type": "flow"}, "base")


def test_the_offset_shifts_whole_channels() -> None:
    plain = objective.noise((4, 8, 8), generator(3))
    shift = objective.noise((4, 8, 8), generator(3), 0.1) - plain
    assert shift.flatten(1).std(dim=1).max() < 1e-6
    assert shift[:, 0, 0].abs().min() > 1e-4


def test_loss_is_a_mean_per_picture_times_its_weight() -> None:
    found = objective.loss(torch.ones(2, 4, 3, 3) * 3, torch.ones(2, 4, 3, 3), torch.tensor([1.0, 0.5]))
    assert found.tolist() == [4.0, 2.0]


def test_timesteps_cover_the_schedule() -> None:
    schedule = Ddpm(SD, "base")
    drawn = [objective.timestep(schedule, generator(0, "timestep", i)) for i in range(2000)]
    assert min(drawn) < 10 and max(drawn) > 989
    assert 450 < sum(drawn) / len(drawn) < 550
