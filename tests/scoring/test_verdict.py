"""The verdict's properties: no copy wins, no order matters, gates hold, and abstention says which way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lorafactory.scoring import artefacts, likeness, memorisation
from lorafactory.scoring.diversity import diversity
from lorafactory.scoring.verdict import Scores, Thresholds, Verdict, Yardstick, decide, lead, standing

YARD = Yardstick(ceiling=0.8, diversity=0.2)
FLOORS = {"floor": 0.4, "fit_floor": 0.3, "diversity_floor": 0.4}


def save(
    order: int, like: float, *, spread: float = 0.0, seeds: Sequence[int] = (0, 1, 2, 3), **other: float
) -> Scores:
    """Two prompts; the spread over seeds turns from save to save, so that differences between saves have it too."""
    cells = {(p, s): like + spread * (-1) ** (s // (1 + order % 2)) for p in (0, 1) for s in seeds}
    told = {"fit": 0.3, "diversity": 0.3, **FLOORS, **other}
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
    # the error of the difference is 0.04 / sqrt(8) = 0.014
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


def test_fit_is_not_asked_beyond_the_sets_own() -> None:
    """What is like no other of its class fits the words for it badly, in the training pictures too."""
    strange = replace(YARD, fit=0.2)
    assert decide([save(1, 0.6, fit=0.19)], strange).passed
    assert "90% of the set's" in decide([save(1, 0.6, fit=0.17)], strange).reason


def test_nothing_learned_is_undertrained_and_the_best_is_named() -> None:
    verdict = decide([save(1, 0.42), save(2, 0.45), save(3, 0.44)], YARD)
    assert (verdict.kind, verdict.passed, verdict.pick) == ("undertrained", False, "x-000002.safetensors")
    assert "train for more epochs" in verdict.reason


def test_a_training_that_learned_a_little_at_once_and_nothing_since_is_overtrained() -> None:
    """Half-way to the threshold, it climbs or it does not."""
    flat = [save(1, 0.46), save(2, 0.45), save(3, 0.46)]
    assert decide(flat, YARD).kind == "overtrained"
    assert decide([*flat, save(4, 0.47)], YARD).kind == "undertrained"
    assert decide([save(1, 0.43), save(2, 0.43)], YARD).kind == "undertrained"  # next to nothing was learned
    assert decide(flat[:1], YARD).kind == "undertrained"


def test_what_dropped_out_wins_nothing_by_the_few_pictures_it_has() -> None:
    lucky = save(3, 0.9, seeds=(0,))
    table = [save(1, 0.7), save(2, 0.72)]
    assert picked(*table, lucky) == 3
    out = replace(lucky, dropped="likeness 0.1 below that of epoch 2")
    verdict = decide([*table, out], YARD)
    assert (verdict.pick, verdict.rejected) == ("x-000002.safetensors", {out.save: out.dropped})
    assert picked(save(1, 0.3), out) == 3  # nothing else passes


def test_half_lost_again_is_overtrained_and_a_dip_is_not() -> None:
    """Of what was learned since the first save."""
    climbed = [save(1, 0.41), save(2, 0.475)]
    assert decide([*climbed, save(3, 0.46)], YARD).kind == "undertrained"
    assert decide([*climbed, save(3, 0.42)], YARD).kind == "overtrained"


def test_what_few_pictures_show_has_to_be_sure() -> None:
    """0.5 is a quarter of the way; a fifth is needed."""
    assert decide([save(1, 0.5, error=0.01)], YARD).passed
    doubtful = decide([save(1, 0.5, error=0.03)], YARD)
    assert doubtful.kind == "undertrained" and "25% ± 8% of the way" in doubtful.reason


def test_broken_at_the_end_is_overtrained_and_the_least_broken_is_named() -> None:
    verdict = decide([save(1, 0.42), save(2, 0.7, fit=0.2), save(3, 0.7, fit=0.1, copies=0.5)], YARD)
    assert (verdict.kind, verdict.passed) == ("overtrained", False)
    assert verdict.pick == "x-000001.safetensors"
    assert "lower learning rate" in verdict.reason


def test_prompts_are_ignored_only_where_pictures_show_it() -> None:
    low = save(1, 0.7, fit=0.25)  # of 0.27 that are needed
    assert decide([replace(low, fit_error=0.03)], YARD).passed
    assert "fit 0.250 ± 0.010, 0.270 needed" in decide([replace(low, fit_error=0.01)], YARD).reason


def test_what_dropped_out_and_is_all_that_passes_is_not_called_rejected() -> None:
    early = [replace(save(i, 0.6 + i / 100), dropped="below that of epoch 3") for i in (1, 2)]
    verdict = decide([*early, save(3, 0.8, copies=0.5)], YARD)
    assert (verdict.pick, verdict.passed) == ("x-000002.safetensors", True)
    assert list(verdict.rejected) == ["x-000003.safetensors"]
    assert "seen in 8 pictures only" in verdict.reason


def test_without_a_way_from_floor_to_ceiling_gain_is_no_gate() -> None:
    nonsense = Yardstick(ceiling=0.6, diversity=0.4)
    assert decide([save(1, 0.1, floor=0.7, fit=-0.2, fit_floor=-0.1, diversity_floor=None)], nonsense).passed


def test_it_says_when_likeness_was_still_rising() -> None:
    assert "more epochs may help" in decide([save(1, 0.5), save(2, 0.7)], YARD).reason
    assert "more epochs" not in decide([save(1, 0.7), save(2, 0.7)], YARD).reason


def test_it_says_when_likeness_fell_again_and_is_sure() -> None:
    assert "fallen again, by 0.100 ± 0.000" in decide([save(1, 0.7), save(2, 0.6)], YARD).reason
    assert "fallen" not in decide([save(1, 0.7, spread=0.3), save(2, 0.6, spread=0.3)], YARD).reason


def test_a_verdict_is_the_same_every_time() -> None:
    table = [save(i, 0.5 + i / 50, spread=0.05) for i in range(1, 6)]
    first: Verdict = decide(table, YARD)
    assert all(decide(table, YARD) == first for _ in range(3))


def test_saves_are_held_against_each_other_where_both_were_drawn() -> None:
    """The later save was drawn on, on easier prompts: what it gains there says nothing about the earlier one."""
    early, late = save(1, 0.70, spread=0.02), save(2, 0.66, spread=0.02)
    on = replace(late, likeness=late.likeness | {(2, seed): 0.95 for seed in range(8)})
    assert on.mean > early.mean
    assert decide([early, on], YARD).pick == early.save
    assert lead(early, on) == lead(early, late)
    apart = replace(late, likeness={(5, 1): 0.9})
    assert lead(early, apart)[1] == float("inf")


@pytest.mark.parametrize(
    ("table", "rate", "line"),
    [
        ([save(1, 0.42)], 1e-4, "lora train anna --more 3 && lora make anna"),
        ([save(1, 0.7, fit=0.1)], 1e-4, "lora make anna --set train.lr=5e-05"),
        ([save(1, 0.7, fit=0.1)], 1.0, "lora make anna --set train.save_every_epochs=1"),
        ([save(1, 0.7)], 1e-4, None),
    ],
)
def test_what_to_type_next(table: list[Scores], rate: float, line: str | None) -> None:
    assert decide(table, YARD, name="anna", rate=rate).next == line
    spoiled = decide(table, YARD, name="a $(id)", rate=rate).next
    assert spoiled == (line and line.replace("anna", "'a $(id)'"))


# ---------------------------------------------------------------- between the stages


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tables, st.randoms(use_true_random=False))
def test_two_stay_and_the_order_does_not_matter(table: list[Scores], rng) -> None:
    out = standing(table, YARD)
    assert len(table) - len(out) >= min(2, len(table))
    assert standing(rng.sample(table, len(table)), YARD) == out


def test_what_is_far_behind_or_broken_drops_out() -> None:
    table = [save(1, 0.50), save(2, 0.70, spread=0.02), save(3, 0.69), save(4, 0.75, artefacts=9), save(5, 0.69)]
    out = standing(table, YARD)
    assert set(out) == {"x-000001.safetensors", "x-000004.safetensors"}
    assert out["x-000001.safetensors"].startswith("likeness 0.200 ± ")
    assert out["x-000004.safetensors"].startswith("artefacts: 9.0")


def test_what_has_not_learned_yet_drops_out_by_being_behind_and_not_where_all_have_not() -> None:
    limits = Thresholds(gain=0.9)
    alike = [save(n, 0.5, spread=0.1) for n in (1, 2, 3, 4)]
    assert all("not learned" in why for why in decide(alike, YARD, limits).rejected.values())
    assert standing(alike, YARD, limits) == {}
    assert set(standing([*alike[:2], save(4, 0.7), save(6, 0.7)], YARD, limits)) == {s.save for s in alike[:2]}


def test_one_copy_in_four_pictures_drops_nobody_yet() -> None:
    table = [save(1, 0.70), save(2, 0.70, copies=0.25), save(3, 0.70, copies=0.5)]
    assert set(standing(table, YARD)) == {"x-000003.safetensors"}
    assert set(decide(table, YARD).rejected) == {"x-000002.safetensors", "x-000003.safetensors"}


# ---------------------------------------------------------------- the measures it rests on


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_diversity_is_a_mean_over_pairs() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(5, 7)))
    pairs = [rows[i] @ rows[j] for i in range(5) for j in range(5) if i != j]
    assert diversity(rows) == pytest.approx(1 - np.mean(pairs))
    assert diversity(rows[:1]) is None


def parts(*pictures: Sequence[int]) -> np.ndarray:
    """Pictures of parts that have nothing in common, by number."""
    return np.eye(8)[np.array(pictures)]


def test_likeness_counts_the_parts_that_the_base_does_not_draw() -> None:
    training, base = parts([0, 1, 2], [0, 1, 3]), parts([0, 4, 5])
    own = likeness.own_parts(training, base)
    assert own == pytest.approx(np.array([[0, 0.5, 0.5], [0, 0.5, 0.5]]), abs=1e-6)
    found = likeness.matches(parts([1, 2, 7], [0, 0, 0], [1, 1, 1]), training, own)
    assert found == pytest.approx(np.array([[1, 0.5], [0, 0], [0.5, 0.5]]), abs=1e-6)
    assert likeness.likeness(found) == pytest.approx([1, 0, 0.5], abs=1e-6)
    assert likeness.itself(likeness.matches(training, training, own)) == pytest.approx(0.5, abs=1e-6)


def test_parts_that_are_all_drawn_count_alike() -> None:
    training = parts([0, 1], [2, 3])
    assert likeness.own_parts(training, training) == pytest.approx(0.5)
    assert likeness.itself(np.eye(1)) == 1.0


def test_one_part_is_a_plain_cosine_to_the_nearest() -> None:
    rows = unit(np.random.default_rng(1).normal(size=(9, 5)))
    drawn, training = rows[:4, None], rows[4:, None]
    found = likeness.matches(drawn, training, likeness.own_parts(training, drawn))
    assert found == pytest.approx(rows[:4] @ rows[4:].T)
    assert likeness.likeness(found) == pytest.approx(found.max(axis=1), abs=1e-6)


def test_the_error_is_that_of_the_mean() -> None:
    scores = np.random.default_rng(2).normal(size=40)
    assert likeness.standard_error(scores) == pytest.approx(scores.std() / np.sqrt(40), rel=0.05)
    assert likeness.standard_error(np.array([0.2])) == pytest.approx(0)


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
