"""One look at every picture: its size, the colours of its border, and its middle in small. Each is decoded once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lorafactory import crops, images
from lorafactory.crops import Box
from lorafactory.dataset import Picture
from lorafactory.step import Work

Array = NDArray[np.float64]
SIDE = 32
"""Side of the middle, in small pixels: what remains of a portrait is where light and dark are."""
REACH = 4
"""How many small pixels the middle may move left or right to find the subject's axis."""
THUMB = 192
"""Longer side of a picture on the contact sheet, in pixels."""
CELLS = 4
"""The border is read along the edge of a grid of so many cells each way."""


@dataclass(frozen=True)
class Look:
    """What is seen of a picture."""

    picture: Picture
    size: tuple[int, int]
    """Width, height in pixels, upright."""
    strip: Array
    """Luminance 0 to 1 of the middle square, SIDE high and SIDE + 2 REACH wide."""
    border: Array
    """Lab colours of the cells along the edge, (12, 3)."""
    thumb: Image.Image
    """The picture with its longer side at THUMB pixels, for the contact sheet."""
    crop: Box | None = None
    """The part of it that is trained on, which strip and border are of; None: all of it."""

    @property
    def name(self) -> str:
        return self.picture.name

    @property
    def part(self) -> Box:
        """What is trained on, in pixels of the picture."""
        return self.crop or (0, 0, *self.size)

    @property
    def trained(self) -> tuple[int, int]:
        """Width, height in pixels of what is trained on."""
        return crops.size_of(self.part)


@dataclass(frozen=True)
class Seen:
    """All that could be read, and the files that could not, with the reason."""

    looks: list[Look]
    unreadable: dict[str, str]
    originals: bool = False
    """True if these are originals that will be imported, because the set is still empty."""


def seen(work: Work) -> Seen:
    """Look at the set; where it is still empty, at the originals that will become it."""
    found, originals = work.set.pictures, False
    if not found and work.place.owned:
        found, originals = [Picture(path) for path in images.find_sources(work.originals)], True
    looks, unreadable, cut = [], {}, work.set.crops
    for picture in work.track(found, "looking at pictures"):
        try:
            image, size = images.load_reduced(picture.path, THUMB), images.size(picture.path)
            looks.append(look(picture, image, size, cut.get(picture.name)))
        except images.Unreadable as error:
            unreadable[picture.name] = error.reason
    return Seen(looks, unreadable, originals)


def look(picture: Picture, image: Image.Image, size: tuple[int, int], crop: Box | None = None) -> Look:
    """Look at a decoded picture, which may have come smaller than its `size`. A crop beyond it is said by `train`."""
    crop = None if crop and crops.outside(crop, size) else crop
    whole = image.convert("RGB")
    image = whole.crop(crops.scaled(crop, image.width / size[0], image.height / size[1])) if crop else whole
    small = image.resize((CELLS, CELLS), Image.Resampling.BOX)
    edge = np.ones((CELLS, CELLS), dtype=bool)
    edge[1:-1, 1:-1] = False
    border = lab(np.asarray(small, dtype=np.float64)[edge])
    return Look(picture, size, strip(image), border, thumbnail(whole), crop)


def thumbnail(image: Image.Image) -> Image.Image:
    """Shrink to THUMB pixels, or enlarge small drawings, so that they can be seen."""
    factor = THUMB / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.LANCZOS)


def strip(image: Image.Image) -> Array:
    """The picture's middle square in gray and small, with what lies to its left and right where there is any."""
    wide = SIDE + 2 * REACH
    side = min(image.height, image.width * SIDE / wide)
    left, top = (image.width - side * wide / SIDE) / 2, (image.height - side) / 2
    box = (left, top, image.width - left, image.height - top)
    gray = image.convert("L").resize((wide, SIDE), Image.Resampling.BOX, box=box)
    return np.asarray(gray, dtype=np.float64) / 255


def lab(rgb: Array) -> Array:
    """CIE L*a*b* (D65) of sRGB colours 0 to 255, after IEC 61966-2-1 and CIE 15."""
    x = rgb / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
