"""The sign of life of a job: what it is at, how far it is, and that it goes on. Given by the loops that do the work.

Nothing is written unless somebody asked (`beating`). Without a beat for too long, all threads tell where they are.
"""

from __future__ import annotations

import faulthandler
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lorafactory.files import read_json, write_whole

EVERY = 1.0
"""Seconds between two that are written, at least."""


@dataclass(frozen=True)
class Beat:
    """Where a job is."""

    lora: str
    what: str = ""
    """The step, or what it is doing in it."""
    done: int = 0
    of: int = 0
    """Pictures, batches or steps of training; 0 if there is nothing to count."""
    at: float = 0.0
    """When, in seconds since 1970."""
    first_done: int = 0
    first_at: float = 0.0
    """The first beat of `what`, to tell the speed by."""

    @property
    def left_s(self) -> float | None:
        """Seconds left of `what`, at the speed so far; None if that cannot be told."""
        gone = self.done - self.first_done
        return (self.of - self.done) * (self.at - self.first_at) / gone if gone > 0 and self.of else None


@dataclass
class _Heart:
    path: Path
    silence: float
    last: Beat
    written: float = 0.0
    """On the monotonic clock."""


_heart: _Heart | None = None


@contextmanager
def beating(path: Path, lora: str, *, silence: float) -> Iterator[None]:
    """Write the beats of a LoRA's job to `path`; after `silence` seconds without one, tracebacks go to stderr."""
    global _heart  # noqa: PLW0603
    _heart = _Heart(path, silence, Beat(lora))
    beat("begins")
    try:
        yield
    finally:
        _heart = None
        faulthandler.cancel_dump_traceback_later()


def beat(what: str, done: int = 0, of: int = 0) -> bool:
    """Say that `what` goes on, `done` of so many; True if it was written. Costs nothing where nobody asked."""
    heart, now = _heart, time.monotonic()
    if heart is None or (what == heart.last.what and now - heart.written < EVERY):
        return False
    at, last = time.time(), heart.last
    fresh = what != last.what or done < last.done
    first = (done, at) if fresh else (last.first_done, last.first_at)
    heart.last, heart.written = Beat(last.lora, what, done, of, at, *first), now
    with suppress(OSError):  # a full disk stops the work itself soon enough
        write_whole(heart.path, json.dumps(asdict(heart.last)).encode(), synced=False)
    faulthandler.dump_traceback_later(heart.silence, file=2)
    return True


def alive() -> None:
    """Say that what was said last goes on."""
    if _heart is not None:
        beat(_heart.last.what, _heart.last.done, _heart.last.of)


def read(path: Path) -> Beat | None:
    """The last beat that was written; None if there is none."""
    try:
        return Beat(**read_json(path))
    except TypeError:
        return None
