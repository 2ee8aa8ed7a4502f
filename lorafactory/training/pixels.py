"""From a picture to the pixels that are trained on: resized, cut and mirrored as kohya does (trainers.md 1.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

from lorafactory.training.buckets import Fit, Size

Pixels = NDArray[np.uint8]


def cut(image: Image.Image, fit: Fit, *, flip: bool) -> Pixels:
    """Pixels (h, w) of a grey picture or (h, w, 3) of a coloured one, of the bucket's size."""
    left, top = fit.crop
    width, height = fit.bucket
    found = resize(image, fit.resized)[top : top + height, left : left + width]
    return found[:, ::-1] if flip else found


def resize(image: Image.Image, size: Size) -> Pixels:
    """Shrink by area, where neither side grows; else Lanczos: sd-scripts' `resize_image` with its defaults."""
    if image.size == size:
        return np.asarray(image)
    if image.width < size[0] or image.height < size[1]:
        return np.asarray(image.resize(size, Image.Resampling.LANCZOS))
    pixels = np.asarray(image, dtype=np.float32)
    height, width = pixels.shape[:2]
    rows = (_cover(height, size[1]) @ pixels.reshape(height, -1)).reshape(size[1], width, -1)
    columns = _cover(width, size[0]) @ rows.swapaxes(0, 1).reshape(width, -1)
    shrunk: Pixels = np.floor(columns.reshape(size[0], size[1], -1).swapaxes(0, 1) + 0.5).astype(np.uint8)
    return shrunk.reshape(size[1], size[0], *pixels.shape[2:])


def _cover(old: int, new: int) -> sparse.csr_matrix:
    """What share each of `old` cells has in each of `new` larger ones (new, old), as OpenCV's INTER_AREA counts."""
    scale = old / new
    edges = np.arange(new + 1) * scale
    first = np.floor(edges[:-1]).astype(int)
    cells = first[:, None] + np.arange(int(np.ceil(scale)) + 1)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    share = (np.clip(overlap, 0, None) / scale).astype(np.float32)
    places = (np.repeat(np.arange(new), cells.shape[1]), np.minimum(cells, old - 1).ravel())
    return sparse.csr_matrix((share.ravel(), places), shape=(new, old))
