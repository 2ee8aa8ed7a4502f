"""Encoders: one file = one way to turn pictures and texts into unit vectors; a new file in this folder is a new one.

An encoder is a module with the members of `Kind`. Its vectors belong to it: a threshold for one model's cosines says
nothing about another's.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, overload

from lorafactory.errors import SettingsError

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray
    from PIL import Image

    from lorafactory.dataset import Picture

Track = Callable[[Sequence[Any], str], Iterable[Any]]
"""Iterates over the first argument under a bar that is called as the second says, as `Work.track` does."""
Opened = Callable[["Picture"], "Image.Image | None"]
"""Decodes a picture; None if it cannot be."""


class Seeing(Protocol):
    """A loaded model of pictures."""

    def encode_images(self, pictures: Sequence[Image.Image]) -> NDArray[float32]:
        """Return one row of length 1 per picture."""


class Encoder(Seeing, Protocol):
    """A loaded model of pictures and texts."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return one row of length 1 per text, comparable with those of pictures."""


class Kind(Protocol):
    """What a file of this folder brings. `model` is what a model set says, as `folder:PATH` or a known name."""

    def missing(self, model: str) -> str | None:
        """Say what is not on this machine and how to get it; None if all is there. Imports no torch."""

    def sources(self, model: str) -> tuple[str, list[str]]:
        """The repository and the files on the hub that `lora init --fetch` brings."""

    def identity(self, model: str) -> str:
        """Return what tells this model's vectors from another's: the hash of its files, or its commit."""

    def load(self, model: str) -> Seeing:
        """Load the model; InputError if it is missing."""


class Reader(Kind, Protocol):
    """One that reads texts too, and remembers by content what it has seen and read."""

    def load(self, model: str) -> Encoder:
        """Load the model; InputError if it is missing."""

    def embed(self, pictures: Sequence[Picture], model: str, cache: Path, track: Track = ...) -> NDArray[float32]:
        """Return one row per picture, from the cache where the same bytes were seen before."""

    def rows(
        self, pictures: Sequence[Picture], model: str, cache: Path, opened: Opened, track: Track = ...
    ) -> dict[str, NDArray[float32]]:
        """Return the same by sha256; `opened` is asked, in threads, for pictures that were not seen before."""

    def read(self, texts: Sequence[str], model: str, cache: Path) -> NDArray[float32]:
        """Return one row per text, from the cache where the same was read before."""


def names() -> list[str]:
    """Every encoder there is: the Python files of this folder. Those with a leading underscore are helpers."""
    return sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_"))


@overload
def get(name: Literal["clip"]) -> Reader: ...
@overload
def get(name: str) -> Kind: ...
def get(name: str) -> Kind:
    """Import an encoder by its name."""
    if name not in names():
        raise SettingsError(f"there is no encoder {name!r}; known are: {', '.join(names())}")
    return cast(Kind, importlib.import_module(f"{__name__}.{name}"))
