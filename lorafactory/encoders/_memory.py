"""What encoders share: vectors remembered by content, and work done in threads ahead of the one who waits for it."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lorafactory.files import write_whole

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Memory:
    """Vectors in `cache/embeddings`, one file each, by what was encoded and by the model that did it."""

    folder: Path
    model: str
    """The model's identity."""

    def file(self, content: str) -> Path:
        return self.folder / f"{hashlib.sha256(f'{content} {self.model}'.encode()).hexdigest()}.npy"

    def get(self, content: str) -> NDArray[np.float32] | None:
        """The vector of a content, such as a file's sha256; None if it is not there, or broken."""
        try:
            row = np.load(self.file(content), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return row if row.ndim == 1 and row.dtype == np.float32 else None

    def put(self, content: str, row: NDArray[np.float32]) -> None:
        buffer = io.BytesIO()
        np.save(buffer, row, allow_pickle=False)
        self.folder.mkdir(parents=True, exist_ok=True)
        # not synced: that takes as long as encoding, and what a crash breaks is made again
        write_whole(self.file(content), buffer.getvalue(), synced=False)


def batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def ahead(items: Sequence[T], work: Callable[[T], R], size: int) -> Iterator[list[R]]:
    """Do `work` on each item in threads and yield the results batch by batch, in order.

    While the caller is busy with one batch, the next is in the making; no more than that is held.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        making: list[Future[R]] = []
        try:
            for some in batches(items, size):
                coming = [pool.submit(work, item) for item in some]
                if making:
                    yield [made.result() for made in making]
                making = coming
            if making:
                yield [made.result() for made in making]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
