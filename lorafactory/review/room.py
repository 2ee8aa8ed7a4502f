"""What the server holds between two requests: the sets that are shown, blind sittings, and whether it is ending."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lorafactory.errors import InputError, LoraError
from lorafactory.review.blind import Sitting
from lorafactory.review.book import Book
from lorafactory.review.checking import Checking
from lorafactory.review.events import Closing
from lorafactory.review.guard import Keys
from lorafactory.workspace import LoraDir, Workspace

SITTINGS = 8
"""Blind sittings that are kept; those that nobody ended give way to newer ones."""


@dataclass
class Room:
    """One workspace, opened at one LoRA or folder."""

    space: Workspace
    first: LoraDir
    apply: bool
    keys: Keys = field(default_factory=Keys)
    closing: Closing = field(default_factory=Closing)
    entered: Callable[[], None] = lambda: None
    """Told that somebody used the token."""
    sittings: dict[str, Sitting] = field(default_factory=dict)
    _books: dict[str, Book] = field(default_factory=dict)
    _spare: tempfile.TemporaryDirectory[str] | None = None

    def book(self, name: str) -> Book:
        """The set of that name: the one the server was opened at, or a LoRA of the workspace."""
        if name not in self._books:
            if name == self.first.name:
                place, apply = self.first, self.apply
            else:
                place, apply = self.lora(name), True
            self._books[name] = Book(self.space, place, apply, self.cache, Checking())
        return self._books[name]

    def warm(self) -> None:
        """Read the set before somebody asks: a thousand pictures take seconds to hash, and a browser to open."""
        with suppress(LoraError, OSError):  # whoever asks is told
            self.book(self.first.name).told()

    def lora(self, name: str) -> LoraDir:
        known = {folder.name for folder in self.space.loras.glob("*/")}
        if name not in known:
            raise InputError(f"there is no LoRA called {name}")
        return self.space.lora(name)

    @property
    def cache(self) -> Path:
        """Where small pictures are kept: the workspace's cache; looking at a folder makes no workspace."""
        if self.space.root.is_dir():
            return self.space.cache
        self._spare = self._spare or tempfile.TemporaryDirectory(prefix="lorafactory-")
        return Path(self._spare.name)

    def sit(self, sitting: Sitting) -> Sitting:
        while len(self.sittings) >= SITTINGS:
            del self.sittings[next(iter(self.sittings))]
        self.sittings[sitting.id] = sitting
        return sitting

    def sitting(self, name: str) -> Sitting:
        if name not in self.sittings:
            raise InputError("this blind comparison is over; begin another one")
        return self.sittings[name]

    def close(self) -> None:
        self.closing.now = True
        if self._spare:
            self._spare.cleanup()
