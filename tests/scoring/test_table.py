"""The table: what a comparison says of its pictures, with unequal columns, planted copies and no effect at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lorafactory.scoring.evidence import evidence
from lorafactory.scoring.eyes import Eyes
from lorafactory.scoring.likeness import standard_error
from lorafactory.scoring.prompts import Prompt
from lorafactory.scoring.table import Drawn, TrainingSet, measure
from lorafactory.scoring.verdict import Thresholds, decide, standing

PROMPTS = [Prompt("x1", True, ""), Prompt("x1, a dog", True, "a dog", "unlike"), Prompt("a dog", False, "a dog")]
SPOTS = [(p, seed) for p in range(3) for seed in (1, 2, 3)]


def picture(kind: int, seed: int, *, noise: float = 40) -> Image.Image:
    """6 x 6 blocks; pictures of one kind are alike, as far as noise lets them."""
    blocks = np.random.default_rng(kind).uniform(40, 215, (6, 6, 3))
    blocks += np.random.default_rng([kind, seed]).normal(0, noise, blocks.shape)
    small = Image.fromarray(blocks.clip(0, 255).astype(np.uint8))
    return small.resize((48, 48), Image.Resampling.NEAREST)


class Coarse:
    """A stand-in for CLIP: colours of 3 x 3 blocks, of which it counts the pictures that it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def encode_images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        self.seen += len(pictures)
        rows = np.stack([np.asarray(p.resize((3, 3), Image.Resampling.BOX), float).ravel() for p in pictures]) - 128
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self.encode_images([picture(900 + len(text), 0) for text in texts])


KNOWN = TrainingSet([f"{i:04}.png" for i in range(8)], [picture(1, 100 + i) for i in range(8)])


def column(kind: int, spots: Sequence[tuple[int, int]] = SPOTS) -> list[Drawn]:
    return [Drawn(p, seed, picture(kind, 10 * p + seed)) for p, seed in spots]


def told(columns: Sequence[Sequence[Drawn]]) -> dict:
    """As compare writes it down, but for what the verdict does not read."""
    facts, rows = measure(columns, Eyes(Coarse()), PROMPTS, KNOWN)
    about = [
        {"save": f"x-{i:06}.safetensors" if i else None, "label": f"epoch {i}", "strength": float(i > 0), "base": "b"}
        for i in range(len(rows))
    ]
    for row in rows:
        row["cells"] = [{**cell, "file": "a.png"} for cell in row["cells"]]
    prompts = [{"trigger": p.trigger, "group": p.group} for p in PROMPTS]
    columns = [{**row, **words} for row, words in zip(rows, about, strict=True)]
    return {"strength": 1.0, "set": facts, "prompts": prompts, "columns": columns}


def test_likeness_lies_between_the_baseline_and_the_set_itself() -> None:
    facts, (base, near, far) = measure([column(7), column(1), column(8)], Eyes(Coarse()), PROMPTS, KNOWN)
    assert base["likeness"] == base["floor"] == facts["floor"] and base["gain"] == 0
    assert near["gain"] > 0.75 and far["gain"] < 0.5
    assert (base["leak"], base["drift"]) == (pytest.approx(0), pytest.approx(0, abs=1e-6))
    assert near["leak"] > 0.1 and near["drift"] > 0.1
    assert facts["eyes"] == "clip"
    fits = np.array([cell["fit"] for cell in far["cells"] if PROMPTS[cell["prompt"]].trigger], float)
    assert far["fit_error"] == pytest.approx(standard_error(fits[~np.isnan(fits)])) and far["fit_error"] > 0


def test_a_column_of_fewer_cells_is_held_against_the_baselines_same_cells() -> None:
    base, few = column(7), [(1, 2), (0, 1), (0, 2)]
    _, (whole, part, none) = measure([base, column(7, few), []], Eyes(Coarse()), PROMPTS, KNOWN)
    assert (part["gain"], part["fit"], part["diversity"]) == pytest.approx(
        (0, part["fit_floor"], part["diversity_floor"])
    )
    assert (part["leak"], part["drift"]) == (None, None)  # nothing without the trigger was drawn
    assert part["floor"] != whole["floor"]
    assert [(c["prompt"], c["seed"]) for c in part["cells"]] == few
    assert none["cells"] == [] and all(value is None for key, value in none.items() if key != "cells")


def test_pictures_are_seen_once_whatever_is_added() -> None:
    clip = Coarse()
    eyes = Eyes(clip)
    first = measure([column(7), column(1)], eyes, PROMPTS, KNOWN)
    before = clip.seen
    assert before == 2 * len(SPOTS) + 2 * len(KNOWN.images) + 1  # the set's mirror images and one text too
    again = measure([column(7), column(1), column(3)], eyes, PROMPTS, KNOWN)
    assert clip.seen == before + len(SPOTS)
    assert again[1][:2] == first[1]


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_planted_copy_of_a_training_picture_is_flagged(mirrored: bool) -> None:
    planted = ImageOps.mirror(KNOWN.images[5]) if mirrored else KNOWN.images[5]
    drawn = column(1)
    drawn[4] = Drawn(*SPOTS[4], planted.resize((40, 40)).resize((48, 48)))
    _, (_, row) = measure([column(7), drawn], Eyes(Coarse()), PROMPTS, KNOWN)
    cell = row["cells"][4]
    assert (cell["copy"], cell["nearest"], cell["mirrored"]) == (True, "0005.png", mirrored)
    unlike = [c["copy"] for c in row["cells"] if c["prompt"] == 1]  # only there copying is held against a save
    assert row["copies"] == pytest.approx(sum(unlike) / 3) and row["copies"] < 0.5
    copies = [Drawn(p, s, KNOWN.images[(3 * p + s) % 8]) for p, s in SPOTS]
    verdict = decide(*evidence(told([column(7), column(1), copies])), Thresholds(fit=0))
    assert told([column(7), copies])["columns"][1]["gain"] > 1
    without = evidence(told([column(7), copies]))[0][0]
    assert without.likeness[1, 1] < without.likeness[0, 1], "a copy where something else was asked for is no likeness"
    assert "copies training pictures: 100%" in verdict.rejected["x-000002.safetensors"]
    assert verdict.pick == "x-000001.safetensors"


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.integers(20, 60), min_size=1, max_size=3), st.integers(2, 90))
def test_without_an_effect_it_is_undertrained(noises: list[int], seed: int) -> None:
    """Saves that draw what the base draws, a little of noise aside, have learned nothing."""
    base = column(7)

    def same(strength: int) -> list[Drawn]:
        noise = np.random.default_rng(seed)
        return [
            Drawn(d.prompt, d.seed, Image.blend(d.picture, picture(int(noise.integers(50, 90)), 0), strength / 1000))
            for d in base
        ]

    found = told([base, *(same(n) for n in noises)])
    verdict = decide(*evidence(found), name="anna")
    assert (verdict.kind, verdict.passed) == ("undertrained", False)
    assert verdict.next is not None and verdict.next.startswith("lora train anna --more 3")


def test_a_copy_of_a_save_scores_the_same_and_does_not_win() -> None:
    columns = [column(7), column(8), column(1), column(1)]
    table, yardstick = evidence(told(columns))
    assert table[1].likeness == table[2].likeness
    no_fit = Thresholds(fit=0)  # the stand-in reads no texts
    assert decide(table, yardstick, no_fit).pick == "x-000002.safetensors"
    assert set(standing(table, yardstick, no_fit)) == {"x-000001.safetensors"}
