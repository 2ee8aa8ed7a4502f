"""All the numbers of a comparison, per cell and per column, from embeddings and pictures; what `scores.json` holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from lorafactory.scoring import artefacts, memorisation
from lorafactory.scoring.diversity import diversity
from lorafactory.scoring.likeness import Array, ceiling, fit, likeness, standard_error
from lorafactory.scoring.prompts import Prompt

Images = Sequence[Image.Image]


@dataclass(frozen=True)
class TrainingSet:
    """The pictures that likeness and copies are measured against."""

    names: Sequence[str]
    images: Images
    gallery: memorisation.Gallery
    limits: memorisation.Limits

    @property
    def clip(self) -> Array:
        return self.gallery.clip[: self.gallery.count]


def training_set(names: Sequence[str], images: Images, encode: Callable[[list[Image.Image]], Array]) -> TrainingSet:
    known = memorisation.gallery(images, encode)
    return TrainingSet(names, images, known, memorisation.limits(known))


def measure(
    columns: Sequence[Images],
    embeddings: Sequence[Array],
    texts: Mapping[str, Array],
    prompts: Sequence[Prompt],
    known: TrainingSet,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score every column, the baseline first; a column holds its pictures prompt by prompt, seed by seed.

    `embeddings` go with `columns`, `texts` with the prompts' plain texts. Returns the set's own numbers, and per column
    its scores with a list of its `cells`.
    """
    side, seeds = min(columns[0][0].size), len(columns[0]) // len(prompts)
    own = artefacts.features(known.images, side)
    features = [artefacts.features(column, side) for column in columns]
    scored = []
    for i, column in enumerate(columns):
        odd = artefacts.oddness(features[i], own, features[0])
        seen = {"clip": embeddings[i], "pixels": memorisation.coarse(column), "odd": odd}
        cells = _cells(**seen, prompts=prompts, seeds=seeds, known=known, texts=texts)
        scored.append({**_summary(cells, embeddings[i], prompts, seeds), "cells": cells})
    floor, top = scored[0]["likeness"], ceiling(known.clip)
    for row in scored:
        row["gain"] = (row["likeness"] - floor) / (top - floor) if top - floor > 1e-6 else None
        row["leak"] = None if row["unasked"] is None else row["unasked"] - scored[0]["unasked"]
    facts = {
        "pictures": list(known.names),
        "ceiling": top,
        "floor": floor,
        "diversity": 1 - top,
        "copy_limit_clip": known.limits.clip,
        "copy_limit_pixels": known.limits.pixels,
    }
    return facts, scored


def _cells(
    *,
    clip: Array,
    pixels: Array,
    odd: Array,
    prompts: Sequence[Prompt],
    seeds: int,
    known: TrainingSet,
    texts: Mapping[str, Array],
) -> list[dict[str, Any]]:
    owner = [p for p in prompts for _ in range(seeds)]
    like = likeness(clip, known.clip)
    near = memorisation.nearest(known.gallery, known.limits, clip, pixels)
    nothing = np.zeros_like(clip[0])
    fits = fit(clip, np.stack([texts.get(p.plain, nothing) for p in owner]))
    return [
        {
            "likeness": float(like[i]),
            "fit": float(fits[i]) if p.plain else None,
            "nearest": known.names[near[i].index],
            "mirrored": near[i].mirrored,
            "nearest_clip": near[i].clip,
            "nearest_pixels": near[i].pixels,
            "copy": near[i].copy,
            "artefacts": float(odd[i]),
        }
        for i, p in enumerate(owner)
    ]


def _summary(cells: list[dict[str, Any]], clip: Array, prompts: Sequence[Prompt], seeds: int) -> dict[str, Any]:
    """A column's scores: means over the prompts with the trigger. `unasked` is likeness where it was not asked for."""
    asked = [i for i, p in enumerate(prompts) if p.trigger]
    unasked = [i for i, p in enumerate(prompts) if not p.trigger]

    def values(key: str, chosen: list[int]) -> Array:
        return np.array([[cells[p * seeds + s][key] for s in range(seeds)] for p in chosen])

    like = values("likeness", asked)
    fitted = [i for i in asked if prompts[i].plain]
    spread = [d for i in asked if (d := diversity(clip[i * seeds : (i + 1) * seeds])) is not None]
    return {
        "likeness": float(like.mean()),
        "likeness_error": standard_error(like),
        "fit": float(values("fit", fitted).mean()) if fitted else None,
        "diversity": float(np.mean(spread)) if spread else None,
        "copies": float(values("copy", asked).mean()),
        "artefacts": float(values("artefacts", asked).mean()),
        "unasked": float(values("likeness", unasked).mean()) if unasked else None,
    }
