"""One look at each picture: everything that `dedupe` and `filter` measure of it, and CLIP's vector, from one decode.

What was measured is kept in the workspace's cache by the picture's bytes, so that the second step, and the next run
with one picture more, decode only what is new.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lorafactory import encoders, images
from lorafactory.dataset import Picture
from lorafactory.encoders._memory import ahead, batches
from lorafactory.files import write_whole
from lorafactory.step import Work

VERSION = 1
LOOKED_AT_PX = 512
"""All but hash and compression is judged at this longer side: what a trainer sees, not what a camera saved."""
REACH_PX = 4
"""How far from an edge sharpness looks for the two levels that the edge parts."""
THUMB_PX = 32
HASH_PX = 32
"""ImageHash's own size before its cosine transform: 8 bits by 4."""
GRID_PX = 8
"""JPEG's blocks."""
CROP_PX = 1024
"""Compression is judged in the middle of larger pictures."""
ONCE = 64


@dataclass(frozen=True)
class Look:
    """What is measured of a picture."""

    pixels: str | None
    """Hash of the pixels; None if a reduced decode was enough for those who asked so far."""
    width_px: int
    height_px: int
    bits: int
    """The perceptual hash: 64 signs of the lowest cosine waves against their median."""
    mirror_bits: int
    """That of the mirrored picture."""
    thumb: str
    """The picture in 32 x 32 pixels: 3072 bytes in base64."""
    sharpness: float
    blocks: float
    """Compression loss, as `blocks_of` measures it."""
    p5: float
    """Brightness, 0 to 1, below which a twentieth of the pixels is."""
    p99: float
    span: float
    """Levels, 0 to 1, that red, green or blue span, whichever spans most, the extreme fiftieths left out."""
    chroma: float
    """Largest less smallest colour value, 0 to 1, that a hundredth of the pixels exceeds."""

    @property
    def area_px(self) -> int:
        return self.width_px * self.height_px


@dataclass
class Seen:
    """The pictures of a set that can be read, what was measured of each, and what CLIP makes of them."""

    pictures: list[Picture] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    vectors: NDArray[np.float32] | None = None
    unreadable: dict[str, str] = field(default_factory=dict)
    """Name to reason."""


def see(work: Work, *, clip: bool, exact: bool) -> Seen:
    """Look at every picture of the set, decoding only what the cache does not know; `clip` asks for vectors too.

    `exact` asks for the hash of all pixels, for which a reduced decode will not do.
    """
    eye = Eye(work.workspace.cache / "looks", exact)
    pictures = work.set.pictures
    eye.recall(pictures)
    vectors = {}
    if clip and pictures:
        kind = encoders.get("clip")
        vectors = kind.rows(pictures, work.judges.clip, work.workspace.cache, eye.open, work.track)
    unseen = list({p.sha256: p for p in pictures if p.sha256 not in eye.looks | eye.broken}.values())
    for _, _ in zip(work.track(batches(unseen, ONCE), "looking"), ahead(unseen, eye.measure, ONCE), strict=True):
        pass
    found = [p for p in pictures if p.sha256 in eye.looks]
    rows = np.stack([vectors[p.sha256] for p in found]) if vectors and found else None
    broken = {p.name: eye.broken[p.sha256] for p in pictures if p.sha256 in eye.broken}
    return Seen(found, [eye.looks[p.sha256] for p in found], rows, broken)


