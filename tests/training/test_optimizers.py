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


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_every_optimizer_goes_down_and_keeps_as_much_as_it_says(name: str) -> None:
    weight = nn.Parameter(torch.ones(64, 128))
    optimizer = optimizers.make(name, {}, [(1.0 if optimizers.is_adaptive(name) else 1e-2, [weight])])
    for _ in range(30):
        optimizer.zero_grad()
        torch.autograd.backward(weight.square().sum())
        optimizer.step()
    assert float(weight.detach().square().mean()) < 1 - 1e-6
    held = [x for x in torch.utils._pytree.tree_leaves(optimizer.state_dict()["state"]) if isinstance(x, torch.Tensor)]
    kept = sum(x.numel() * x.element_size() for x in held if x.numel() > 300)
    assert kept / weight.numel() == pytest.approx(optimizers.entry(name).state, rel=0.1, abs=0.1)


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("prodigy", {"d_coef": 2.0, "betas": [0.9, 0.99]}, None),
        ("Prodigy", {"warm": 1}, "does not take warm. It takes: betas, beta3"),
        ("torch.optim.RMSprop", {"alpha": 0.9}, None),
        ("torch.optim.RMSprop", {"alfa": 0.9}, "does not take alfa"),
        ("torch.optim.Nothing", {}, "no Nothing in torch.optim"),
        ("nowhere.Adam", {}, "needs the package nowhere"),
        ("torch.nn.Linear", {}, "is no optimizer"),
        ("adamx", {}, "no optimizer 'adamx'. Known: adafactor, adamw"),
        ("auto", {"weight_decay": 0.1}, None),
    ],
)
def test_names_and_arguments_are_looked_at_before_a_model_loads(name: str, args: dict[str, object], told: str) -> None:
    found = optimizers.check(name, args, "cosine")
    assert found == [] if told is None else len(found) == 1 and told in found[0]


def test_an_optimizer_that_finds_its_rate_wants_one_and_a_single_one() -> None:
    def said(**values: object) -> tuple[list[str], list[str]]:
        s = TrainSettings.model_validate(values)
        return optimizers.check_rates(s), optimizers.remarks(s)

    assert said(optimizer="prodigy", lr=1.0) == said(optimizer="adamw", text_encoder_lr=1e-5) == ([], [])
    assert said(optimizer="prodigy", lr=1.0, text_encoder_lr=1.0) == ([], [])
    assert "1 is meant" in said(optimizer="prodigy", lr=1e-4)[1][0]
    assert "1e-4 is usual" in said(optimizer="lion", lr=1.0)[1][0]
    assert "text_encoder_lr = 0, or 1.0" in said(optimizer="Prodigy", lr=1.0, text_encoder_lr=0.5)[0][0]
    assert "no *_lr_weight" in said(optimizer="dadaptation", lr=1.0, up_lr_weight="sine")[0][0]
    assert "warmup = 0" in said(optimizer="dadaptsgd", lr=1.0, warmup=0.1)[0][0]


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
