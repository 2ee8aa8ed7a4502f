"""Sets for the tests of steps that judge pictures: drawn and seeded, with a run that only remembers."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lorafactory import images
from lorafactory.encoders import clip
from lorafactory.past import Past
from lorafactory.pocket import world
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Note, Work
from lorafactory.workspace import Workspace


@dataclass
class FakeRun:
    """Collects what is noted: image, verdict, rule, and the rest."""

    rows: list[tuple[str, str, str, dict[str, Any]]] = field(default_factory=list)

    def note(self, image: str, sha256: str, verdict: str, rule: str, **told: Any) -> None:
        self.rows.append((image, verdict, rule, {"sha256": sha256, **told}))

    def verdicts(self, image: str) -> dict[str, str]:
        return {rule: verdict for name, verdict, rule, _ in self.rows if name == image}

    def told(self, image: str, rule: str) -> dict[str, Any]:
        (found,) = [told for name, _, by, told in self.rows if (name, by) == (image, rule)]
        return found


def work_on(tmp_path: Path, pictures: list[Image.Image], **header: Any) -> tuple[Work, FakeRun]:
    """A LoRA called demo whose set is these pictures, 0001.png and on."""
    workspace, run = Workspace(tmp_path, "test"), FakeRun()
    place = workspace.lora("demo")
    folder = place.images / "1_4nna"
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        images.save_png(picture, folder / f"{i + 1:04}.png")
    recipe = Recipe(Header.model_validate({"base": "pocket", "trigger": "4nna", "class": "star", **header}), {}, {})
    return Work(workspace, place, recipe, True, Note(run)), run  # type: ignore[arg-type]


def with_past(work: Work, **past: Any) -> tuple[Work, FakeRun]:
    """The same set, seen by a later run that remembers `past`."""
    run = FakeRun()
    return replace(work, note=Note(run), past=Past(**past)), run  # type: ignore[arg-type]


def scenes(count: int, seed: int = 0) -> list[Image.Image]:
    """Pictures of all sorts from the pocket's world, no two alike."""
    rng = random.Random(seed)
    return [world.draw(world.random_scene(rng, plain=True), rng) for _ in range(count)]


class FakeClip:
    """Sees nothing but the colour of the upper left pixel, and counts its looks."""

    def __init__(self) -> None:
        self.looks = 0

    def encode_images(self, pictures: list[Image.Image]) -> np.ndarray:
        self.looks += len(pictures)
        rows = np.array([picture.getpixel((0, 0)) for picture in pictures], dtype=np.float32) + 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def fake_clip(monkeypatch: Any) -> FakeClip:
    """Put a fake in the place of CLIP's model; cache and identity stay as they are."""
    fake = FakeClip()
    monkeypatch.setattr(clip.Clip, "load", lambda model: fake)
    monkeypatch.setattr(clip, "missing", lambda model: None)
    monkeypatch.setattr(clip, "identity", lambda model: "fake")
    return fake
