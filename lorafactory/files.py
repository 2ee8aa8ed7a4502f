"""A file is whole or absent: the one way in which lorafactory writes files; and what one may hold, read kindly."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorafactory.errors import DiskFull

RESERVE = 16 << 20
"""Bytes that no training takes: with them the record and the pages can still say what happened."""


@contextlib.contextmanager
def whole(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the same folder; what was written there becomes `path` when the block ends well.

    `synced=False` leaves it to the system when it reaches the disk: for caches, whose readers take broken for absent.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        if synced:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        part.chmod(0o644)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if synced:
        sync_folder(path.parent)


def write_whole(path: Path, data: bytes, *, synced: bool = True) -> None:
    """Write `data` to `path` so that a reader, or a crash, sees the old file or the new one."""
    with whole(path, synced=synced) as part:
        part.write_bytes(data)


def room_for(folder: Path, size: int) -> None:
    """DiskFull unless the disk of `folder` takes `size` bytes more and keeps RESERVE."""
    free = shutil.disk_usage(folder).free
    if free < size + RESERVE:
        raise DiskFull(
            f"{folder}: {free / 1e6:.0f} MB free on this disk, and {(size + RESERVE) / 1e6:.0f} MB are needed; make "
            "room (lora status --disk says what is safe to delete), then it goes on after its last checkpoint"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The table in a JSON file; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def size(folder: Path) -> int:
    """Bytes of all files in a folder and below it, links left out."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def sync_folder(folder: Path) -> None:
    """Make a rename durable where the system can (Windows has no such call)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
