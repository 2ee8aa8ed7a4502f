"""What a run records, and in which form: rows, ids, times, and texts without home paths or secrets."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lorafactory.errors import STOPPED, LoraError

PACKAGES = (
    "lorafactory",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "open_clip_torch",
    "safetensors",
    "pillow",
)
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_CUDA_ALLOC_CONF",
)
"""The only variables that are recorded, as they may change numbers."""
FLUSH_ROWS = 500
_ID = "(SELECT id FROM blob WHERE sha256 = ?)"
_BLOB = "INSERT INTO blob (sha256) VALUES (?) ON CONFLICT DO NOTHING"
_DERIVED = f"""INSERT INTO derived (dst_id, src_id, run_id, how) VALUES ({_ID}, {_ID}, ?, ?)
  ON CONFLICT DO NOTHING"""
_EDGE = f"""INSERT INTO edge (run_id, direction, role, name, blob_id) VALUES (?, ?, ?, ?, {_ID})
  ON CONFLICT DO UPDATE SET blob_id = excluded.blob_id"""  # the last word of a run about a name
_METRIC = """INSERT INTO metric (run_id, step, name, value) VALUES (?, ?, ?, ?)
  ON CONFLICT DO UPDATE SET value = excluded.value"""
_DECISION = f"""INSERT INTO decision (run_id, at, image, blob_id, verdict, rule, score, threshold, rival,
  rival_id, before, after, note) VALUES (?, ?, ?, {_ID}, ?, ?, ?, ?, ?, {_ID}, ?, ?, ?)"""
_CHANGE = f"""INSERT INTO change (run_id, place_before, place_after, before_id, after_id)
  VALUES (?, ?, ?, {_ID}, {_ID})"""
_LOOK = f"INSERT INTO look (blob_id, pixels, phash) VALUES ({_ID}, ?, ?) ON CONFLICT DO NOTHING"
_CONTENT = f"INSERT INTO content (blob_id, bytes) VALUES ({_ID}, ?) ON CONFLICT DO NOTHING"


@dataclass(frozen=True)
class RunRow:
    """One execution of a step."""

    id: int
    ulid: str
    lora: str
    step: str
    version: int
    status: str
    key: str
    settings: dict[str, Any]
    started_at: str
    ended_at: str | None
    wall_s: float | None
    error: str | None
    parent: int | None


@dataclass(frozen=True)
class Decision:
    """What one rule of one run said about one picture; the columns of view `v_decision`."""

    id: int
    run_id: int
    run: str
    """The run's public id."""
    step: str
    lora: str
    at: str
    image: str
    sha256: str
    verdict: str
    rule: str
    score: float | None
    threshold: float | None
    rival: str | None
    rival_sha256: str | None
    before: str | None
    after: str | None
    note: str | None


@dataclass(frozen=True)
class Change:
    """One file that a run moved, wrote or took away; places are under the folder that holds `set_aside/`."""

    before: str | None
    """Where it was; None: nowhere."""
    after: str | None
    """Where it is; None: nowhere."""
    sha256_before: str | None
    sha256_after: str | None
    text: bytes | None = None
    """What a text said before, if that is not what it says now."""


@dataclass(frozen=True)
class Relative:
    """A file that another came from, or that came from it, `depth` derivations away."""

    sha256: str
    depth: int
    how: str


class Run:
    """An execution in progress; what it is told is written every 500 rows and with its end."""

    def __init__(self, write: Callable[[], AbstractContextManager[sqlite3.Connection]], row_id: int, ulid: str) -> None:
        self.id = row_id
        self.ulid = ulid
        self.ended = False
        self._write = write
        self._blobs: list[tuple[str]] = []
        self._rows: list[tuple[str, tuple[Any, ...]]] = []

    def note(
        self,
        image: str,
        sha256: str,
        verdict: str,
        rule: str,
        *,
        score: float | None = None,
        threshold: float | None = None,
        rival: str | None = None,
        rival_sha256: str | None = None,
        before: str | None = None,
        after: str | None = None,
        note: str | None = None,
    ) -> None:
        """Record a decision about an image."""
        told = (verdict, rule, _real(score), _real(threshold), tidy(rival), rival_sha256)
        row = (self.id, now(), tidy(image), sha256, *told, clean(before), clean(after), clean(note))
        self._add(_DECISION, row, sha256, rival_sha256)

    def used(self, role: str, name: str, sha256: str) -> None:
        """Record a file the run read."""
        self._add(_EDGE, (self.id, "in", role, tidy(name), sha256), sha256)

    def made(self, role: str, name: str, sha256: str) -> None:
        """Record a file the run wrote or left."""
        self._add(_EDGE, (self.id, "out", role, tidy(name), sha256), sha256)

    def kept(self, role: str, name: str, text: str) -> None:
        """Record a text the run wrote, with its words."""
        data = text.encode()
        sha256 = hashlib.sha256(data).hexdigest()
        self.made(role, name, sha256)
        self._add(_CONTENT, (sha256, data))

    def looked(self, sha256: str, pixels: str, phash: int) -> None:
        """Record what a picture looks like: the hash of its pixels, and its perceptual hash of 64 bits."""
        self._add(_LOOK, (sha256, pixels, signed(phash)), sha256)

    def derived(self, dst_sha256: str, src_sha256: str, how: str) -> None:
        """Record that one file came from another; equal bytes are one blob and need no record."""
        if dst_sha256 != src_sha256:
            self._add(_DERIVED, (dst_sha256, src_sha256, self.id, how), dst_sha256, src_sha256)

    def changed(self, change: Change) -> None:
        """Record what the run did to a file, with the text it replaced, so that it can be taken back."""
        places, hashes = (tidy(change.before), tidy(change.after)), (change.sha256_before, change.sha256_after)
        self._add(_CHANGE, (self.id, *places, *hashes), *hashes)
        if change.text is not None:
            self._add(_CONTENT, (change.sha256_before, change.text))

    def metric(self, step: int, name: str, value: float) -> None:
        """Record a number of a training step; not-a-number is kept as NULL."""
        self._add(_METRIC, (self.id, int(step), name, _real(value)))

    def _add(self, sql: str, row: tuple[Any, ...], *blobs: str | None) -> None:
        if self.ended:
            raise RuntimeError(f"run {self.ulid} has ended; nothing more can be noted in it")
        self._blobs += [(sha256,) for sha256 in blobs if sha256 is not None]
        self._rows.append((sql, row))
        if len(self._rows) >= FLUSH_ROWS:
            with self._write() as db:
                self.flush(db)
            self._blobs, self._rows = [], []  # only once they are committed

    def flush(self, db: sqlite3.Connection) -> None:
        """Write what is still to be written, in a transaction that the caller commits."""
        db.executemany(_BLOB, self._blobs)
        for sql, row in self._rows:
            db.execute(sql, row)


