"""Hugging Face datasets: an imagefolder, with captions in metadata.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

from lorafactory.dataset import Picture
from lorafactory.exports import Bundle
from lorafactory.exports._folders import lay_out, place_of

SUFFIX = ""


def write(bundle: Bundle, target: Path, final: Path) -> list[str]:
    """`load_dataset("imagefolder", data_dir=...)` gives columns `image` and `text`; no caption is null."""
    lay_out(bundle.training, target, captions=False)
    lines = [
        json.dumps(
            {"file_name": (place_of(subset) / picture.path.name).as_posix(), "text": text_of(picture)},
            ensure_ascii=False,
        )
        for subset in bundle.training
        for picture in subset.pictures
    ]
    (target / "metadata.jsonl").write_bytes(("\n".join(lines) + "\n").encode())
    garbled = [f"{p.caption_path}, which is not UTF-8 text" for s in bundle.training for p in s.pictures if p.garbled]
    return [*garbled, *(f"{s.folder.name}: regularisation pictures" for s in bundle.reg)]


def text_of(picture: Picture) -> str | None:
    return None if picture.garbled else picture.caption
