"""What CLIP says of pictures in words: how much better words fit than neutral ones, and how a set differs in that.

A cosine of a picture and a text says little by itself; the same words with and without the phrase in question do.
Where they cross is known roughly and differs between models, so a picture must also stand out from the set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorafactory import encoders
from lorafactory.step import Work
from lorafactory.steps._judging import robust_z

LEAST_MARGIN = 0.01
"""The least spread of a difference of cosines that a set is taken to have."""
LEAST_FIT = 0.03
"""The same for the cosine of a picture and its prompt."""
PICTURE = "a picture"
_WHOLE = re.compile(r"^(an?|the|one|two|photo|picture|image)\b", re.I)

Vector = NDArray[np.float64]
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """How words fit each picture of a set."""

    margins: Vector
    """Cosine to the words less cosine to the neutral ones."""
    z: Vector
    """The same in the set's own spreads from its middle."""


def neutral(work: Work) -> str:
    """What is weighed against: the class, as all pictures show it, or just a picture."""
    return f"a {work.recipe.header.class_}" if work.recipe.header.class_ else PICTURE


def is_whole(phrase: str) -> bool:
    """`a man with a hat`, and not `with a hat`."""
    return _WHOLE.match(phrase) is not None


def sentence(phrase: str, plain: str) -> str:
    """A phrase as CLIP is asked about it: `with a hat` after the neutral words, `a man with a hat` as it is."""
    return phrase if is_whole(phrase) else f"{plain} {phrase}"


def fit(work: Work, vectors: Rows, phrases: Sequence[str], plain: str) -> Fit:
    """How the best fitting of `phrases` fits each picture, against the neutral words `plain`; vectors are (n, d)."""
    texts = _read(work, [*(sentence(phrase, plain) for phrase in phrases), plain])
    cosines = vectors.astype(np.float64) @ texts.T
    margins = cosines[:, :-1].max(axis=1) - cosines[:, -1]
    return Fit(margins, robust_z(margins, LEAST_MARGIN))


def agreement(work: Work, vectors: Rows, prompts: Mapping[int, str]) -> dict[int, tuple[float, float]]:
    """Row of every generated picture to its cosine to its own prompt, and the same in spreads from their middle."""
    texts = _read(work, list(prompts.values()))
    cosines = (vectors[list(prompts)].astype(np.float64) * texts).sum(axis=1)
    return dict(zip(prompts, zip(cosines.tolist(), robust_z(cosines, LEAST_FIT).tolist(), strict=True), strict=True))


def _read(work: Work, texts: Sequence[str]) -> Vector:
    return encoders.get("clip").read(texts, work.judges.clip, work.workspace.cache).astype(np.float64)
