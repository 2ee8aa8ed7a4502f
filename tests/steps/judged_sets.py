"""Sets for the tests of steps that judge pictures: drawn and seeded, with a run that only remembers."""

from __future__ import annotations

import io
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

    def looked(self, sha256: str, pixels: str, phash: int) -> None:
        """What a picture looks like is the record's to keep."""

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


def portraits(count: int, seed: int = 0) -> list[Image.Image]:
    """One head before one wall: turned, lit and smiling a little differently each time."""
    rng, made = random.Random(seed), []
    for _ in range(count):
        canvas = world.Canvas([(rng.randint(150, 180), rng.randint(160, 185), rng.randint(175, 195))])
        x, y, turn = 48 + rng.gauss(0, 4), 46 + rng.gauss(0, 3), rng.uniform(-7, 7)
        light = rng.uniform(0.85, 1.1)
        skin, hair, coat = (
            tuple(min(255, round(v * light)) for v in c) for c in ((224, 172, 140), (70, 42, 30), (40, 60, 110))
        )
        canvas.polygon([(x - 38, 96), (x - 20, 74), (x + 20, 74), (x + 38, 96)], coat)
        canvas.disc(x, y - 3, 28, hair)
        canvas.disc(x + turn / 2, y + 4, 23, skin)
        for side in (-9, 9):
            canvas.disc(x + turn + side, y, 3.2, (30, 30, 40))
        smile = rng.uniform(1, 5)
        canvas.polygon([(x + turn - 8, y + 14), (x + turn + 8, y + 14), (x + turn, y + 14 + smile)], (150, 50, 60))
        made.append(canvas.finish())
    return made


def photographs() -> list[Image.Image]:
    """Photographs in colour that ship in packages of the tests, by many cameras and of all sorts."""
    import matplotlib
    import skimage
    import sklearn

    folders = [Path(str(m.__file__)).parent for m in (skimage, sklearn, matplotlib)]
    names = [
        *("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg"),
        *("hubble_deep_field.jpg", "china.jpg", "flower.jpg", "grace_hopper.jpg"),
    ]
    found = {p.name: p for folder in folders for p in folder.rglob("*") if p.name in names}
    return [images.load(found[name]) for name in names]


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """The picture after a person saved it again."""
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


class FakeClip:
    """Sees nothing but the colour of the upper left pixel, reads nothing, and counts its looks."""

    def __init__(self) -> None:
        self.looks = 0

    def prepare(self, picture: Image.Image) -> tuple[int, ...]:
        return picture.getpixel((0, 0))  # type: ignore[return-value]

    def encode_prepared(self, pixels: list[tuple[int, ...]]) -> np.ndarray:
        self.looks += len(pixels)
        rows = np.array(pixels, dtype=np.float32) + 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return np.full((len(texts), 3), 3**-0.5, dtype=np.float32)


def fake_clip(monkeypatch: Any) -> FakeClip:
    """Put a fake in the place of CLIP's model; cache and identity stay as they are."""
    fake = FakeClip()
    monkeypatch.setattr(clip.Clip, "load", lambda model: fake)
    monkeypatch.setattr(clip, "missing", lambda model: None)
    monkeypatch.setattr(clip, "identity", lambda model: "fake")
    return fake


def given_vectors(monkeypatch: Any, vectors: np.ndarray) -> None:
    """Let CLIP see these vectors in the pictures of a set, and nothing in words."""
    rows = vectors.astype(np.float32) / np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
    monkeypatch.setattr(
        clip, "rows", lambda pictures, *a: {p.sha256: row for p, row in zip(pictures, rows, strict=True)}
    )
    monkeypatch.setattr(clip, "read", lambda texts, *a: np.zeros((len(texts), rows.shape[1]), np.float32))
