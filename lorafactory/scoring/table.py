"""All the numbers of a comparison, per cell and per column, from pictures; what `scores.json` holds.

Columns may hold different cells. What is told relative to the baseline is over the cells that a column shares with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from lorafactory.encoders import Track
from lorafactory.scoring import artefacts, memorisation
from lorafactory.scoring.diversity import diversity
from lorafactory.scoring.eyes import Eyes, View
from lorafactory.scoring.likeness import Array, fit, itself, likeness, matches, own_parts, standard_error
from lorafactory.scoring.prompts import Prompt

Row = dict[str, Any]


@dataclass(frozen=True)
class Drawn:
    """One picture that is there."""

    prompt: int
    """Its prompt's index."""
    seed: int
    picture: Image.Image


@dataclass(frozen=True)
class TrainingSet:
    """The pictures that likeness and copies are measured against."""

    names: Sequence[str]
    images: Sequence[Image.Image]
    captions: Sequence[str] = ()
    """Without the trigger, one per picture; empty where they say no more. None at all: prompt fit has no ceiling."""


@dataclass(frozen=True)
class Ruler:
    """What every column is measured by."""

    prompts: Sequence[Prompt]
    names: Sequence[str]
    set: View
    own: Array
    """Which parts of the training pictures likeness counts."""
    gallery: memorisation.Gallery
    limits: memorisation.Limits
    texts: dict[str, Array]
    """CLIP's rows of the prompts without the trigger."""
    place: dict[tuple[int, int], int]
    """Where the baseline's picture of a prompt and seed is in `baseline`."""
    baseline: View

    def shared(self, column: Sequence[Drawn]) -> View:
        """The baseline's pictures of a column's cells."""
        return self.baseline[[self.place[drawn.prompt, drawn.seed] for drawn in column]]

    def matches(self, view: View) -> Array:
        """Of each picture with each training picture (n, m)."""
        return matches(view.parts, self.set.parts, self.own)


def measure(
    columns: Sequence[Sequence[Drawn]],
    eyes: Eyes,
    prompts: Sequence[Prompt],
    known: TrainingSet,
    track: Track | None = None,
) -> tuple[Row, list[Row]]:
    """Score every column; the first is the baseline, and has every cell that another has.

    Returns the set's own numbers, and per column its scores with a list of its `cells`, in the order they were given.
    `track` shows a bar over the pictures that were not seen before.
    """
    side = min(columns[0][0].picture.size)
    eyes.look([drawn.picture for column in columns for drawn in column], side, track)
    ruler = _ruler(columns[0], eyes, prompts, known, side)
    rows = [_row(column, ruler, eyes, side) for column in columns]
    top, floor = itself(ruler.matches(ruler.set)), rows[0]["likeness"]
    for row in rows:
        way = top - row["floor"] if row["floor"] is not None else 0.0
        row["gain"] = (row["likeness"] - row["floor"]) / way if way > 1e-6 else None
    facts = {
        "pictures": list(known.names),
        "ceiling": top,
        "floor": floor,
        "fit": _set_fit(known, ruler.set, eyes),
        "diversity": diversity(ruler.set.clip) or 0.0,
        "copy_limit_clip": ruler.limits.clip,
        "copy_limit_pixels": ruler.limits.pixels,
        "eyes": eyes.name,
    }
    return facts, rows


def _ruler(column: Sequence[Drawn], eyes: Eyes, prompts: Sequence[Prompt], known: TrainingSet, side: int) -> Ruler:
    seen, mirrored = (eyes.look(i, side) for i in (known.images, [ImageOps.mirror(image) for image in known.images]))
    gallery = memorisation.Gallery(
        np.concatenate([seen.clip, mirrored.clip]), np.concatenate([seen.pixels, mirrored.pixels])
    )
    texts = eyes.read([p.plain for p in prompts if p.plain])
    place = {(drawn.prompt, drawn.seed): i for i, drawn in enumerate(column)}
    baseline = eyes.look([drawn.picture for drawn in column], side)
    own, limits = own_parts(seen.parts, baseline.parts), memorisation.limits(gallery)
    return Ruler(prompts, known.names, seen, own, gallery, limits, texts, place, baseline)


