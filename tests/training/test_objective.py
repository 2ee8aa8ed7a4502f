"""Noise, targets, errors and weights against their formulas, each against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from lorafactory.families import get
from lorafactory.families._ddpm import Ddpm
from lorafactory.training import objective
from lorafactory.training.objective import FORMULAS
from lorafactory.training.randomness import generator, uniform
from lorafactory.training.settings import TrainSettings

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
T = torch.tensor([0, 17, 250, 600, 999])
SNR = torch.tensor([4.0])  # abar 0.8, sigma 0.5
NOISE = torch.randn(2, 4, 4, generator=generator(1))
CLEAN = torch.stack([torch.full((4, 4), -2.0), torch.full((4, 4), 1.0)])


def source(stream: str) -> torch.Generator:
    return generator(0, stream)


def with_(**values: Any) -> TrainSettings:
    return TrainSettings.model_validate(values)


def error(name: str) -> list[float]:
    """Of differences 3 and 0 at the border 4, whose hypotenuse is 5."""
    return FORMULAS[name].compute(torch.tensor([3.0, 0.0]), torch.tensor(4.0)).tolist()


def border(name: str) -> list[float]:
    """At snr 4 and half of all timesteps."""
    s = with_(huber_c=0.1, huber_scale=2.0)
    return FORMULAS[name].compute(SNR, torch.tensor([0.5]), s).tolist()


def weight(name: str, snr: float = 4.0, **values: Any) -> list[float]:
    """For a model that answers with the noise, and for one that answers with v."""
    s = with_(**values)
    return [float(FORMULAS[name].compute(torch.tensor([snr]), v, s)) for v in (False, True)]


def added(name: str, **values: Any) -> list[float]:
    """What comes to each channel's noise, in units of what was drawn for it."""
    found = FORMULAS[name].compute(NOISE, CLEAN, with_(**values), source) - NOISE
    shape = (2, 1, 1) if name == "noise_offset" else NOISE.shape
    drawn = torch.randn(shape, generator=source("noise_offset" if name == "noise_offset" else "ip_noise"))
    return (found / drawn).mean(dim=(1, 2)).tolist()


def masked(error: list[float], mask: list[float]) -> list[float]:
    return FORMULAS["masked_loss"].compute(torch.tensor(error), torch.tensor(mask)).tolist()


def multires(iterations: int, picture: Tensor = NOISE) -> Tensor:
    return FORMULAS["multires_iterations"].compute(
        picture, picture, with_(multires_iterations=iterations, multires_discount=0.5), source
    )


def first_layer() -> Tensor:
    """With one iteration: the noise and one more draw of its size, brought to deviation 1."""
    draw = source("multires")
    uniform(draw)  # the ratio, which counts from the second on
    both = NOISE + torch.randn(NOISE.shape, generator=draw)
    return both / both.std()


BY_HAND: dict[str, list[tuple[Callable[[], Any], Any]]] = {
    "l2": [(lambda: error("l2"), [9, 0])],
    "l1": [(lambda: error("l1"), [3, 0])],
    "huber": [(lambda: error("huber"), [8, 0])],  # 2 * 4 * (5 - 4)
    "smooth_l1": [(lambda: error("smooth_l1"), [2, 0])],  # 2 * (5 - 4)
    "snr": [(lambda: border("snr"), [0.5])],  # 0.9 / 1.5^2 + 0.1
    "exponential": [(lambda: border("exponential"), [0.6324555])],  # sqrt(0.1) * 2
    "constant": [(lambda: border("constant"), [0.2])],
    "masked_loss": [(lambda: masked([6.0, 8.0], [0.5, 0.0]), [3, 0])],
    "min_snr_gamma": [
        (lambda: weight("min_snr_gamma", min_snr_gamma=1), [1 / 4, 1 / 5]),
        (lambda: weight("min_snr_gamma", min_snr_gamma=5), [4 / 4, 4 / 5]),
    ],
    "debiased": [
        (lambda: weight("debiased"), [1 / 2, 1 / 5]),
        (lambda: weight("debiased", 1e6), [0.0316228, 1 / 1001]),  # the ratio counts up to 1000
    ],
    "scale_v_pred_loss": [
        (lambda: weight("scale_v_pred_loss"), [4 / 5, 4 / 5]),
        (lambda: weight("scale_v_pred_loss", 1e6), [1000 / 1001] * 2),
    ],
    "noise_offset": [
        (lambda: added("noise_offset", noise_offset=0.1), [0.1, 0.1]),
        (lambda: added("noise_offset", noise_offset=0.1, adaptive_noise_scale=0.05), [0.2, 0.15]),  # means -2 and 1
        (lambda: added("noise_offset", noise_offset=0.1, adaptive_noise_scale=-0.06), [0.0, 0.04]),  # not below 0
        (
            lambda: added("noise_offset", noise_offset=0.1, noise_offset_random=True),
            [0.1 * uniform(source("noise_offset_strength"))] * 2,
        ),
    ],
    "multires_iterations": [
        (lambda: multires(1).tolist(), first_layer().tolist()),
        (lambda: float(multires(6).std()), 1.0),
        # of 4 pixels a half or less is 1, and the layer of 1 pixel is the last
        (lambda: multires(10).tolist(), multires(2).tolist()),
        (lambda: multires(2).equal(multires(1)), False),
    ],
    "ip_noise_gamma": [
        (lambda: added("ip_noise_gamma", ip_noise_gamma=0.1), [0.1, 0.1]),
        (
            lambda: added("ip_noise_gamma", ip_noise_gamma=0.1, ip_noise_gamma_random=True),
            [0.1 * uniform(source("ip_noise_strength"))] * 2,
        ),
    ],
}


