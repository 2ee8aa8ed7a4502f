"""A set with saves that a comparison can be made of without a model: what is drawn and seen is made up."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from lorafactory import images
from lorafactory.recipe import Header, Recipe
from lorafactory.scoring.eyes import Eyes
from lorafactory.step import Work
from lorafactory.steps import _wrong, compare
from lorafactory.steps._cells import Column
from lorafactory.steps._studio import Studio
from lorafactory.workspace import LoraDir, Workspace

SIDE = 24
PICTURES = 5
TRAINED = {"ss_resolution": f"({SIDE + 3}, {SIDE + 3})", "ss_clip_skip": "2"}
PROMPTS = ("{trigger}", "{trigger}, a dog", "a {class}")
SETTINGS = compare.Settings(prompts=PROMPTS, seeds=(1, 2), strengths=(1.0,), thumb=64)
NO_GATES = {"fit": 0, "diversity": 0, "copies": 1, "artefacts": 1000, "gain": 0}
"""Likeness decides alone."""
CELLS = 3 * 2
"""Of a column with these settings."""


def write_save(path: Path, content: str, **metadata: str) -> Path:
    """A whole safetensors file without torch; `content` is its tensor's bytes."""
    body = content.encode().ljust(16)
    tensor = {"dtype": "U8", "shape": [16], "data_offsets": [0, 16]}
    header = json.dumps({"t": tensor, "__metadata__": metadata}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)
    return path


def save(work: Work, epoch: int, content: str | None = None, **metadata: str) -> Path:
    """A save of the training; with `good` in its content, FakeStudio draws what is like the set."""
    path = work.place.result / f"anna-{epoch:06}.safetensors"
    return write_save(path, content or f"epoch {epoch}", ss_epoch=str(epoch), **TRAINED, **metadata)


def picture(*seed: object, side: int = SIDE) -> Image.Image:
    number = int.from_bytes(hashlib.sha256(repr(seed).encode()).digest()[:8], "big")
    pixels = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


def like_the_set(*seed: object, share: float = 0.8) -> Image.Image:
    return Image.blend(picture(*seed), picture("set"), share)


class FakeStudio(Studio):
    """Draws a pattern from what it is asked for, and counts. With `good` in a save's bytes it is like the set."""

    asked: ClassVar[list[tuple[str | None, float, str, int]]] = []
    dies_after: ClassVar[int | None] = None

    def _take(self, column: Column) -> None:
        self._now = column

    def draw(self, texts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Image.Image]:
        assert self._now is not None
        path, strength = self._now.save.path if self._now.save else None, self._now.strength
        if self.dies_after is not None and len(self.asked) >= self.dies_after:
            raise KeyboardInterrupt
        name = path.name if path else None
        FakeStudio.asked += [(name, strength, text, seed) for text, seed in zip(texts, seeds, strict=True)]
        share = 0.8 if path and b"good" in path.read_bytes() else 0.0
        told = [
            (self._now.tensors, self._now.off, strength, self._now.base.identity, *p)
            for p in zip(texts, seeds, strict=True)
        ]
        return [like_the_set(*one, share=share) for one in told]


class FakeClip:
    """Sees coarse colours; reads a text as a hash."""

    def encode_images(self, pictures: Sequence[Image.Image]) -> Any:
        rows = np.stack([np.asarray(p.resize((3, 3), Image.Resampling.BOX), float).ravel() for p in pictures])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts: Sequence[str]) -> Any:
        return self.encode_images([picture(text) for text in texts])


def make_work(root: Path, monkeypatch: Any) -> Work:
    """Five pictures, two saves; nothing draws or looks but the fakes."""
    place = LoraDir("anna", root / "loras" / "anna", owned=True)
    subset = place.images / "12_4nna"
    subset.mkdir(parents=True)
    for i in range(PICTURES):
        images.save_png(like_the_set("training", i), subset / f"{i + 1:04}.png")
    header = Header(kind="person", **{"class": "woman"}, trigger="4nna", base="pocket")
    work = Work(Workspace(root, "test"), place, Recipe(header, {"pick": NO_GATES}, {}))
    for epoch in (1, 2):
        save(work, epoch)
    FakeStudio.asked, FakeStudio.dies_after = [], None
    monkeypatch.setattr(compare, "Studio", FakeStudio)
    monkeypatch.setattr(compare, "eyes", lambda work: Eyes(FakeClip()))
    monkeypatch.setattr(_wrong, "blind", lambda work: None)
    monkeypatch.setattr(compare, "base_identity", lambda space, models: f"base {models.base.name}")
    return work


def told(work: Work, folder: str = ".") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work.place.comparison / folder / "scores.json").read_text(encoding="utf-8"))
    return found
