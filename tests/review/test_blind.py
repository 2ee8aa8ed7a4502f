"""The ranking of a blind comparison: fair in what is shown, right about known strengths, honest about chance."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest

from lorafactory.errors import InputError
from lorafactory.review.blind import Answer, Pair, Sitting, apart, fitted, ranking, won


def columns(count: int, spots: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "save": f"anna-{i}.safetensors",
            "label": f"epoch {i + 1}",
            "sha256": f"{i}",
            "cells": [{"prompt": 0, "seed": seed, "file": f"cells/{i}-{seed}.png"} for seed in range(spots)],
        }
        for i in range(count)
    ]


def sat(saves: list[dict[str, Any]], strengths: list[float], rounds: int, seed: int) -> Sitting:
    """A sitting by somebody who prefers by chance, in proportion to the strengths."""
    found, chance = Sitting.begin(saves, ["a star"], seed), random.Random(seed)
    for _ in range(rounds - 1):
        found.round()
    while pair := found.pair:
        left, right = strengths[pair.left], strengths[pair.right]
        found.answer(len(found.answers), "left" if chance.random() < left / (left + right) else "right")
    return found


def test_every_two_saves_meet_once_a_round_at_a_spot_that_both_have() -> None:
    saves = columns(5)
    saves[1]["cells"] = saves[1]["cells"][:1]
    saves[2]["cells"][0]["file"] = None
    found = Sitting.begin(saves, ["a star"], 1)
    met = [frozenset((p.left, p.right)) for p in found.pairs]
    assert len(met) == len(set(met)) == math.comb(5, 2) - 1  # two of them share no spot
    found.round()
    for pair in found.pairs:
        files = [found.file(name) for name in pair.names]
        assert files == [f"cells/{i}-{pair.seed}.png" for i in (pair.left, pair.right)]
    again = {(frozenset((p.left, p.right)), p.seed) for p in found.pairs if 1 not in (p.left, p.right)}
    assert len(again) == 2 * math.comb(4, 2)  # the second round shows others
    names = [name for p in found.pairs for name in p.names]
    assert len(set(names)) == len(names)


def test_sides_and_order_are_drawn() -> None:
    firsts = {tuple(sorted((p.left, p.right))) for s in range(40) for p in Sitting.begin(columns(4), [""], s).pairs[:1]}
    assert len(firsts) == math.comb(4, 2)
    lefts = [p.left < p.right for s in range(100) for p in Sitting.begin(columns(4), [""], s).pairs]
    assert 0.42 < np.mean(lefts) < 0.58


def test_nothing_to_compare_is_said() -> None:
    for saves in ([], columns(1), [{**c, "cells": []} for c in columns(3)]):
        with pytest.raises(InputError, match="nothing can be compared"):
            Sitting.begin(saves, [""])


def test_an_answer_counts_once() -> None:
    found = Sitting.begin(columns(3), [""], 1)
    for number in (0, 0, 5, -1):
        found.answer(number, "left")
    assert found.answers == ["left"]


def test_known_strengths_are_found() -> None:
    strengths = [1.0, 2.0, 4.0, 8.0]
    found = sat(columns(4), strengths, 200, 3)
    rows = {row["label"]: row for row in found.document("now")["ranking"]}
    told = [rows[f"epoch {i + 1}"]["strength"] for i in range(4)]
    for (a, b), (x, y) in zip(itertools.pairwise(told), itertools.pairwise(strengths), strict=True):
        assert b - a == pytest.approx(math.log(y / x), abs=0.25)
    assert all(row["error"] < 0.2 for row in rows.values())


def test_errors_are_as_large_as_chance_makes_them() -> None:
    """Over many sittings strengths and their differences scatter as is said."""
    found = [sat(columns(3), [1, 2, 2], 12, seed) for seed in range(150)]
    told = [fitted(won(3, list(zip(one.pairs, one.answers, strict=True)))) for one in found]
    scatter, said = np.std([s[0] for s, _ in told]), np.mean([math.sqrt(c[0, 0]) for _, c in told])
    assert 0.8 < scatter / said < 1.2
    scatter, said = np.std([s[0] - s[1] for s, _ in told]), np.mean([apart(c, 0, 1) for _, c in told])
    assert 0.8 < scatter / said < 1.2


def test_saves_that_are_not_clearly_apart_stand_together() -> None:
    groups = [sat(columns(2), [1, 1], 6, seed).document("")["words"] for seed in range(60)]
    assert np.mean([" then " in words for words in groups]) < 0.45  # one standard error: a third by chance
    clear = sat(columns(3), [1, 40, 1600], 6, 2).document("")
    assert clear["words"] == "epoch 3, then epoch 2, then epoch 1 (18 choices)"
    assert [row["group"] for row in clear["ranking"]] == [1, 2, 3]


def test_who_always_won_is_not_infinitely_strong_and_same_is_half_a_win() -> None:
    pair = Pair(0, 1, 0, 0, ("a", "b"))
    answers: list[tuple[Pair, Answer]] = [(pair, "left")] * 5
    strengths, shared = fitted(won(2, answers))
    assert strengths[0] > 0 > strengths[1] and np.isfinite(shared).all() and apart(shared, 0, 1) > 0
    first, second = ranking(columns(2), [(pair, "same")] * 4)
    assert (first["wins"], first["of"], second["wins"]) == (2.0, 4.0, 2.0)
    assert first["strength"] == pytest.approx(0) == second["strength"]