@pytest.mark.parametrize("name", FORMULAS)
def test_each_formula(name: str) -> None:
    for found, wanted in BY_HAND[name]:
        torch.testing.assert_close(torch.tensor(found()), torch.tensor(wanted), check_dtype=False, rtol=1e-4, atol=1e-5)
    assert FORMULAS[name].source


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_and_target_are_those_of_diffusers(kind: str) -> None:
    ours, theirs = Ddpm({**SD, "prediction_type": kind}, "base"), DDPMScheduler(**SD, prediction_type=kind)
    clean = torch.randn(5, 4, 3, 2, generator=generator(1))
    noise = torch.randn(5, 4, 3, 2, generator=generator(2))
    torch.testing.assert_close(ours.add_noise(clean, noise, T), theirs.add_noise(clean, noise, T))
    target = noise if kind == "epsilon" else theirs.get_velocity(clean, noise, T)
    torch.testing.assert_close(ours.target(clean, noise, T), target)


def test_weights_of_a_schedule() -> None:
    noise, velocity = Ddpm(SD, "base"), Ddpm({**SD, "prediction_type": "v_prediction"}, "base")
    abar = DDPMScheduler(**SD).alphas_cumprod[T]
    snr = abar / (1 - abar)
    torch.testing.assert_close(noise.snr(T), snr)
    s = with_(min_snr_gamma=5)
    torch.testing.assert_close(objective.weights(noise, T, s), snr.clamp(max=5) / snr)
    torch.testing.assert_close(objective.weights(velocity, T, s), snr.clamp(max=5) / (snr + 1))
    assert objective.weights(noise, T, with_()).tolist() == [1] * 5
    # what is on together is multiplied
    both = objective.weights(velocity, T, with_(min_snr_gamma=5, scale_v_pred_loss=True))
    capped = snr.clamp(max=1000)
    torch.testing.assert_close(both, snr.clamp(max=5) / (snr + 1) * capped / (capped + 1))


def test_every_loss_is_finite_where_all_is_noise() -> None:
    schedule = Ddpm({**SD, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, "base")
    assert float(schedule.snr(T)[-1]) == 0
    ones = torch.ones(5, 4, 3, 3)
    for loss in ("l2", "l1", "huber", "smooth_l1"):
        for huber in ("snr", "exponential", "constant"):
            s = with_(loss=loss, huber_schedule=huber, min_snr_gamma=5, debiased=True, scale_v_pred_loss=True)
            assert objective.loss(ones, 2 * ones, schedule, T, s).isfinite().all()


def test_loss_is_a_mean_per_picture_times_mask_and_weight() -> None:
    schedule = Ddpm(SD, "base")
    ones, t = torch.ones(2, 4, 3, 3), torch.tensor([600, 600])
    assert objective.loss(ones * 3, ones, schedule, t, with_()).tolist() == [4.0, 4.0]
    mask = torch.stack([torch.ones(1, 3, 3), torch.tensor([[[1.0, 0.5, 0.0]] * 3])])
    assert objective.loss(ones * 3, ones, schedule, t, with_(), mask).tolist() == [4.0, 2.0]
    weight = float(objective.weights(schedule, t, with_(debiased=True))[0])
    assert objective.loss(ones * 3, ones, schedule, t, with_(debiased=True)).tolist() == pytest.approx([4 * weight] * 2)


def test_perturbed_noise_is_added_but_not_asked_for() -> None:
    base = get("sd15").tiny()
    base.schedule = Ddpm(SD, "base")
    clean, noise = torch.zeros(1, 4, 8, 8), torch.randn(1, 4, 8, 8, generator=generator(3))
    entered = objective.entered(noise[0], clean[0], with_(ip_noise_gamma=0.3), source)[None]
    seen: list[Tensor] = []

    class Spy:
        @staticmethod
        def predict(base: Any, noisy: Tensor, t: Tensor, conditioning: Any) -> Tensor:
            seen.append(noisy)
            return noisy

    told = {"clean": clean, "noise": noise, "t": torch.tensor([999]), "conditioning": {}}
    _, target = objective.ask(Spy, base, **told, entered=entered)  # type: ignore[arg-type]
    assert torch.equal(target, noise) and not torch.equal(entered, noise)
    torch.testing.assert_close(seen[0], base.schedule.add_noise(clean, entered, torch.tensor([999])))


def test_timesteps_cover_what_they_may() -> None:
    schedule = Ddpm(SD, "base")

    def drawn(**values: Any) -> list[int]:
        return [objective.timestep(schedule, with_(**values), generator(0, "timestep", i)) for i in range(2000)]

    whole = drawn()
    assert min(whole) < 10 and max(whole) > 989
    assert 450 < sum(whole) / len(whole) < 550
    part = drawn(min_timestep=200, max_timestep=210)
    assert set(part) == set(range(200, 210))
