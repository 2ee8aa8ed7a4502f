"""Which saves a person prefers without knowing which they are: pairs of pictures from the same noise, and a ranking.

Nothing that reaches the page tells a save: pictures go by drawn names, sides are drawn, and every save meets every
other. What was chosen gives each save a strength by the Bradley-Terry model: the chance that one is preferred to
another is its share of both strengths. Each save is given half a win and half a loss against a save of strength 1, so
one that always won is not infinitely strong. A standard error says how much of the order may be chance.
"""

from __future__ import annotations

import itertools
import math
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lorafactory.errors import InputError

Json = dict[str, Any]
Matrix = NDArray[np.float64]
Answer = Literal["left", "right", "same"]
ROUNDS = 200
"""Of the fixed-point iteration, which has settled long before."""


@dataclass(frozen=True)
class Pair:
    """Two cells from the same noise, by drawn names."""

    left: int
    """Which save, by its place among the saves."""
    right: int
    prompt: int
    seed: int
    names: tuple[str, str]


@dataclass
class Sitting:
    """One blind comparison, as far as it is; of each pair of saves one spot a round, until nobody asks for more."""

    saves: Sequence[Json]
    """Columns of scores.json."""
    prompts: Sequence[str]
    draw: random.Random
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    pairs: list[Pair] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @classmethod
    def begin(cls, saves: Sequence[Json], prompts: Sequence[str], seed: int | None = None) -> Sitting:
        """A sitting over these saves; InputError if there is nothing to choose between."""
        found = cls(saves, prompts, random.Random(secrets.randbits(64) if seed is None else seed))
        if not found.round():
            raise InputError("no two saves drew the same prompt from the same noise: nothing can be compared")
        return found

    def round(self) -> int:
        """Add a pair for every two saves that drew the same spot, in drawn order; return how many."""
        spots = [{(c["prompt"], c["seed"]): c["file"] for c in save["cells"] if c["file"]} for save in self.saves]
        added = []
        for a, b in itertools.combinations(range(len(self.saves)), 2):
            shared = sorted(spots[a].keys() & spots[b].keys())
            seen = {(p.prompt, p.seed) for p in self.pairs if {p.left, p.right} == {a, b}}
            fresh = [spot for spot in shared if spot not in seen] or shared
            if fresh:
                prompt, seed = self.draw.choice(fresh)
                left, right = (a, b) if self.draw.random() < 0.5 else (b, a)
                added.append(Pair(left, right, prompt, seed, (secrets.token_urlsafe(12), secrets.token_urlsafe(12))))
        self.draw.shuffle(added)
        self.pairs += added
        return len(added)

    @property
    def pair(self) -> Pair | None:
        """The one to be answered now."""
        return self.pairs[len(self.answers)] if len(self.answers) < len(self.pairs) else None

    def answer(self, number: int, answer: Answer) -> None:
        """Take the answer to a pair; one that was answered already, as by a key held down, counts once."""
        if number == len(self.answers) and self.pair is not None:
            self.answers.append(answer)

    def file(self, name: str) -> str | None:
        """The cell behind a drawn name."""
        for pair in self.pairs:
            if name in pair.names:
                save = self.saves[pair.left if name == pair.names[0] else pair.right]
                spot = (pair.prompt, pair.seed)
                return next((str(c["file"]) for c in save["cells"] if (c["prompt"], c["seed"]) == spot), None)
        return None

    def document(self, at: str) -> Json:
        """What is kept: every choice, and the ranking that follows."""
        answered = list(zip(self.pairs, self.answers, strict=False))
        names = [save["save"] for save in self.saves]
        choices = [
            {"prompt": p.prompt, "seed": p.seed, "left": names[p.left], "right": names[p.right], "chosen": answer}
            for p, answer in answered
        ]
        rows = ranking(self.saves, answered)
        words = in_words(rows, len(choices))
        return {"version": 1, "at": at, "words": words, "ranking": rows, "choices": choices}


def ranking(saves: Sequence[Json], answered: Sequence[tuple[Pair, Answer]]) -> list[Json]:
    """The saves, the most preferred first, with strength, its standard error (both as logarithms), and wins.

    `group` counts from 1: a save that is not clearly behind the first of a group belongs to it.
    """
    wins = won(len(saves), answered)
    strengths, shared = fitted(wins)
    order = sorted(range(len(saves)), key=lambda i: (-strengths[i], i))
    groups: list[int] = []
    first = 0
    for i in order:
        lead = order[first] if groups else i
        clear = bool(strengths[lead] - strengths[i] > apart(shared, lead, i))
        first = len(groups) if clear else first
        groups.append((groups[-1] if groups else 1) + clear)
    return [
        {
            "save": saves[i]["save"],
            "label": saves[i]["label"],
            "sha256": saves[i]["sha256"],
            "strength": round(float(strengths[i]), 4),
            "error": round(math.sqrt(shared[i, i]), 4),
            "group": group,
            "wins": float(wins[i].sum()),
            "of": float(wins[i].sum() + wins[:, i].sum()),
        }
        for i, group in zip(order, groups, strict=True)
    ]


def won(saves: int, answered: Sequence[tuple[Pair, Answer]]) -> Matrix:
    """How often each save was preferred to each other (n, n); `same` is half a win for both."""
    wins = np.zeros((saves, saves))
    for pair, answer in answered:
        for winner, loser, chosen in ((pair.left, pair.right, "left"), (pair.right, pair.left, "right")):
            wins[winner, loser] += 0.5 if answer == "same" else float(answer == chosen)
    return wins


def fitted(wins: Matrix) -> tuple[Matrix, Matrix]:
    """Logarithms of the strengths (n,) about their mean, and their covariance (n, n).

    By Hunter's iteration (Annals of Statistics 32, 2004). Only differences mean something, so the level goes.
    """
    met, strength = wins + wins.T, np.ones(len(wins))
    for _ in range(ROUNDS):
        against = met / (strength[:, None] + strength[None])
        strength = (wins.sum(1) + 0.5) / (against.sum(1) + 1 / (strength + 1))
    share = strength[:, None] / (strength[:, None] + strength[None])
    known = met * share * share.T
    own = strength / (1 + strength) ** 2  # the half win and half loss
    level = np.eye(len(wins)) - 1 / len(wins)
    shared = level @ np.linalg.inv(np.diag(known.sum(1) + own) - known) @ level
    return level @ np.log(strength), shared


def apart(shared: Matrix, one: int, other: int) -> float:
    """Standard error of the difference of two strengths."""
    return math.sqrt(max(0.0, shared[one, one] + shared[other, other] - 2 * shared[one, other]))


def in_words(rows: Sequence[Json], choices: int) -> str:
    """`epoch 4, then epoch 3 or epoch 5, then epoch 1`: those that are not clearly apart stand together."""
    groups = itertools.groupby(rows, key=lambda row: int(row["group"]))
    told = ", then ".join(" or ".join(str(row["label"]) for row in group) for _, group in groups)
    return f"{told} ({choices} choices)"
