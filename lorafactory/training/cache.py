"""Tensors kept by what they were made from: never by a file's place or age, so an edit can never meet an old entry.

In the memory of one run, and with a folder on disk too, where all runs share them. A cache is safe to delete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save
from torch import Tensor

from lorafactory import files

Entry = dict[str, Tensor]


class Cache:
    """Entries by the canonical JSON of what went in."""

    def __init__(self, folder: Path | None, *, most: int | None = None) -> None:
        """Keep on disk in `folder` if there is one; in memory at most `most` entries, the latest."""
        self.folder, self.most = folder, most
        self.memory: dict[str, Entry] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def get(self, what: Mapping[str, Any], make: Callable[[], Entry]) -> Entry:
        """Find the entry of `what`, or make and keep it; its tensors are on the CPU."""
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        if key not in self.memory:
            entry = self._read(key)
            if entry is None:
                entry = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
                if self.folder is not None:
                    files.write_whole(self._path(key), save(entry))
            self.memory[key] = entry
            if self.most is not None and len(self.memory) > self.most:
                del self.memory[next(iter(self.memory))]
        return self.memory[key]

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"

    def _read(self, key: str) -> Entry | None:
        if self.folder is None:
            return None
        try:
            return load_file(self._path(key))
        except FileNotFoundError:
            return None
        except safetensors.SafetensorError:  # torn: made again
            self._path(key).unlink(missing_ok=True)
            return None
