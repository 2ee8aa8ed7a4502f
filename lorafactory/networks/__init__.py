"""Adapter kinds: one file = one kind; a new file in this folder is a new kind.

A kind says which layers it changes and how large the change may be; `training/adapter.py` puts it into a base.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from lorafactory.errors import SettingsError


@dataclass(frozen=True)
class Layer:
    """A layer of the base that could carry an adapter."""

    part: str
    path: str
    """Within the part."""
    block: str
    """Which of the family's `targets` it lies in: `attention`, `resnet`, `text`."""
    kernel: int
    """Side of the convolution's kernel; 1 for a linear layer."""


@dataclass(frozen=True)
class Size:
    """The change of one layer is up @ down * alpha / rank."""

    rank: int
    alpha: float


class Settings(Protocol):
    """What a kind reads of the training settings."""

    @property
    def rank(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def conv_rank(self) -> int: ...
    @property
    def conv_alpha(self) -> float: ...


class Network(Protocol):
    """What an adapter kind brings. Implemented by a module of this folder."""

    def size(self, layer: Layer, settings: Settings) -> Size | None:
        """How large an adapter this layer gets; None leaves it as it is."""


def names() -> list[str]:
    """Every kind there is: the Python files of this folder."""
    return sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_"))


def get(name: str) -> Network:
    if name not in names():
        raise SettingsError(f"There is no adapter kind {name!r}. Known: {', '.join(names())}.")
    return cast(Network, importlib.import_module(f"{__name__}.{name}"))
