"""The set's check-up: what is good, doubtful or wrong about pictures, captions and machine, one finding a row.

A finding measures one thing and says what it should be and who says so. Nothing here changes a set, except
`mirroring`, when it is told to; no model is loaded, except CLIP for pictures it has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "problem"]
SEED = "seed 003"
"""The guide whose advice most rows repeat; the seeds are the guides that lorafactory was made from."""


@dataclass(frozen=True)
class Finding:
    """One row of the table."""

    what: str
    value: str
    wanted: str
    """What it should be."""
    rule: str
    """Which seed, paper or part of lorafactory says so."""
    verdict: Verdict = "ok"
    """`note`: worth a look. `problem`: training could not run, or would go wrong."""
    pictures: tuple[str, ...] = ()
    """Names of the pictures it is about, where it is about some."""


def some(names: Sequence[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def count(number: int, what: str = "picture") -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
