"""Exports: one file = one form in which other tools take a set; a new file in this folder is a new form.

A form is a module with the members of `Format`, and a first docstring line that says for whom it is. What it writes
can be brought in again: `lora make NAME --from EXPORT` gives the same pictures and captions.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from lorafactory.dataset import Subset
from lorafactory.errors import SettingsError


@dataclass(frozen=True)
class Bundle:
    """What is exported."""

    name: str
    subsets: Sequence[Subset]
    """Those with pictures; regularisation folders come last."""
    resolution: int
    """Pixels of a side that training is set to."""

    @property
    def training(self) -> list[Subset]:
        return [s for s in self.subsets if not s.reg]

    @property
    def reg(self) -> list[Subset]:
        return [s for s in self.subsets if s.reg]


class Format(Protocol):
    """What a file of this folder brings."""

    SUFFIX: str
    """Of the file it writes; empty for a folder."""

    def write(self, bundle: Bundle, target: Path, final: Path) -> list[str]:
        """Write the export at `target`, which will be moved to `final`; return what this form cannot hold."""


def names() -> list[str]:
    """Every form there is: the Python files of this folder. Those with a leading underscore are helpers."""
    return sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_"))


def get(name: str) -> Format:
    """Import a form by its name."""
    if name not in names():
        raise SettingsError(f"there is no export {name!r}; known are: {', '.join(names())}")
    return cast(Format, importlib.import_module(f"{__name__}.{name}"))
