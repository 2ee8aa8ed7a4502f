"""Stateless randomness: every draw has its own generator, named by what it is for, never by when it is drawn.

So a resumed run draws what an uninterrupted one would have drawn, and a picture's noise does not depend on
its batch.
"""

from __future__ import annotations

import hashlib
import json

import torch


def generator(seed: int, *parts: str | int) -> torch.Generator:
    """A CPU generator for one draw, for example `generator(seed, "noise", epoch, name, repeat)`."""
    digest = hashlib.sha256(json.dumps([seed, *parts], ensure_ascii=True).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def uniform(generator: torch.Generator) -> float:
    """One number in [0, 1)."""
    return float(torch.rand((), generator=generator))
