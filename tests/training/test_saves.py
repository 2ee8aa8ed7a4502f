"""When there is a save or a sample, which saves stay, and what they are called."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorafactory.training.saves import START, Point, kept, label, points, sampled, saved, stem
from lorafactory.training.settings import TrainSettings


def steps(found: tuple[Point, ...]) -> list[int]:
    return [point.step for point in found]


def test_saves_go_by_epochs_or_by_steps() -> None:
    assert saved(TrainSettings(), 3, 10) == ((1, 10), (2, 20), (3, 30))
    assert saved(TrainSettings(save_every_epochs=2), 3, 10) == ((2, 20), (3, 30))
    assert saved(TrainSettings(save_every_steps=12), 3, 10) == ((2, 12), (3, 24), (3, 30))
    assert saved(TrainSettings(save_at=(15, 20, 25)), 3, 10) == ((2, 15), (2, 20), (3, 25), (3, 30))
    assert steps(saved(TrainSettings(save_at=(5,), save_every_steps=20), 3, 10)) == [5, 20, 30]
    # of seed 002: the end is saved too, and what lies after it is not
    assert steps(saved(TrainSettings(save_at=(1500, 2000, 2500)), 1, 2200)) == [1500, 2000, 2200]


def test_samples_begin_with_the_base_and_are_off_unless_asked_for() -> None:
    assert sampled(TrainSettings(), 3, 10) == ()
    assert sampled(TrainSettings(sample_every_epochs=2), 3, 10) == (START, (2, 20), (3, 30))
    assert sampled(TrainSettings(sample_every_steps=15), 3, 10) == (START, (2, 15), (3, 30))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 50), st.integers(0, 60), st.sets(st.integers(1, 500)))
def test_points_are_in_order_within_the_training_and_end_with_it(
    epochs: int, each: int, every: int, at: set[int]
) -> None:
    found = points(epochs, each, every=every, at=at)
    assert steps(found) == sorted(set(steps(found))) and found[-1] == (epochs, epochs * each)
    assert all((p.epoch - 1) * each < p.step <= p.epoch * each for p in found)
    wanted = {s for s in range(1, epochs * each) if s in at or (every and s % every == 0)}
    assert set(steps(found)) == wanted | {epochs * each}


@pytest.mark.parametrize(("keep", "stay"), [(0, "abcde"), (1, "ae"), (2, "ade"), (4, "abcde"), (9, "abcde")])
def test_the_first_save_and_the_last_ones_stay(keep: int, stay: str) -> None:
    assert "".join(kept("abcde", keep)) == stay


def test_names_are_kohyas() -> None:
    assert stem("anna", Point(4, 400), ends_epoch=True) == "anna-000004"
    assert stem("anna", Point(4, 1500), ends_epoch=False) == "anna-step00001500"
    assert [label(Point(4, 1500), ends_epoch=ends) for ends in (True, False)] == ["epoch 4", "step 1500"]
