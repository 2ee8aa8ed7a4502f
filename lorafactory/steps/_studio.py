"""Drawing cells: the base stays loaded, LoRAs are swapped in it, texts are read once, seeds go in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from PIL import Image

from lorafactory import families, images
from lorafactory.errors import OutOfMemory
from lorafactory.steps._axis import without
from lorafactory.steps._cells import Cell, Checkpoint, Column, How

Track = Callable[[Sequence[Any], str], Iterable[Any]]


class Studio:
    """Holds one base at a time, with at most one LoRA in it; nothing is loaded before it is needed."""

    def __init__(self, how: How, batch: int) -> None:
        self.how, self.batch = how, batch
        self.drawn, self.seconds = 0, 0.0
        """Pictures drawn so far, and how long the drawing took."""
        self._base: Any = None
        self._from: Checkpoint | None = None
        self._now: Column | None = None
        self._applied: Any = None
        self._plain: dict[str, Any] = {}
        self._words: dict[str, Any] = {}
        """What the text encoders said: without a LoRA, and as they are now."""

    def paint(self, cells: Sequence[Cell], track: Track, what: str) -> int:
        """Draw the cells whose file is not there, and return how many these were."""
        missing = list({cell.path: cell for cell in cells if not cell.path.exists()}.values())
        for chunk in track(chunks(missing, self.batch), what) if missing else ():
            chunk[0].path.parent.mkdir(parents=True, exist_ok=True)
            self._take(chunk[0].column)
            began = time.monotonic()
            pictures = self._draw_or_less(chunk)
            for cell, picture in zip(chunk, pictures, strict=True):
                images.save_png(picture, cell.path)
            self.seconds += time.monotonic() - began
            self.drawn += len(chunk)
        return len(missing)

    def measure(self, cells: Sequence[Cell], track: Track) -> float:
        """Seconds a picture of one batch, which is kept; before it one step, as the first is slower than others."""
        first = chunks(cells, self.batch)[0]
        self._take(first[0].column)
        self.draw([cell.text for cell in first], [cell.seed for cell in first], 1)
        before = self.drawn, self.seconds
        self.paint(first, track, "comparing: how fast")
        return (self.seconds - before[1]) / (self.drawn - before[0])

    def _draw_or_less(self, cells: Sequence[Cell]) -> list[Image.Image]:
        """Draw cells of one column, from then on fewer at once if the memory does not do."""
        import torch

        try:
            return self.draw([cell.text for cell in cells], [cell.seed for cell in cells], self.how.steps)
        except torch.OutOfMemoryError as error:
            if self.batch == 1:
                side = self.how.side
                fix = f"--resolution {side // 2 // 8 * 8}, or close what else is on the card"
                raise OutOfMemory(f"no memory for one picture of {side} x {side} pixels: {fix}") from error
        self.batch //= 2
        torch.cuda.empty_cache()
        return self._draw_or_less(cells)

    def draw(self, texts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Image.Image]:
        from lorafactory.training.sample import sample

        size, how = (self.how.side, self.how.side), self.how
        told: dict[str, Any] = {"size": size, "cfg": how.cfg, "clip_skip": how.clip_skip, "words": self._words}
        return sample(self._base, texts, seeds, steps=steps, batch=self.batch, **told)

    def put_back(self) -> None:
        """Leave the base as it was: others may draw or train with it."""
        from lorafactory.training import lora_file

        if self._applied:
            lora_file.remove(self._applied)
        self._applied = self._now = None

    def _take(self, column: Column) -> None:
        """Have a column's base, and its LoRA in it."""
        if column == self._now:
            return
        from lorafactory.training import lora_file

        self.put_back()
        self.have(column.base)
        self._words = self._plain
        if column.save:
            path = column.save.path
            file = without(lora_file.read(path)[0], column.off) if column.off else path
            self._applied = lora_file.apply(self._base, file, column.strength)
            if any(name.startswith("lora_te") for name in families.header(path)):
                self._words = {}  # these text encoders say other things
        self._now = column

    def have(self, base: Checkpoint) -> None:
        """Have a base loaded."""
        if base == self._from:
            return
        from lorafactory.training.precision import DTYPES

        self._base, self._plain = None, {}  # the former is let go before the next comes
        path = base.models.base
        assert path is not None
        told: dict[str, Any] = {"dtype": DTYPES[self.how.dtype], "device": self.how.device}
        self._base = families.load(path, **told, **base.models.told)
        self._from = base


def chunks(cells: Sequence[Cell], batch: int) -> list[list[Cell]]:
    """Runs of at most `batch` cells of one column."""
    found: list[list[Cell]] = []
    for cell in cells:
        if found and len(found[-1]) < batch and found[-1][0].column == cell.column:
            found[-1].append(cell)
        else:
            found.append([cell])
    return found
