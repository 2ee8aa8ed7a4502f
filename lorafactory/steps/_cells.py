"""What a comparison may draw: columns, prompts and seeds, and the file of each cell, which is named by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path

from lorafactory.scoring.prompts import Prompt
from lorafactory.steps._saves import Save
from lorafactory.workspace import ModelSet

DRAWING = 2
"""Raised when the sampler draws another picture from the same numbers: no cached cell is used then."""
Spot = tuple[int, int]
"""A place in a column: index of the prompt, and the seed."""


@dataclass(frozen=True)
class Checkpoint:
    """A base that is drawn with."""

    models: ModelSet
    identity: str
    called: str = ""
    """Where its own name is another one's too."""

    @property
    def name(self) -> str:
        return self.called or (self.models.base.name if self.models.base else "")


@dataclass(frozen=True)
class Column:
    """A save at a strength, or the baseline (no save, strength 0), on a base."""

    base: Checkpoint
    save: Save | None = None
    strength: float = 0.0
    tensors: str = ""
    """Hash of the save's tensors."""
    off: str = ""
    """The group of blocks that is left out of the save; see `_axis`."""


@dataclass(frozen=True)
class How:
    """What every picture is drawn with."""

    side: int
    """Width and height in pixels."""
    clip_skip: int
    steps: int
    cfg: float
    dtype: str
    device: str
    """cuda or cpu, which do not draw quite the same."""


@dataclass(frozen=True)
class Cell:
    """One picture to be drawn, and where it is kept."""

    column: Column
    text: str
    seed: int
    path: Path


@dataclass(frozen=True)
class Board:
    """Prompts and seeds, the same for every column."""

    folder: Path
    """The cells' files are in it."""
    prompts: Sequence[Prompt]
    seeds: Sequence[int]
    how: How

    @cached_property
    def spots(self) -> list[Spot]:
        """Prompt by prompt, seed by seed."""
        return [(i, seed) for i in range(len(self.prompts)) for seed in self.seeds]

    def cell(self, column: Column, spot: Spot) -> Cell:
        text, seed = self.prompts[spot[0]].text, spot[1]
        content = [column.tensors, column.strength, column.off, column.base.identity]
        told = [DRAWING, *content, text, seed, *astuple(self.how)]
        key = hashlib.sha256(json.dumps(told, separators=(",", ":")).encode()).hexdigest()
        return Cell(column, text, seed, self.folder / f"{key[:32]}.png")

    def cells(self, columns: Iterable[Column], spots: Iterable[Spot]) -> list[Cell]:
        """Column by column."""
        wanted = list(spots)
        return [self.cell(column, spot) for column in columns for spot in wanted]
