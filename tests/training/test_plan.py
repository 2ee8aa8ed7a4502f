"""The plan counts exactly; what is wrong is said at once."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lorafactory.errors import InputError, SettingsError
from lorafactory.training.order import batches
from lorafactory.training.plan import Example, check, plan
from lorafactory.training.settings import TrainSettings
from tests.training.conftest import change

SETTINGS = TrainSettings(resolution=96, bucket_step=32, min_bucket=32, max_bucket=192)


def example(name: str, width: int = 96, height: int = 96, repeats: int = 1) -> Example:
    return Example(name, Path(f"12_zqx/{name}"), name, "zqx", repeats, width, height)


def test_every_bucket_ends_with_a_batch_of_its_own() -> None:
    examples = [example(f"{i}.png", repeats=3) for i in range(3)] + [example("wide.png", 192, 64, repeats=2)]
    found = plan(examples, change(SETTINGS, batch=4, epochs=5, gradient_accumulation=2, save_every_epochs=2))
    assert found.per_bucket == {(96, 32): 2, (96, 96): 9}
    assert (found.images, found.samples, found.batches_per_epoch) == (4, 11, 3 + 1)
    assert (found.steps_per_epoch, found.steps, found.saves) == (2, 10, ((2, 4), (4, 8), (5, 10)))
    assert str(found) == "4 images x 2.8 repeats x 5 epochs / batch 4 = 10 steps, 3 saves, 2 buckets"


def test_the_plan_of_seed_003() -> None:
    examples = [example(f"{i}.png", 512, 512, 12) for i in range(32)]
    found = plan(examples, TrainSettings(epochs=16, batch=2))
    assert found.steps == 3072
    assert str(found) == "32 images x 12 repeats x 16 epochs / batch 2 = 3072 steps, 16 saves, 1 bucket"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(40, 300), st.integers(40, 300), st.integers(0, 4)), min_size=1, max_size=9),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_batches_are_what_was_counted(
    shapes: list[tuple[int, int, int]], batch: int, accumulation: int, epochs: int
) -> None:
    examples = [example(f"{i}.png", w, h, r) for i, (w, h, r) in enumerate(shapes)]
    chosen = change(SETTINGS, batch=batch, gradient_accumulation=accumulation, epochs=epochs, bucket_upscale=True)
    if not sum(e.repeats for e in examples):
        with pytest.raises(InputError, match="0 repeats"):
            plan(examples, chosen)
        return
    found = plan(examples, chosen)
    for epoch in range(1, epochs + 1):
        made = batches(found, examples, chosen, epoch)
        assert len(made) == found.batches_per_epoch
        assert math.ceil(len(made) / accumulation) * epochs == found.steps
        assert all(1 <= len(b) <= batch and len({item.fit.bucket for item in b}) == 1 for b in made)
        seen = Counter(item.example.name for b in made for item in b)
        assert seen == Counter({e.name: e.repeats for e in examples if e.repeats})


def test_regularisation_pictures_are_shown_as_often_as_all_others() -> None:
    """Kohya's rule, worked out by hand: own repeats in order until there are enough, then one more each in turn."""

    def times(trained: int, *repeats: int) -> list[int]:
        reg = [replace(example(f"reg/{i}.png", repeats=r), reg=True) for i, r in enumerate(repeats)]
        found = plan([example("a.png", repeats=trained), *reg], SETTINGS)
        assert (found.images, found.reg_samples) == (1, sum(found.times.values()) - trained)
        return [found.times[e.name] for e in reg]

    assert times(10, 1, 1, 1) == [4, 3, 3]
    assert times(10, 2, 2, 1) == [4, 4, 2]
    assert times(3, 1, 1, 1, 1) == [1, 1, 1, 0]  # more than are needed: the rest is not shown
    assert times(5, 4, 4) == [4, 4]
    assert times(4, 0, 1) == [0, 4]
    reg = replace(example("reg/0.png", repeats=1), reg=True)
    found = plan([example("a.png", repeats=6), reg], SETTINGS)
    assert str(found).startswith("1 images x 6 repeats and 6 of regularisation x 6 epochs / batch 2 = 36 steps")
    with pytest.raises(InputError, match="no picture"):
        plan([reg], SETTINGS)


def test_max_steps_leaves_whole_epochs_out() -> None:
    ten = [example("a.png", repeats=10)]  # 5 steps an epoch
    found = plan(ten, change(SETTINGS, epochs=9, max_steps=24, save_every_epochs=3))
    assert (found.epochs, found.steps, found.saves) == (4, 20, ((3, 15), (4, 20)))
    assert plan(ten, change(SETTINGS, epochs=2, max_steps=24)).steps == 10
    with pytest.raises(SettingsError, match="max_steps 4 is less than one epoch, which has 5 steps"):
        plan(ten, change(SETTINGS, max_steps=4))


def test_the_text_cache_is_refused_with_what_it_would_switch_off() -> None:
    able = {"caption_dropout": 0.1, "caption_dropout_every": 3, "cache_text": True}
    assert check(change(SETTINGS, **able)) == []
    turned_off = {"shuffle_captions": True, "tag_dropout": 0.1, "token_warmup": 9, "wildcards": True}
    for name, value in {**turned_off, "text_encoder_lr": 1e-4, "text_encoder_2_lr": 1e-4}.items():
        (said,) = check(change(SETTINGS, cache_text=True, **{name: value}))
        assert said.startswith("cache_text encodes each caption once") and name in said
    assert len(check(change(SETTINGS, cache_text=True, **turned_off))) == 4


def test_a_mask_has_the_shape_of_its_picture(tmp_path: Path) -> None:
    Image.new("L", (30, 20)).save(tmp_path / "mask.png")
    for width, height in ((300, 200), (301, 200)):  # of any size
        plan([replace(example("a.png", width, height), mask=tmp_path / "mask.png")], SETTINGS)
    with pytest.raises(InputError, match=r"mask\.png: 30x20 is another shape than its picture's 200x300"):
        plan([replace(example("a.png", 200, 300), mask=tmp_path / "mask.png")], SETTINGS)


def test_the_order_changes_with_the_epoch_and_the_seed_only() -> None:
    examples = [example(f"{i}.png", repeats=2) for i in range(8)]
    found = plan(examples, SETTINGS)

    def order(epoch: int, seed: int = 0) -> list[str]:
        made = batches(found, examples, change(SETTINGS, seed=seed), epoch)
        return [item.example.name for b in made for item in b]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != order(1, seed=1)


def test_all_that_is_wrong_is_said_at_once() -> None:
    wrong = {"bucket_step": 100, "min_bucket": 200, "min_timestep": 500, "max_timestep": 500}
    wrong["adaptive_noise_scale"] = 0.1
    with pytest.raises(SettingsError) as raised:
        plan([example("a.png")], change(SETTINGS, **wrong))
    for word in (
        "bucket_step must be a multiple of 8",
        "resolution 96 is below",
        "min_bucket 200 is above",
        "min_timestep 500 must be below",
        "noise_offset is 0",
    ):
        assert word in str(raised.value)
    with pytest.raises(InputError) as raised_input:
        plan([example("a.png", 20, 900), example("b.png"), example("b.png"), example("c.png", 5, 5)], SETTINGS)
    for word in ("a.png", "'b.png'", "c.png"):
        assert word in str(raised_input.value)
    with pytest.raises(InputError, match="no picture"):
        plan([], SETTINGS)