@dataclass
class Eye:
    """Decodes pictures and keeps what it measures; its methods are called from threads."""

    folder: Path
    exact: bool
    looks: dict[str, Look] = field(default_factory=dict)
    """sha256 of the file to what was measured."""
    broken: dict[str, str] = field(default_factory=dict)
    """sha256 of the file to why it cannot be read."""

    def recall(self, pictures: Sequence[Picture]) -> None:
        for picture in pictures:
            try:
                known = Look(**json.loads(self._file(picture).read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                continue
            if known.pixels or not self.exact:
                self.looks[picture.sha256] = known

    def open(self, picture: Picture) -> Image.Image | None:
        """Decode a picture for CLIP, measuring it on the way if it is new; None if it cannot be read."""
        try:
            image = images.load(picture.path) if self.exact else images.load_reduced(picture.path, LOOKED_AT_PX)
            size = image.size if self.exact else images.size(picture.path)
        except images.Unreadable as error:
            self.broken[picture.sha256] = error.reason
            return None
        if picture.sha256 not in self.looks:
            known = look(image, size)
            self.folder.mkdir(parents=True, exist_ok=True)
            # not synced: what a crash breaks is measured again
            write_whole(self._file(picture), json.dumps(asdict(known)).encode(), synced=False)
            self.looks[picture.sha256] = known
        return image

    def measure(self, picture: Picture) -> None:
        self.open(picture)

    def _file(self, picture: Picture) -> Path:
        return self.folder / f"{hashlib.sha256(f'{picture.sha256} {VERSION}'.encode()).hexdigest()}.json"


# ---------------------------------------------------------------- measuring


def look(image: Image.Image, size: tuple[int, int]) -> Look:
    """Measure a decoded picture; `size` is that of the whole one, which the decode may have reduced."""
    small = reduced(image)
    bits, mirror_bits = hashes(small)
    p5, p99, span, chroma = levels(small)
    whole = image.size == size
    return Look(
        images.pixel_hash(image) if whole else None,
        *size,
        bits,
        mirror_bits,
        base64.b64encode(thumb_of(small)).decode(),
        sharpness(small),
        blocks_of(image) if whole else 0.0,
        p5,
        p99,
        span,
        chroma,
    )


def reduced(image: Image.Image) -> Image.Image:
    small = image.convert("RGB")
    small.thumbnail((LOOKED_AT_PX, LOOKED_AT_PX), Image.Resampling.BOX)
    return small


def hashes(image: Image.Image) -> tuple[int, int]:
    """The perceptual hashes of a picture and of its mirror image, 64 bits each (ImageHash's `phash`)."""
    import imagehash

    gray = image.convert("L").resize((HASH_PX, HASH_PX), Image.Resampling.LANCZOS)
    mirror = gray.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    first, second = (int(str(imagehash.phash(one)), 16) for one in (gray, mirror))
    return first, second


def thumb_of(image: Image.Image) -> bytes:
    return image.resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX).tobytes()


def thumb(one: Look) -> NDArray[np.uint8]:
    """The picture in small; (32, 32, 3)."""
    return np.frombuffer(base64.b64decode(one.thumb), dtype=np.uint8).reshape(THUMB_PX, THUMB_PX, 3)


def levels(image: Image.Image) -> tuple[float, float, float, float]:
    """Brightness of the darkest twentieth and the brightest hundredth, span of the colours, chroma; 0 to 1 each.

    Brightness is as perceived (Finley's HSP): the root of 0.241 r^2 + 0.691 g^2 + 0.068 b^2.
    """
    squares = np.square(np.arange(256, dtype=np.float32))
    bands = [np.asarray(band) for band in image.split()]
    weighed = sum((w * squares).take(band) for w, band in zip((0.241, 0.691, 0.068), bands, strict=True))
    brightness = counts(np.rint(np.sqrt(weighed)).astype(np.uint8))
    chroma = counts(np.maximum.reduce(bands) - np.minimum.reduce(bands))
    span = max(level(each, 0.98) - level(each, 0.02) for each in map(counts, bands))
    return level(brightness, 0.05), level(brightness, 0.99), span, level(chroma, 0.99)


def counts(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each level from 0 to 255 is there."""
    return np.asarray(Image.fromarray(values).histogram(), dtype=np.int64)


def level(found: NDArray[np.int64], share: float) -> float:
    """The level, 0 to 1, that `share` of the pixels do not exceed, from the counts of the levels."""
    return float(np.searchsorted(np.cumsum(found), share * found.sum())) / 255


def sharpness(image: Image.Image) -> float:
    """How much of a strong edge's height lies between two neighbouring pixels: 1 is a step, 0.1 a fog.

    Only edges at least half as strong as the strongest count, and the sharpest tenth of them, so neither a plain
    background nor a soft one behind a sharp subject makes a picture blurred, and contrast and size cancel out.
    Measured at 512 pixels: photographs 0.43 to 0.95, the same after a Gaussian of 2 pixels 0.21 to 0.31.
    """
    values = np.asarray(reduced(image))
    reach = 2 * REACH_PX + 1
    if min(values.shape[:2]) <= reach:
        return 1.0
    height = _over(values, reach, np.maximum) - _over(values, reach, np.minimum)
    steps = np.zeros_like(values)
    steps[:, 1:] = _apart(values[:, 1:], values[:, :-1])
    steps[1:] = np.maximum(steps[1:], _apart(values[1:], values[:-1]))
    edges = height >= max(0.5 * float(height.max()), 8)
    if not edges.any():
        return 1.0
    return float(np.percentile(_over(steps, reach, np.maximum)[edges] / height[edges].astype(np.float32), 90))


def _apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.maximum(one, other) - np.minimum(one, other)


def _over(values: NDArray[np.uint8], reach: int, pick: np.ufunc) -> NDArray[np.uint8]:
    """`pick` over every window of reach x reach, doubling the window as long as it fits."""
    for axis in (0, 1):
        width = 1
        while width < reach:
            step = min(width, reach - width)
            size = values.shape[axis] - step
            first, second = ((slice(None),) * axis + (slice(i, i + size),) for i in (0, step))
            values = pick(values[first], values[second])
            width += step
    return values


def blocks_of(image: Image.Image) -> float:
    """Compression loss: how much more two pixels differ across the edges of JPEG's 8 x 8 blocks than elsewhere.

    0 is none. Photographs, their mean difference of neighbours taken as 1: untouched 0 to 0.04, saved at quality 75
    0.1 to 0.3, at 50 0.2 to 0.6. The blocks may begin anywhere, so a crop or a mirror image changes nothing.
    """
    left, top = (max(0, side - CROP_PX) // 2 for side in image.size)
    cut = image.crop((left, top, min(image.width, left + CROP_PX), min(image.height, top + CROP_PX)))
    values = np.asarray(cut.convert("L"), dtype=np.int16)
    found = []
    for axis in (0, 1):
        steps = np.abs(np.diff(values, axis=axis)).mean(axis=1 - axis)
        whole = len(steps) // GRID_PX * GRID_PX
        if whole:
            phases = steps[:whole].reshape(-1, GRID_PX).mean(axis=0)
            at = int(phases.argmax())
            found.append(phases[at] / max(float(np.delete(phases, at).mean()), 0.1) - 1)
    return max(0.0, float(np.mean(found))) if found else 0.0