def ended_by(error: BaseException) -> tuple[str, str]:
    """Status and first line of a run that did not end well; `stopped` is what a person or a signal asked for."""
    asked = isinstance(error, KeyboardInterrupt | SystemExit) or getattr(error, "exit_code", None) == STOPPED
    kind, first = type(error).__name__, next(iter(str(error).strip().splitlines()), "")
    said = first if first and isinstance(error, LoraError) else f"{kind}: {first}".removesuffix(": ")
    return "stopped" if asked else "failed", str(clean(said))


def signed(bits: int) -> int:
    """Return 64 bits as SQLite's integer."""
    return bits - (1 << 64) if bits >> 63 else bits


def _real(value: float | None) -> float | None:
    """Return a float of Python's own (numpy's and torch's cannot be stored); not-a-number as None."""
    return None if value is None or math.isnan(value) else float(value)


_PLAIN = re.compile(r"[\w:.,+-]{1,64}")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_last = (0, 0, 0)


def new_ulid() -> str:
    """Return a public id: 48 bits of milliseconds, 80 random ones, counting up within the process."""
    global _last  # noqa: PLW0603
    milliseconds, process = time.time_ns() // 1_000_000, os.getpid()
    before, number, owner = _last
    if owner == process and milliseconds <= before:
        milliseconds, number = before, number + 1
    else:  # a forked child draws anew, or it would count on with its parent's number
        number = secrets.randbits(79)  # one bit to spare for counting
    _last = (milliseconds, number, process)
    value = milliseconds << 80 | number
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def now() -> str:
    """Return the time in UTC, as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@cache
def environment() -> str:
    """Return as canonical JSON what results may depend on, naming neither person nor machine."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    set_ = {name: os.environ[name] for name in VARIABLES if _PLAIN.fullmatch(os.environ.get(name, ""))}
    told = {"packages": versions, "platform": system, "python": platform.python_version(), "variables": set_}
    return canonical_json(told)


def canonical_json(value: object) -> str:
    """Return JSON in which equal values give equal bytes, cleaned like every text."""
    plain = _plain(value)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {clean(str(k)): "[secret]" if v and _SECRET_KEY.search(str(k)) else _plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return [_plain(v) for v in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return clean(str(value))


_SECRET = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bAKIA[0-9A-Z]{16}\b"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|(?:(?<=[?&]token=)|(?<=[?&]key=)|(?<=[Bb]earer ))[^&\s]+"
)
_SECRET_KEY = re.compile(r"^((hf|auth|access|api)_?)?token$|password|secret|api_?key", re.IGNORECASE)


def clean(text: str | None) -> str | None:
    """Return a text as it may be recorded: tidy, and without what looks like a key or a password."""
    return None if text is None else _SECRET.sub("[secret]", str(tidy(text)))


def tidy(text: str | None) -> str | None:
    """Return a name as it may be recorded: home as `~`, and only characters that UTF-8 has."""
    if text is None:
        return None
    told = str(text).encode("utf-8", "backslashreplace").decode()
    home = _home(os.path.expanduser("~"))  # noqa: PTH111  (Path.home() may raise)
    return home.sub("~", told) if home else told


@cache
def _home(home: str) -> re.Pattern[str] | None:
    if len(Path(home).parts) < 2:  # "/" is the home of some containers
        return None
    forms = {home, Path(home).as_posix(), home.replace("\\", "\\\\")}  # the last as in an OSError's message
    either = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.compile(rf"(?<![\w.~-])(?:{either})(?![\w.-])", re.IGNORECASE if os.name == "nt" else 0)
