"""Hugging Face datasets: an imagefolder, with captions in metadata.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

from lorafactory.exports import Bundle
from lorafactory.exports._folders import lay_out, place_of

SUFFIX = ""


def write(bundle: Bundle, target: Path, final: Path) -> list[str]:
    """`load_dataset("imagefolder", data_dir=...)` gives columns `image` and `text`; no caption is null."""
    lay_out(bundle.training, target, captions=False)
    lines = [
        json.dumps(
            {"file_name": (place_of(subset) / picture.path.name).as_posix(), "text": picture.caption},
            ensure_ascii=False,
        )
        for subset in bundle.training
        for picture in subset.pictures
    ]
    (target / "metadata.jsonl").write_bytes(("\n".join(lines) + "\n").encode())
    return [f"{s.folder.name}: regularisation pictures" for s in bundle.reg]
