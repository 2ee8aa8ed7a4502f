"""Pictures are shrunk by area and enlarged by Lanczos, then cut: kohya's way."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lorafactory.training.buckets import Fit
from lorafactory.training.pixels import cut, resize

DRAWN = np.random.default_rng(3).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_a_new_pixel_is_the_mean_of_what_it_covers() -> None:
    row = Image.fromarray(np.array([[0, 90, 180]], dtype=np.uint8))
    assert resize(row, (2, 1)).tolist() == [[30, 150]]  # (0 + 90 / 2) / 1.5, (90 / 2 + 180) / 1.5
    assert resize(Image.fromarray(np.array([[1, 2], [2, 1]], dtype=np.uint8)), (1, 1)).tolist() == [[2]]  # 1.5


@pytest.mark.parametrize("size", [(4, 3), (7, 2), (3, 5), (1, 1), (6, 4)])
def test_shrinking_counts_parts_of_pixels(size: tuple[int, int]) -> None:
    # as many copies of each pixel as there will be pixels, so that every border falls between two copies
    fine = DRAWN.astype(float).repeat(size[1], 0).repeat(size[0], 1)
    blocks = fine.reshape(size[1], 5, size[0], 7, 3).mean(axis=(1, 3))
    found = resize(Image.fromarray(DRAWN), size)
    assert found.dtype == np.uint8 and found.shape == (size[1], size[0], 3)
    assert np.abs(found - blocks).max() <= 0.5 + 1e-4


def test_where_a_side_grows_it_is_lanczos() -> None:
    image = Image.fromarray(DRAWN)
    for size in ((9, 9), (9, 4)):
        assert np.array_equal(resize(image, size), np.asarray(image.resize(size, Image.Resampling.LANCZOS)))
    assert np.array_equal(resize(image, (7, 5)), DRAWN)


def test_the_cut_is_mirrored_after_it_is_cut() -> None:
    fit = Fit((3, 2), (7, 5), (2, 1))
    assert np.array_equal(cut(Image.fromarray(DRAWN), fit, flip=False), DRAWN[1:3, 2:5])
    assert np.array_equal(cut(Image.fromarray(DRAWN), fit, flip=True), DRAWN[1:3, 4:1:-1])
