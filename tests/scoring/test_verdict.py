"""The verdict's properties: no copy wins, no order matters, gates hold, and abstention says which way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lorafactory.scoring import artefacts, likeness, memorisation
from lorafactory.scoring.diversity import diversity
from lorafactory.scoring.verdict import Scores, Thresholds, Verdict, Yardstick, decide

YARD = Yardstick(floor=0.4, ceiling=0.8, fit=0.3, diversity=0.4, set_diversity=0.2)


def save(order: int, like: float, *, spread: float = 0.0, **other: float) -> Scores:
    cells = tuple(tuple(like + spread * sign for sign in (-1, 1, -1, 1)) for _ in range(2))
    told = {"fit": 0.3, "diversity": 0.3, **other}
    return Scores(f"x-{order:06}.safetensors", order, f"epoch {order}", cells, **told)


def picked(*table: Scores, limits: Thresholds | None = None) -> int:
    return int(decide(table, YARD, limits).pick[2:8])


numbers = st.floats(0, 1, allow_nan=False)
tables = st.lists(
    st.builds(
        lambda like, spread, fit, div, copies, odd: save(
            0, like, spread=spread / 10, fit=fit, diversity=div, copies=copies, artefacts=odd * 5
        ),
        *[numbers] * 6,
    ),
    min_size=1,
    max_size=7,
).map(
    lambda found: [
        replace(s, save=f"x-{i:06}.safetensors", order=2 * i, label=f"epoch {i}") for i, s in enumerate(found, 1)
    ]
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_files_never_matters(table: list[Scores], rng) -> None:
    shuffled = rng.sample(table, len(table))
    assert decide(shuffled, YARD) == decide(table, YARD)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tables, st.data())
def test_an_exact_copy_never_wins_over_the_earlier_save(table: list[Scores], data) -> None:
    original = data.draw(st.sampled_from(table))
    later = data.draw(st.integers(original.order, table[-1].order)) + 1
    copy = replace(original, save=f"{data.draw(st.sampled_from('az'))}-copy.safetensors", order=later, label="copy")
    before, after = decide(table, YARD), decide([*table, copy], YARD)
    assert after.pick != copy.save
    assert (after.pick, after.passed) == (before.pick, before.passed)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tables)
def test_a_save_that_fails_is_picked_only_if_all_fail(table: list[Scores]) -> None:
    verdict = decide(table, YARD)
    assert verdict.passed == (len(verdict.rejected) < len(table))
    assert (verdict.pick in verdict.rejected) != verdict.passed
    assert (verdict.kind is None) == verdict.passed
    assert verdict.runner_up != verdict.pick


def test_the_earliest_within_one_standard_error_of_the_best() -> None:
    # the error of the best is 0.04 / sqrt(8) = 0.014
    table = [save(1, 0.60), save(2, 0.689), save(3, 0.70, spread=0.04), save(4, 0.695)]
    assert picked(*table) == 2
    assert picked(*table, limits=Thresholds(errors=0)) == 3
    verdict = decide(table, YARD)
    assert verdict.runner_up == "x-000003.safetensors"
    assert verdict.reason.startswith("epoch 2: likeness 0.689, within one standard error of the best (epoch 3, 0.700")


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"fit": 0.26}, "ignores prompts"),
        ({"diversity": 0.13}, "seeds look alike"),
        ({"copies": 0.25}, "copies training pictures"),
        ({"artefacts": 3.1}, "artefacts"),
    ],
)
def test_a_gate_stops_the_best_likeness(fault: dict[str, float], word: str) -> None:
    verdict = decide([save(1, 0.6), save(2, 0.75, **fault)], YARD)
    assert (verdict.pick, verdict.passed, verdict.kind) == ("x-000001.safetensors", True, None)
    assert verdict.rejected["x-000002.safetensors"].startswith(word)
    assert "Rejected: epoch 2" in verdict.reason


def test_thresholds_are_settings() -> None:
    table = [save(1, 0.6), save(2, 0.75, fit=0.2, diversity=0.0, copies=1.0, artefacts=9.0)]
    off = Thresholds(fit=0, diversity=0, copies=1, artefacts=1000, gain=0)
    assert (picked(*table), picked(*table, limits=off)) == (1, 2)


def test_diversity_is_not_asked_beyond_the_sets_own() -> None:
    assert decide([save(1, 0.6, diversity=0.15)], YARD).passed  # 70 % of the set's 0.2, not of the baseline's 0.4


def test_nothing_learned_is_undertrained_and_the_best_is_named() -> None:
    verdict = decide([save(1, 0.42), save(2, 0.45), save(3, 0.44)], YARD)
    assert (verdict.kind, verdict.passed, verdict.pick) == ("undertrained", False, "x-000002.safetensors")
    assert "train for more epochs" in verdict.reason


def test_broken_at_the_end_is_overtrained_and_the_least_broken_is_named() -> None:
    verdict = decide([save(1, 0.42), save(2, 0.7, fit=0.2), save(3, 0.7, fit=0.1, copies=0.5)], YARD)
    assert (verdict.kind, verdict.passed) == ("overtrained", False)
    assert verdict.pick == "x-000001.safetensors"
    assert "lower learning rate" in verdict.reason


def test_without_a_way_from_floor_to_ceiling_gain_is_no_gate() -> None:
    nonsense = Yardstick(floor=0.7, ceiling=0.6, fit=-0.1, diversity=None, set_diversity=0.4)
    assert decide([save(1, 0.1, fit=-0.2)], nonsense).passed


def test_it_says_when_likeness_was_still_rising() -> None:
    assert "more epochs may help" in decide([save(1, 0.5), save(2, 0.7)], YARD).reason
    assert "more epochs" not in decide([save(1, 0.7), save(2, 0.7)], YARD).reason


def test_a_verdict_is_the_same_every_time() -> None:
    table = [save(i, 0.5 + i / 50, spread=0.05) for i in range(1, 6)]
    first: Verdict = decide(table, YARD)
    assert all(decide(table, YARD) == first for _ in range(3))


# ---------------------------------------------------------------- the measures it rests on


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_ceiling_and_diversity_are_means_over_pairs() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(5, 7)))
    pairs = [rows[i] @ rows[j] for i in range(5) for j in range(5) if i != j]
    assert likeness.ceiling(rows) == pytest.approx(np.mean(pairs))
    assert diversity(rows) == pytest.approx(1 - np.mean(pairs))
    assert diversity(rows[:1]) is None
    assert likeness.likeness(rows, rows[:2]) == pytest.approx((rows @ rows[:2].T).mean(axis=1))


def test_the_error_comes_from_the_seeds_and_not_from_the_prompts() -> None:
    assert likeness.standard_error(np.array([[0.2, 0.2], [0.9, 0.9]])) == pytest.approx(0)
    rows = np.array([[0.1, 0.3, 0.1, 0.3], [0.5, 0.7, 0.5, 0.7]])
    assert likeness.standard_error(rows) == pytest.approx(0.1 / np.sqrt(8), rel=0.1)


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((48, 48), Image.Resampling.NEAREST)
        for _ in range(count)
    ]


def encode(images: list[Image.Image]) -> np.ndarray:
    """A stand-in for CLIP that does not see mirroring: mean colours of rows."""
    return unit(np.stack([np.asarray(i.resize((1, 6), Image.Resampling.BOX), float).ravel() for i in images]))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_cloned_training_picture_is_a_copy_also_when_mirrored(mirrored: bool) -> None:
    training, fresh = pictures(12), pictures(6, seed=1)
    known = memorisation.gallery(training, encode)
    clone = training[4].transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else training[4]
    drawn = [*fresh, clone.resize((40, 40))]
    found = memorisation.nearest(known, memorisation.limits(known), encode(drawn), memorisation.coarse(drawn))
    assert [n.copy for n in found] == [False] * 6 + [True]
    assert (found[-1].index, found[-1].mirrored) == (4, mirrored)


def test_a_double_in_the_set_does_not_hide_copies() -> None:
    training = pictures(12)
    known = memorisation.gallery([*training, training[3], training[5]], encode)
    found = memorisation.nearest(
        known, memorisation.limits(known), encode(training[:1]), memorisation.coarse(training[:1])
    )
    assert found[0].copy
    alone = memorisation.gallery(training[:1], encode)
    assert memorisation.limits(alone) == memorisation.Limits(1.0, 1.0)


def test_noise_and_flatness_are_odd_and_more_of_the_same_is_not() -> None:
    known, base = artefacts.features(pictures(12), 48), artefacts.features(pictures(12, 1), 48)
    noise = Image.fromarray(np.random.default_rng(2).integers(0, 255, (48, 48, 3), dtype=np.uint8))
    odd = artefacts.oddness(
        artefacts.features([noise, Image.new("RGB", (48, 48), "gray"), *pictures(6, 3)], 48), known, base
    )
    assert odd[0] > 3
    assert odd[1] > 3
    assert odd[2:].mean() < 2
