"""The WD tagger (SmilingWolf's, for drawn pictures) through timm: Danbooru tags instead of a sentence.

The picture is padded with white to a square and goes in with its channels in the order blue, green, red, as the model
was trained. Nothing is downloaded here: a model is a folder, or is in the hub's cache already.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafactory.captioners._weights import WEIGHTS, Files, in_batches
from lorafactory.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

MODEL = "SmilingWolf/wd-vit-tagger-v3"
ASKED = ("threshold",)
PROSE = False
TAGS = "selected_tags.csv"
NEEDED = (WEIGHTS, "config.json", TAGS)
FILES = Files("WD tagger", NEEDED, MODEL, "about 380 MB", "lora init --fetch --tagger")
GENERAL, CHARACTER = "0", "4"
"""Kinds of tags in the list that are said; the others rate the picture."""
CHARACTER_SURE = 0.75
"""Least probability of a character's name: a wrong one spoils a caption more than a wrong colour."""
FACE = 3
"""Tags of at most so many characters are faces such as `^_^`, whose underscore is part of them."""


# ---------------------------------------------------------------- is it there, and which is it


def missing(model: str) -> str | None:
    """Say what is not on this machine and how to get it; None if all is there."""
    return FILES.missing(model)


def sources(model: str) -> tuple[str, list[str]]:
    """The repository and the files on the hub that `lora init --fetch --tagger` brings."""
    return model, list(NEEDED)


def identity(model: str) -> str:
    """Return what tells this model's tags from another's: the hash of its files, or its commit on the hub."""
    return FILES.identity(model)


# ---------------------------------------------------------------- the model


@dataclass(frozen=True)
class Tag:
    """One output of the net."""

    name: str
    kind: str


@dataclass(frozen=True)
class Wd:
    """A loaded tagger, in fp32, on the GPU where there is one."""

    net: Any
    transform: Any
    tags: tuple[Tag, ...]
    device: str

    @classmethod
    def load(cls, model: str) -> Wd:
        """Load a model; InputError if it is not on this machine, or its files do not belong together."""
        folder = FILES.folder(model)
        import timm
        import torch
        from safetensors.torch import load_file
        from timm.data.config import resolve_data_config
        from timm.data.transforms_factory import create_transform

        device = "cuda" if torch.cuda.is_available() else "cpu"
        tags = read_tags(folder / TAGS)
        try:
            net = timm.create_model(f"local-dir:{folder}", pretrained=False)
            net.load_state_dict(load_file(folder / WEIGHTS))
        except (RuntimeError, KeyError, TypeError) as error:
            said = f"{folder} is no tagger that this timm knows: {str(error).partition(chr(10))[0]}"
            raise InputError(f"{said}\n    say --model FOLDER of another, or leave it out for {MODEL}") from error
        if net.num_classes != len(tags):
            raise InputError(f"{folder / TAGS} has {len(tags)} tags, and the net {net.num_classes}: fetch it anew")
        transform = create_transform(**resolve_data_config(net.pretrained_cfg, model=net))  # type: ignore[no-untyped-call]
        return cls(net.eval().requires_grad_(False).to(device), transform, tags, device)

    def caption(self, images: Sequence[Image.Image], *, threshold: float, batch: int) -> list[str]:
        """List each picture's tags that are at least as probable as `threshold`, 0 to 1, the surest first."""
        return in_batches(images, batch, lambda some: self._describe(some, threshold))

    def _describe(self, pictures: Sequence[Image.Image], threshold: float) -> list[str]:
        import torch

        pixels = torch.stack([self.transform(squared(picture.convert("RGB"))) for picture in pictures])
        with torch.inference_mode():
            rows = torch.sigmoid(self.net(pixels[:, [2, 1, 0]].to(self.device))).float().cpu().tolist()
        return [said(self.tags, row, threshold) for row in rows]


def load(model: str) -> Wd:
    """Load a model; InputError if it is not on this machine."""
    return Wd.load(model)


def read_tags(file: Path) -> tuple[Tag, ...]:
    """Read the list of tags that comes with the weights, in the order of the net's outputs."""
    with file.open(encoding="utf-8", newline="") as lines:
        return tuple(Tag(row["name"], row["category"]) for row in csv.DictReader(lines))


def squared(picture: Image.Image) -> Image.Image:
    """The whole picture in the middle of a white square."""
    from PIL import Image

    side = max(picture.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def said(tags: Sequence[Tag], probabilities: Sequence[float], threshold: float) -> str:
    """The tags that are sure enough, the surest first, with spaces as people type them."""
    least = {GENERAL: threshold, CHARACTER: max(threshold, CHARACTER_SURE)}
    found = [(p, tag.name) for tag, p in zip(tags, probabilities, strict=True) if p >= least.get(tag.kind, 2.0)]
    names = [name for _, name in sorted(found, key=lambda one: -one[0])]
    return ", ".join(name if len(name) <= FACE else name.replace("_", " ") for name in names)
