"""Eyes: what a comparison sees of a picture, seen once however often its numbers are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from lorafactory.encoders import Encoder, Track
from lorafactory.scoring import artefacts, memorisation
from lorafactory.scoring.likeness import Array

BATCH = 32
Parts = Callable[[Sequence[Image.Image]], Array]
"""Pictures to pictures x parts x width."""


@dataclass(frozen=True)
class View:
    """What is seen of n pictures, a row each."""

    clip: Array
    """CLIP's rows, of length 1."""
    parts: Array
    """What likeness is measured by, n x parts x width, rows of length 1: DINOv2's of the whole, or CLIP's patches."""
    pixels: Array
    """`memorisation.coarse`."""
    features: Array
    """`artefacts.features`."""

    def __getitem__(self, chosen: Any) -> View:
        return View(*(getattr(self, f.name)[chosen] for f in fields(self)))


class Eyes:
    """The encoders that judge: CLIP, and for likeness what sees more of a picture, where it is given."""

    def __init__(self, clip: Encoder, parts: Parts | None = None, name: str = "clip") -> None:
        self.clip, self.parts, self.name = clip, parts, name
        self._seen: dict[tuple[str, int], tuple[Array, ...]] = {}
        self._read: dict[str, Array] = {}

    @classmethod
    def load(cls, model: str, closer: str = "") -> Eyes:
        """Load a CLIP and, if one is named, a DINOv2."""
        from lorafactory.encoders import clip, dino

        reader = clip.load(model)
        if not closer:
            return cls(reader, reader.encode_parts if hasattr(reader.net.visual, "transformer") else None)
        looker = dino.load(closer)
        return cls(reader, lambda pictures: looker.encode_images(pictures)[:, None], "dino")

    def look(self, pictures: Sequence[Image.Image], side: int, track: Track | None = None) -> View:
        """See pictures, only those that were not seen before; `side` is that of the drawn ones, in pixels."""
        keys = [(content(picture), side) for picture in pictures]
        new = list({k: p for k, p in zip(keys, pictures, strict=True) if k not in self._seen}.items())
        batches = [new[i : i + BATCH] for i in range(0, len(new), BATCH)]
        for batch in track(batches, "scoring") if track and batches else batches:
            shown = [picture for _, picture in batch]
            clip = np.asarray(self.clip.encode_images(shown))
            parts = np.asarray(self.parts(shown)) if self.parts else clip[:, None]
            rows = zip(clip, parts, memorisation.coarse(shown), artefacts.features(shown, side), strict=True)
            self._seen.update(zip((key for key, _ in batch), rows, strict=True))
        return View(*(np.stack(column) for column in zip(*(self._seen[k] for k in keys), strict=True)))

    def read(self, texts: Sequence[str]) -> dict[str, Array]:
        """Rows of texts, comparable with CLIP's of pictures."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._read]:
            self._read.update(zip(new, np.asarray(self.clip.encode_texts(new)), strict=True))
        return {text: self._read[text] for text in texts}


def content(picture: Image.Image) -> str:
    digest = hashlib.sha256(f"{picture.mode} {picture.size}".encode())
    digest.update(picture.tobytes())
    return digest.hexdigest()
