"""Civitai's trainer: one zip with all pictures and their texts at its top."""

from __future__ import annotations

import zipfile
from pathlib import Path

from lorafactory.exports import Bundle

SUFFIX = ".zip"
_DAY = (1980, 1, 1, 0, 0, 0)
"""Of every file in it, so that one set always gives one zip."""


def write(bundle: Bundle, target: Path, final: Path) -> list[str]:
    """The trainer is told the repeats on its page, so they are not in the zip; nor are regularisation pictures."""
    with zipfile.ZipFile(target, "w") as archive:
        for subset in bundle.training:
            for picture in subset.pictures:
                name = picture.name.replace("/", "_")
                add(archive, name, picture.path, zipfile.ZIP_STORED)
                if picture.caption_path.is_file():
                    add(archive, str(Path(name).with_suffix(".txt")), picture.caption_path, zipfile.ZIP_DEFLATED)
    numbers = ", ".join(f"{s.repeats} for {s.word}" for s in bundle.training)
    lost = [f"repeats, which are set on Civitai's page: {numbers}"]
    return lost + [f"{s.folder.name}: regularisation pictures" for s in bundle.reg]


def add(archive: zipfile.ZipFile, name: str, path: Path, packing: int) -> None:
    info = zipfile.ZipInfo(name, _DAY)
    info.compress_type, info.external_attr = packing, 0o644 << 16
    archive.writestr(info, path.read_bytes())
