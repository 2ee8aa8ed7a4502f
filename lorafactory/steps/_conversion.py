"""How one original becomes one picture of the set; knows of no other, so many are converted at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lorafactory import images
from lorafactory.errors import LoraError

LONGEST_PX = 2048
"""Seed 003 asks for 256 to 2048 pixels, and no bucket of today's bases is longer."""
IN_FLIGHT_MPX = 128
"""Originals in work at a time, by their pixels; each takes 8 bytes while it is converted, with transparency 17."""
_SEVERAL = {"TIFF": "pages", "MPO": "pictures", "HEIF": "pictures"}

Box = tuple[int, int, int, int]
Size = tuple[int, int]


@dataclass(frozen=True)
class Conversion:
    """What is done to every original; as a text it tells one conversion from another."""

    background: str
    full_size: bool
    crop: bool
    upscale_to: int

    def __str__(self) -> str:
        parts = ["full size" if self.full_size else f"at most {LONGEST_PX} px"]
        parts += [f"at least {self.upscale_to} px"] if self.upscale_to else []
        parts += ["centre crop"] if self.crop else []
        return ", ".join([*parts, f"on {self.background}"])

    def frame(self, size: Size) -> tuple[Box, Size]:
        """Give the part of an original of this size that is kept, and the size it gets, in pixels.

        Down so far that the longer side fits, else up so far that the shorter side is long enough; but never up
        beyond LONGEST_PX, whatever the shorter side.
        """
        width, height = size
        side = min(size)
        left, top = ((width - side) // 2, (height - side) // 2) if self.crop else (0, 0)
        kept = (side, side) if self.crop else size
        most = LONGEST_PX / max(kept)
        scale = min(max(1.0, self.upscale_to / side), max(1.0, most) if self.full_size else most)
        scaled = (max(1, round(kept[0] * scale)), max(1, round(kept[1] * scale)))
        return (left, top, left + kept[0], top + kept[1]), scaled


@dataclass(frozen=True)
class Converted:
    """A picture as it will be written."""

    png: bytes
    mask: bytes | None
    """PNG of the opacity, as large as the picture; None if the original is opaque everywhere."""
    original_px: Size
    """Of the upright original."""
    px: Size
    least_px: int
    """The original's shorter side once the longer one fits, before any scaling up."""
    left_out: str
    """Says that there are more frames or pages; empty if there are not."""
    moving: bool
    """True if those are the frames of an animation, rather than a camera's second picture."""


def convert(original: Path, how: Conversion) -> Converted:
    """Decode, crop, scale and encode one original; Unreadable if it is no whole picture."""
    decoded = images.decode(original, how.background)
    full = decoded.image.size
    box, px = how.frame(full)
    mask = decoded.mask and framed(decoded.mask, box, px, Image.Resampling.BILINEAR)  # Lanczos would ring at edges
    scale = min(1.0, max(px) / max(box[2] - box[0], box[3] - box[1]))
    several = _SEVERAL.get(decoded.kind, "frames")
    return Converted(
        png=images.png(framed(decoded.image, box, px, Image.Resampling.LANCZOS)),
        mask=images.png(mask) if mask else None,
        original_px=full,
        px=px,
        least_px=round(min(full) * scale),
        left_out=f"the first of {decoded.frames} {several}" if decoded.frames > 1 else "",
        moving=several != "pictures",
    )


def framed(image: Image.Image, box: Box, size: Size, filter_: Image.Resampling) -> Image.Image:
    """Cut out a part and scale it; a picture that needs neither keeps its pixels."""
    if size == (box[2] - box[0], box[3] - box[1]):
        return image if size == image.size else image.crop(box)
    return image.resize(size, filter_, box=box)


def converted(originals: Iterable[Path], how: Conversion) -> Iterator[Converted | images.Unreadable]:
    """Convert on all cores, ahead of the reader; results come in the order of the originals.

    Threads do: Pillow decodes, scales and compresses without Python's lock. Unreadable is given back, not raised,
    so that the others go on.
    """
    cores = os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores, "convert")
    waiting: deque[tuple[Future[Converted | images.Unreadable], float]] = deque()
    try:
        for original in originals:
            cost = megapixels(original)
            while waiting and (len(waiting) > 2 * cores or cost + sum(c for _, c in waiting) > IN_FLIGHT_MPX):
                yield waiting.popleft()[0].result()
            waiting.append((pool.submit(_attempt, original, how), cost))
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(original: Path, how: Conversion) -> Converted | images.Unreadable:
    try:
        return convert(original, how)
    except images.Unreadable as error:
        return error


def megapixels(original: Path) -> float:
    """Read from the header; 0 for what will be refused."""
    try:
        width, height = images.size(original)
    except LoraError:
        return 0.0
    return width * height / 1e6
