"""The memory a training will need, counted against what is really there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lorafactory import families
from lorafactory.families import Base
from lorafactory.training import adapter, footprint, memory
from lorafactory.training.plan import Example, plan
from lorafactory.training.randomness import generator
from lorafactory.training.settings import TrainSettings
from tests.training.conftest import Draw

FAMILIES = ("sd15", "sdxl")


def held(base: Base) -> int:
    return sum(p.numel() * p.element_size() for m in (*base.parts.values(), base.vae) for p in m.parameters())


@pytest.fixture
def shown(draw: Draw, tmp_path: Path) -> list[Example]:
    return draw(tmp_path)


def prepared(name: str, s: TrainSettings) -> tuple[Base, int]:
    """A base with an adapter in it, and how many numbers that has."""
    family = families.get(name)
    base = family.tiny()
    parts = list(s.rates(base.parts))
    made = adapter.attach(
        family, base, kind=s.network, settings=s, parts=parts, generator=lambda name: generator(0, name)
    )
    return base, sum(p.numel() for part in parts for p in made.parameters(part))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_added_to_the_weights(quick: TrainSettings, shown: list[Example], name: str) -> None:
    base, numbers = prepared(name, quick)
    weights = held(base) - 4 * numbers
    plain, again = footprint.ACTIVATIONS[name]
    counted = plan(shown, quick)
    pixels = 40 * 40 * quick.batch  # of the largest bucket

    def rest(s: TrainSettings = quick, base: Base = base) -> float:
        return footprint.estimate(base, s, counted) - weights - footprint.PROCESS

    assert rest(quick.model_copy(update={"optimizer": "adamw"})) == pytest.approx(numbers * 16 + 1.4 * plain * pixels)
    assert rest(quick.model_copy(update={"optimizer": "adamw8bit"})) == pytest.approx(
        numbers * 10 + 1.4 * plain * pixels
    )
    low = replace(base, dtype=torch.bfloat16)
    memory.recompute(low, on=True)
    eight = quick.model_copy(update={"optimizer": "adamw8bit"})
    assert rest(eight, low) == pytest.approx(numbers * 10 + again * pixels)
    assert 0 < again < plain


def test_encoders_that_leave_the_card_are_not_counted(quick: TrainSettings, shown: list[Example]) -> None:
    base = replace(families.get("sdxl").tiny(), device=torch.device("cuda"))
    away = quick.model_copy(update={"cache_text": True})
    counted = plan(shown, quick)
    texts = sum(p.numel() * 4 for name, m in base.parts.items() if name != "unet" for p in m.parameters())
    assert footprint.estimate(base, quick, counted) - footprint.estimate(base, away, counted) == pytest.approx(texts)


def test_the_peak_never_falls_and_sees_what_is_taken() -> None:
    base = families.get("sd15").tiny()
    before = footprint.peak(base)
    taken = torch.ones(int(before) // 4)  # as much again: more than was held
    after = footprint.peak(base)
    assert after >= before + 1e6 and taken.numel()
    del taken
    assert footprint.peak(base) >= after