def _set_fit(known: TrainingSet, seen: View, eyes: Eyes) -> float | None:
    """How well the training pictures fit their own captions: a thing like no other of its class fits no words well."""
    told = [i for i, caption in enumerate(known.captions) if caption]
    if not told:
        return None
    texts = eyes.read([known.captions[i] for i in told])
    return float(fit(seen.clip[told], np.stack([texts[known.captions[i]] for i in told])).mean())


SCORES = (
    *("likeness", "likeness_error", "floor", "clip_i", "fit", "fit_error", "fit_floor"),
    *("diversity", "diversity_floor", "copies", "artefacts", "leak", "drift"),
)
"""Of a column. A floor is the baseline's score over the same cells; `clip_i` the mean cosine that others go by."""


def _row(column: Sequence[Drawn], ruler: Ruler, eyes: Eyes, side: int) -> Row:
    """A column's scores; None where it has no picture that tells one."""
    if not column:
        return {**dict.fromkeys(SCORES), "cells": []}
    view, without = eyes.look([drawn.picture for drawn in column], side), ruler.shared(column)
    cells = _cells(column, view, ruler)
    asked = np.array([ruler.prompts[drawn.prompt].trigger for drawn in column])
    like, floor = np.array([cell["likeness"] for cell in cells]), likeness(ruler.matches(without))
    fits, fit_floor = _fits(column, view, ruler), _fits(column, without, ruler)
    return {
        "likeness": _mean(like[asked]),
        "likeness_error": _error((like - floor)[asked]),
        "floor": _mean(floor[asked]),
        "clip_i": _mean((view.clip @ ruler.set.clip.T).mean(axis=1)[asked]),
        "fit": _mean(fits[asked]),
        "fit_error": _error(fits[asked]),
        "fit_floor": _mean(fit_floor[asked]),
        "diversity": _diversity(column, view.clip, asked),
        "diversity_floor": _diversity(column, without.clip, asked),
        "copies": _mean(np.array([float(cell["copy"]) for cell in cells])[_unlike(column, ruler, asked)]),
        "artefacts": _mean(np.array([cell["artefacts"] for cell in cells])[asked]),
        "leak": _mean((like - floor)[~asked]),
        "drift": _mean(1 - fit(view.clip, without.clip)[~asked]),
        "cells": cells,
    }


def _unlike(column: Sequence[Drawn], ruler: Ruler, asked: Array) -> Array:
    """Where copying is held against a save: where what was asked for is not in the set, if that was asked at all."""
    other = np.array([ruler.prompts[drawn.prompt].group == "unlike" for drawn in column]) & asked
    return other if other.any() else asked


def _prompts(column: Sequence[Drawn]) -> Array:
    return np.array([drawn.prompt for drawn in column])


def _mean(values: Array) -> float | None:
    """Of the values that are there."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _error(values: Array) -> float | None:
    """Standard error of that mean."""
    known = values[~np.isnan(values)]
    return standard_error(known) if len(known) else None


def _fits(column: Sequence[Drawn], view: View, ruler: Ruler) -> Array:
    """Prompt fit of each picture; NaN where the prompt says no more than the trigger."""
    nothing = np.full_like(view.clip[0], np.nan)
    return fit(view.clip, np.stack([ruler.texts.get(ruler.prompts[d.prompt].plain, nothing) for d in column]))


def _diversity(column: Sequence[Drawn], rows: Array, asked: Array) -> float | None:
    """Mean over the prompts with the trigger."""
    prompts = _prompts(column)
    spread = [diversity(rows[prompts == p]) for p in np.unique(prompts[asked])]
    return _mean(np.array([np.nan if d is None else d for d in spread]))


def _cells(column: Sequence[Drawn], view: View, ruler: Ruler) -> list[Row]:
    like, fits = likeness(ruler.matches(view)), _fits(column, view, ruler)
    near = memorisation.nearest(ruler.gallery, ruler.limits, view.clip, view.pixels)
    odd = artefacts.oddness(view.features, ruler.set.features, ruler.baseline.features)
    return [
        {
            "prompt": drawn.prompt,
            "seed": drawn.seed,
            "likeness": float(like[i]),
            "fit": None if np.isnan(fits[i]) else float(fits[i]),
            "nearest": ruler.names[near[i].index],
            "mirrored": near[i].mirrored,
            "nearest_clip": near[i].clip,
            "nearest_pixels": near[i].pixels,
            "copy": near[i].copy,
            "artefacts": float(odd[i]),
        }
        for i, drawn in enumerate(column)
    ]
