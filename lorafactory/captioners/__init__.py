"""Captioners: one file = one way to describe a picture in words; a new file in this folder is a new captioner.

A captioner is a module with the members of `Kind`. What it wrote is cached by its `identity` and the picture's bytes.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from lorafactory.errors import SettingsError

if TYPE_CHECKING:
    from PIL import Image


class Captioner(Protocol):
    """A loaded model."""

    def caption(self, images: Sequence[Image.Image], *, batch: int, **how: Any) -> list[str]:
        """Describe each picture in one line; "" where the model says nothing. `how` holds what its kind is `ASKED`."""


class Kind(Protocol):
    """What a file of this folder brings. `model` is a folder or a hub id."""

    MODEL: str
    """The hub id of the weights that are asked when no others are named."""
    ASKED: tuple[str, ...]
    """Which settings of `[caption]` it takes besides the batch."""
    PROSE: bool
    """True if it writes sentences, which have phrases; False if it lists tags."""

    def missing(self, model: str) -> str | None:
        """Say what is not on this machine and how to get it; None if all is there. Imports no torch."""

    def sources(self, model: str) -> tuple[str, list[str]]:
        """The repository and the files on the hub that `lora init --fetch` brings."""

    def identity(self, model: str) -> str:
        """Return what tells this model's captions from another's: the hash of its files, or its commit."""

    def load(self, model: str) -> Captioner:
        """Load the model; InputError if it is missing."""


def names() -> list[str]:
    """Every captioner there is: the Python files of this folder. Those with a leading underscore are helpers."""
    return sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_"))


def get(name: str) -> Kind:
    """Import a captioner by its name."""
    if name not in names():
        raise SettingsError(f"there is no captioner {name!r}; known are: {', '.join(names())}")
    return cast(Kind, importlib.import_module(f"{__name__}.{name}"))
