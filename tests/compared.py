"""A LoRA that was compared and picked, made without a model: scores.json of version 2, its cells, and a record."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lorafactory import images
from lorafactory.store import Store
from lorafactory.workspace import LoraDir, Workspace

GROUPS = ("like", "unlike", "without", "words")
DRAWINGS, PICTURES = 12, 6
"""Different cells, and pictures of the set."""
FULL = "lora compare anna --full"


def noise(seed: int, side: int = 320) -> Image.Image:
    """What compresses worst."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8))


def scores(
    *,
    saves: int = 4,
    strengths: Sequence[float] = (0.8, 1.0),
    bases: Sequence[str] = ("pony", "real"),
    prompts: int = 5,
    seeds: int = 4,
    text: str = "",
) -> dict[str, Any]:
    """scores.json: a baseline per base, then save x strength; the first save's last seed was not drawn."""
    spots = list(itertools.product(range(prompts), range(1, seeds + 1)))
    count = itertools.count()

    def column(base: str, number: int, strength: float) -> dict[str, Any]:
        own = {"likeness": 0.4 + 0.06 * number, "floor": 0.4, "fit": 0.3, "fit_floor": 0.31, "gain": 0.15 * number}
        own |= {"likeness_error": 0.01, "diversity": 0.3, "diversity_floor": 0.4, "copies": 0.0, "artefacts": 1.0}
        own |= {"leak": None, "drift": 0.02, "dropped": f"{text} too far below" if number == 1 else None}
        own |= {"save": f"anna-{number:06}.safetensors" if number else None, "strength": strength, "base": base}
        label = f"epoch {number}" if number else "baseline"
        own |= {"label": label, "epoch": number, "step": 100 * number, "tensors": None, "sha256": None}
        return {**own, "cells": [cell(number, prompt, seed) for prompt, seed in spots]}

    def cell(number: int, prompt: int, seed: int) -> dict[str, Any]:
        where = {"prompt": prompt, "seed": seed}
        if number == 1 and seed == seeds:
            return {**where, "file": None, "command": f"{FULL}{text}"} | dict.fromkeys(("likeness", "nearest", "copy"))
        near = {"nearest": f"{number + 1:04}.png", "nearest_clip": 0.9, "nearest_pixels": 0.8}
        own = {"likeness": 0.5, "fit": 0.3, "artefacts": 1.0, "mirrored": True, "copy": number == 3}
        return where | own | near | {"file": f"cells/{next(count) % DRAWINGS:02}.png"}

    columns = []
    for base in bases:
        columns.append(column(base + text, 0, 0.0))
        columns += [column(base + text, n, strength) for n in range(1, saves + 1) for strength in strengths]
    asked = [
        {"text": f"4nna, scene {i}{text}", "trigger": i != 2, "plain": f"scene {i}", "group": GROUPS[i % 4]}
        for i in range(prompts)
    ]
    known = {"pictures": [], "ceiling": 0.8, "floor": 0.4, "diversity": 0.35, "eyes": "clip"}
    budget = {"drawn": 10, "kept": 2, "full": False, "full_command": FULL}
    return {
        "version": 2, "trigger": "4nna", "strength": 1.0, "resolution": 96, "steps": 20, "cfg": 7.0, "prompts": asked,
        "seeds": list(range(1, seeds + 1)), "set": known, "budget": budget, "columns": columns,
    }  # fmt: skip


def verdict(text: str = "", *, passed: bool = True) -> dict[str, Any]:
    """verdict.json: the third save is chosen, the fourth was rejected."""
    own = {
        "next": None if passed else "lora train anna --more 3",
        "rejected": {"anna-000004.safetensors": f"copies{text}"},
    }
    limits = {"fit": 0.9, "diversity": 0.7, "copies": 0.2, "artefacts": 3.0, "gain": 0.2, "errors": 1.0}
    return {
        "pick": "anna-000003.safetensors", "label": "epoch 3", "passed": passed, "reason": f"epoch 3: the best{text}",
        "by_hand": None, "another": "lora pick anna anna-000002", "verdict": own, "thresholds": limits,
    }  # fmt: skip


def make_lora(root: Path, *, text: str = "", **more: Any) -> LoraDir:
    """Write loras/anna and its record into the workspace at `root`. `text` is in whatever a person may bring."""
    space = Workspace(root, "test")
    place, told = space.lora("anna"), scores(text=text, **more)
    (place.comparison / "cells").mkdir(parents=True)
    place.settings.write_text('base = "pocket"\nkind = "person"\nclass = "woman"\ntrigger = "4nna"\n', encoding="utf-8")
    for file in sorted({c["file"] for column in told["columns"] for c in column["cells"] if c["file"]}):
        images.save_png(noise(int(Path(file).stem)), place.comparison / file)
    subset = place.images / "4_4nna"
    subset.mkdir(parents=True)
    for i in range(PICTURES):
        images.save_png(noise(100 + i, 96), subset / f"{i + 1:04}.png")
        (subset / f"{i + 1:04}.txt").write_text(f"4nna, a caption{text} {i}", encoding="utf-8")
    (place.comparison / "scores.json").write_text(json.dumps(told), encoding="utf-8")
    (place.comparison / "verdict.json").write_text(json.dumps(verdict(text)), encoding="utf-8")
    place.chosen.write_bytes(b"no model")
    images.save_png(noise(7, 96), place.chosen.with_suffix(".png"))
    with Store(space.record) as store:
        with store.run(place.recorded, "rename", version=1, key="k", settings={}) as run:
            run.note("0001.png", images.sha256(subset / "0001.png"), "flagged", "blur", note=f"soft{text}")
        with store.run(place.recorded, "train", version=1, key="k", settings={}) as run:
            for step in range(1, 401):
                run.metric(step, "loss", 0.2 + 0.1 / step)
    return place
