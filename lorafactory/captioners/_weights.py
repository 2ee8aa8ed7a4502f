"""Where a captioner's files are: a folder, or the hub's cache. Nothing is downloaded here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lorafactory import images
from lorafactory.errors import InputError

T = TypeVar("T")
WEIGHTS = "model.safetensors"
COUNTED = frozenset({".safetensors", ".json", ".txt", ".csv"})
"""What of a folder tells one model from another."""


@dataclass(frozen=True)
class Files:
    """What a captioner's model is made of; `usual` is the hub id that `fetch` brings."""

    name: str
    needed: tuple[str, ...]
    usual: str
    size: str
    fetch: str

    def missing(self, model: str) -> str | None:
        """Say what is not on this machine and how to get it; None if all is there."""
        folder = Path(model)
        if folder.is_dir():
            lacking = [name for name in self.needed if not (folder / name).is_file()]
            return f"{self.name} is not whole: {folder} has no {' and no '.join(lacking)}" if lacking else None
        lacking = [name for name in self.needed if cached(model, name) is None]
        if not lacking:
            return None
        said = f"{self.name} is not on this machine: {model}/{lacking[0]}"
        if model == self.usual:
            return f"{said}, {self.size} in all; {self.fetch} gets it"
        return f"{said}; say where it is, as in --model FOLDER, or leave --model out for {self.usual}"

    def identity(self, model: str) -> str:
        """Return what tells this model's captions from another's: the hash of its files, or its commit on the hub."""
        folder, kind = self.folder(model), self.name.split()[0].lower()
        if not Path(model).is_dir():
            return f"{kind}:{model}@{folder.name}"
        files = sorted(p for p in folder.iterdir() if p.suffix in COUNTED)
        whole = "".join(f"{p.name} {images.sha256(p)}\n" for p in files)
        return f"{kind}:" + hashlib.sha256(whole.encode()).hexdigest()

    def folder(self, model: str) -> Path:
        """The folder that holds the files, `.../snapshots/<commit>` of a hub id; InputError if one is missing."""
        if lacking := self.missing(model):
            raise InputError(lacking)
        file = cached(model, WEIGHTS) if not Path(model).is_dir() else None
        return file.parent if file else Path(model)


def cached(model: str, file: str) -> Path | None:
    """A file of a hub id in the hub's cache, without asking the hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, file)
    except HFValidationError:  # a path at which nothing is
        return None
    return Path(found) if isinstance(found, str) else None


def in_batches(items: Sequence[T], batch: int, describe: Callable[[Sequence[T]], list[str]]) -> list[str]:
    """Describe all, `batch` at once; halved where the GPU's memory does not hold it, and the rest goes on so."""
    import torch

    done: list[str] = []
    while len(done) < len(items):
        some = items[len(done) : len(done) + batch]
        try:
            done += describe(some)
        except torch.cuda.OutOfMemoryError:
            if len(some) == 1:
                raise
            torch.cuda.empty_cache()
            batch = len(some) // 2
    return done
