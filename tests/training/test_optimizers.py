"""The course of the learning rate, and one rate for each part of a base."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lorafactory.training import optimizers
from lorafactory.training.settings import TrainSettings


def test_polynomial_falls_to_nothing_for_every_group_alike() -> None:
    s = TrainSettings(scheduler="polynomial", power=2, warmup=2)
    groups = [(1e-3, [nn.Parameter(torch.zeros(1))]), (1e-5, [nn.Parameter(torch.zeros(1))])]
    optimizer = optimizers.make("adamw", {}, groups)
    schedule = optimizers.schedule(optimizer, s, 6)
    rates = []
    for _ in range(7):
        rates.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step()
    # up over two steps, then (1 - k / 4)^2
    shares = [0, 1 / 2, 1, 9 / 16, 4 / 16, 1 / 16, 0]
    assert [rate[0] for rate in rates] == pytest.approx([1e-3 * share for share in shares])
    assert [rate[1] for rate in rates] == pytest.approx([1e-5 * share for share in shares])


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, {"unet": 1e-4}),
        ({"text_encoder_lr": 1e-5}, {"unet": 1e-4, "text_encoder": 1e-5, "text_encoder_2": 1e-5}),
        ({"text_encoder_lr": 1e-5, "text_encoder_2_lr": 0.0}, {"unet": 1e-4, "text_encoder": 1e-5}),
        ({"text_encoder_2_lr": 2e-6}, {"unet": 1e-4, "text_encoder_2": 2e-6}),
    ],
)
def test_each_part_has_its_own_rate(values: dict[str, float], wanted: dict[str, float]) -> None:
    parts = ("unet", "text_encoder", "text_encoder_2")
    assert TrainSettings.model_validate(values).rates(parts) == wanted
    assert TrainSettings.model_validate(values).rates(parts[:1]) == {"unet": 1e-4}
