"""Small pictures for the page: made once from a picture's bytes and kept in the workspace's cache."""

from __future__ import annotations

import threading
from pathlib import Path

from lorafactory import images
from lorafactory.files import write_whole

MOST = 2
"""Pictures that are decoded at once: decoders take memory by the picture."""
SIDES = {"thumb": 320, "view": 1600}
"""Longest side in pixels: in the grid, and in full. A phone at the other end of a tunnel gets no 10 MB file."""
_decoding = threading.BoundedSemaphore(MOST)
_asked: list[str] = []
"""What a page waits for now."""
_idle = threading.Condition()


def small(cache: Path, picture: Path, sha256: str, kind: str, *, waited_for: bool = True) -> Path:
    """The file of a picture's WebP, made if it is not there; Unreadable if it is no whole picture.

    One that nobody is waiting for lets others go first.
    """
    if not waited_for:
        with _idle:
            _idle.wait_for(lambda: not _asked)
        return _made(cache, picture, sha256, kind)
    _asked.append(sha256)
    try:
        return _made(cache, picture, sha256, kind)
    finally:
        with _idle:
            _asked.remove(sha256)
            _idle.notify_all()


def _made(cache: Path, picture: Path, sha256: str, kind: str) -> Path:
    side = SIDES[kind]
    path = cache / "thumbs" / sha256[:2] / f"{sha256}-{side}.webp"
    if not path.is_file():
        with _decoding:
            data = images.webp(images.load_reduced(picture, side), side)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data, synced=False)  # what a crash breaks is made again
    return path
