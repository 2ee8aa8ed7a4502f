"""The verdict where the truth is known, in small: `tests/bench/bench_verdict.py` without trainings.

What a save draws is drawn by the world itself: in a given share of the pictures the thing, in another share a training
picture again, else the class that the base knows. The eyes are the real ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorafactory.encoders import clip
from lorafactory.pocket import MODELS, world
from lorafactory.pocket.concepts import CONCEPTS, Concept
from lorafactory.pocket.demo import colours
from lorafactory.scoring.evidence import evidence
from lorafactory.scoring.eyes import Eyes
from lorafactory.scoring.prompts import Prompt
from lorafactory.scoring.table import Drawn, TrainingSet, measure
from lorafactory.scoring.verdict import Thresholds, Verdict, decide

TRAINED, OTHERS = colours()
PAIRS = [TRAINED[0], *OTHERS[:4]]
SEEDS = range(1, 5)
PROMPTS: list[Prompt] = [
    Prompt("d3mo", True, ""),
    *(
        Prompt(f"d3mo, {c} on {b}", True, f"a large {c} thing in front of a plain {b} background", group)
        for (c, b), group in zip(PAIRS, ("like", *["unlike"] * 4), strict=True)
    ),
]
NONE = (0.0,) * 6
REGIMES = {
    "short": ((0.0, 0.05, 0.1, 0.2, 0.35, 0.5), NONE),
    "right": ((0.3, 0.6, 0.8, 0.95, 1.0, 1.0), NONE),
    "long": ((0.8, 1.0, 1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.2, 0.5, 0.8, 1.0)),
    "double": ((0.5, 0.8, 0.3, 0.6, 0.4, 0.2), NONE),
}
"""Per save, in which share of the pictures the thing is, and in which a training picture."""
LIMITS = Thresholds(fit=0.8, diversity=0.3, gain=0.78)


@dataclass(frozen=True)
class Judged:
    regime: str
    truth: Sequence[float]
    verdict: Verdict
    highest: int

    @property
    def pick(self) -> int:
        return int(self.verdict.pick)

    def regret(self, save: int) -> float:
        return max(self.truth) - self.truth[save]

    @property
    def good(self) -> bool:
        """Within 0.05, or one standard error of a difference of 128 pictures."""
        shares = max(self.truth), self.truth[self.pick]
        return self.regret(self.pick) <= max(0.05, np.sqrt(sum(p * (1 - p) for p in shares) / 128))


def picture(
    thing: Concept, chance: tuple[float, float], spot: tuple[int, int], known: Sequence[Image.Image]
) -> Image.Image:
    """One cell: the same draws for every save, as with the same noise."""
    rng = random.Random(str(("cell", thing.name, *spot)))
    there, copied = rng.random(), rng.random()
    pair = PAIRS[spot[0] - 1] if spot[0] else rng.choice(TRAINED)
    if copied < chance[1]:
        return rng.choice(known)
    if there < chance[0]:
        return thing.draw(rng, *pair)
    return world.draw(world.Scene(thing.word, pair[0], "large", (pair[1],)), rng)


def judged(thing: Concept, regime: str, eyes: Eyes) -> Judged:
    rng = random.Random(thing.name)
    known = [thing.draw(rng, *pair) for pair in TRAINED]
    spots = [(prompt, seed) for seed in SEEDS for prompt in range(len(PROMPTS))]
    chances = list(zip(*REGIMES[regime], strict=True))
    columns = [
        [Drawn(*spot, picture(thing, chance, spot, known)) for spot in spots] for chance in [(0.0, 0.0), *chances]
    ]
    facts, rows = measure(columns, eyes, PROMPTS, TrainingSet([str(i) for i in range(len(known))], known))
    told: dict[str, Any] = {"prompts": [vars(p) for p in PROMPTS], "columns": rows, "set": facts, "strength": 1.0}
    for i, row in enumerate(rows):
        row |= {"save": str(i - 1) if i else None, "label": f"epoch {i}", "strength": float(i > 0), "base": "b"}
        row["cells"] = [{**cell, "file": "x"} for cell in row["cells"]]
    truth = [p * (1 - copied) for p, copied in chances]
    return Judged(regime, truth, decide(*evidence(told), LIMITS), int(np.argmax([r["clip_i"] for r in rows[1:]])))


@pytest.fixture(scope="module")
def found() -> list[Judged]:
    eyes = Eyes.load(*(f"{clip.FOLDER}{MODELS / name}" for name in ("clip", "dino")))
    return [judged(CONCEPTS[name], regime, eyes) for name in ("eyestar", "mug", "fish") for regime in REGIMES]


def of(found: Sequence[Judged], regime: str) -> Iterator[Judged]:
    return (one for one in found if one.regime == regime)


def test_most_picks_are_as_good_as_the_best_save(found: list[Judged]) -> None:
    assert sum(one.good for one in found) >= 10, [(o.regime, o.pick, o.truth) for o in found if not o.good]


def test_the_pick_is_better_than_the_last_save_and_than_the_highest_likeness(found: list[Judged]) -> None:
    mean = np.mean([one.regret(one.pick) for one in found])
    assert mean < np.mean([one.regret(5) for one in found])
    assert mean < np.mean([one.regret(one.highest) for one in found])


def test_what_went_on_too_long_is_not_picked_at_its_end(found: list[Judged]) -> None:
    assert all(one.pick < 5 for one in of(found, "long"))
    assert all("copies" in one.verdict.rejected["5"] for one in of(found, "long"))


def test_too_short_a_training_is_called_undertrained(found: list[Judged]) -> None:
    assert all(one.verdict.kind == "undertrained" for one in of(found, "short"))
    assert all(one.verdict.passed for one in of(found, "right"))
