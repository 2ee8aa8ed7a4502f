"""Small pictures for the page: made once from a picture's bytes and kept in the workspace's cache."""

from __future__ import annotations

import threading
from pathlib import Path

from lorafactory import images
from lorafactory.files import write_whole

SIDES = {"thumb": 320, "view": 1600}
"""Longest side in pixels: in the grid, and in full. A phone at the other end of a tunnel gets no 10 MB file."""
_decoding = threading.BoundedSemaphore(2)
"""Decoders take memory by the picture."""


def small(cache: Path, picture: Path, sha256: str, kind: str) -> Path:
    """The file of a picture's WebP, made if it is not there; Unreadable if it is no whole picture."""
    side = SIDES[kind]
    path = cache / "thumbs" / sha256[:2] / f"{sha256}-{side}.webp"
    if not path.is_file():
        with _decoding:
            data = images.webp(images.load_reduced(picture, side), side)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data, synced=False)  # what a crash breaks is made again
    return path
