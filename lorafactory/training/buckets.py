"""Aspect-ratio buckets as kohya makes and fills them.

Source, restated: sd-scripts `library/model_util.py: make_bucket_resolutions` and `library/train_util.py:
BucketManager`. All sizes are (width, height) in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lorafactory.crops import Box
from lorafactory.errors import InputError, SettingsError

Size = tuple[int, int]


@dataclass(frozen=True)
class Fit:
    """How one picture becomes a training picture: resize, then cut the bucket out of it."""

    bucket: Size
    resized: Size
    crop: tuple[int, int]
    """Left, top of the cut; that of the middle, unless it was moved."""

    @property
    def room(self) -> tuple[int, int]:
        """How far to the right and down, in pixels, the cut may begin."""
        return self.resized[0] - self.bucket[0], self.resized[1] - self.bucket[1]

    def within(self, part: Box) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the cut in pixels of the picture, of which `part` was resized."""
        across, down = (part[2] - part[0]) / self.resized[0], (part[3] - part[1]) / self.resized[1]
        left, top = part[0] + self.crop[0] * across, part[1] + self.crop[1] * down
        return left, top, left + self.bucket[0] * across, top + self.bucket[1] * down

    def at(self, left: int, top: int) -> Fit:
        """The same with the cut somewhere else."""
        return replace(self, crop=(left, top))


def resolutions(side: int, smallest: int, largest: int, step: int) -> list[Size]:
    """Every bucket whose area is at most side x side, sorted by width, then height."""
    if step < 1 or side < step or smallest > largest:
        raise SettingsError(
            f"No buckets: resolution {side}, min_bucket {smallest}, max_bucket {largest}, bucket_step {step}."
        )
    area = side * side
    square = side // step * step
    found = {(square, square)}
    for width in range(smallest, largest + 1, step):
        height = min(largest, area // width // step * step)
        if height >= smallest:
            found |= {(width, height), (height, width)}
    return sorted(found)


def fit(size: Size, side: int, smallest: int, largest: int, step: int, *, upscale: bool, name: str = "") -> Fit:
    """Find the bucket of a picture; `name` is for the message when none can hold it."""
    if min(size) < 1:
        raise InputError(f"{name or 'a picture'}: has no pixels.")
    if upscale:
        bucket, resized = _upscaled(size, resolutions(side, smallest, largest, step))
    else:
        bucket, resized = _natural(size, side, step)
    if min(bucket) < step or bucket[0] > resized[0] or bucket[1] > resized[1]:
        # kohya would go on with an empty picture
        raise InputError(
            f"{name or 'a picture'}: {size[0]}x{size[1]} is too small or too narrow a strip for buckets "
            f"in steps of {step} pixels; take it out of the set, or crop it."
        )
    crop = ((resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2)
    return Fit(bucket, resized, crop)


def _upscaled(size: Size, buckets: list[Size]) -> tuple[Size, Size]:
    """Take the bucket of the nearest aspect ratio, and the size that just covers it."""
    width, height = size
    aspect = width / height
    bucket = size if size in buckets else min(buckets, key=lambda b: abs(b[0] / b[1] - aspect))
    scale = bucket[1] / height if aspect > bucket[0] / bucket[1] else bucket[0] / width
    return bucket, (int(width * scale + 0.5), int(height * scale + 0.5))


def _natural(size: Size, side: int, step: int) -> tuple[Size, Size]:
    """Never enlarge: shrink to the area where needed, and round each side down to the step."""
    width, height = size
    area = side * side
    resized = size
    if width * height > area:
        aspect = width / height
        ideal_width = math.sqrt(area * aspect)
        by_width = _down(ideal_width, step)
        height_then = _down(by_width / aspect, step)
        by_height = _down(area / ideal_width, step)
        width_then = _down(by_height * aspect, step)
        # of the two ways to round, keep the one whose aspect ratio is nearer
        if _error(by_width, height_then, aspect) < _error(width_then, by_height, aspect):
            resized = (by_width, int(by_width / aspect + 0.5))
        else:
            resized = (int(by_height * aspect + 0.5), by_height)
    return (resized[0] - resized[0] % step, resized[1] - resized[1] % step), resized


def _down(x: float, step: int) -> int:
    rounded = int(x + 0.5)
    return rounded - rounded % step


def _error(width: int, height: int, aspect: float) -> float:
    return abs(width / height - aspect) if height else math.inf


def letterbox(original: Size, bucket: Size, *, flip: bool = False) -> tuple[int, int]:
    """Left, top of the crop that SDXL is told: the bars of the picture laid whole into its bucket, never negative.

    Not where the picture was cut: kohya's rule (sd-scripts `BucketManager.get_crop_ltrb`), after Stability AI's own
    training, for centre and random cuts alike; of a mirrored picture the bar on the right.
    """
    aspect = original[0] / original[1]
    if bucket[0] / bucket[1] > aspect:
        width, height = bucket[1] * aspect, float(bucket[1])
    else:
        width, height = float(bucket[0]), bucket[0] / aspect
    left, top = (bucket[0] - width) // 2, (bucket[1] - height) // 2
    return int(bucket[0] - left - width if flip else left), int(top)
