"""Buckets are kohya's: the same list, the same choice, the same cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorafactory.errors import InputError, SettingsError
from lorafactory.training.buckets import Fit, fit, letterbox, resolutions


def test_the_lists_of_sd15_and_sdxl() -> None:
    assert len(resolutions(1024, 256, 2048, 64)) == 41
    small = resolutions(512, 256, 1024, 64)
    assert len(small) == 17
    assert small[0] == (256, 832) and small[-1] == (1024, 256) and (512, 512) in small
    assert small == sorted(set(small))


@pytest.mark.parametrize(
    ("size", "bucket", "resized"),
    [
        ((1920, 1080), (1344, 768), (1365, 768)),
        ((3000, 4000), (896, 1152), (896, 1195)),
        ((800, 600), (1152, 896), (1195, 896)),
        ((5000, 700), (2048, 320), (2286, 320)),
        ((63, 500), (256, 2048), (258, 2048)),
        ((1024, 1024), (1024, 1024), (1024, 1024)),
    ],
)
def test_with_upscaling(size: tuple[int, int], bucket: tuple[int, int], resized: tuple[int, int]) -> None:
    found = fit(size, 1024, 256, 2048, 64, upscale=True)
    assert (found.bucket, found.resized) == (bucket, resized)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((3000, 4000), (832, 1088)), ((800, 600), (768, 576)), ((5000, 700), (2240, 320)), ((1920, 1080), (1344, 768))],
)
def test_without_upscaling(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    assert fit(size, 1024, 256, 2048, 64, upscale=False).bucket == bucket


@pytest.mark.parametrize(
    ("size", "resized"),
    [((3000, 4000), (832, 1109)), ((800, 600), (800, 600)), ((5000, 700), (2286, 320)), ((1920, 1080), (1365, 768))],
)
def test_without_upscaling_the_longer_side_follows_the_aspect(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert fit(size, 1024, 256, 2048, 64, upscale=False).resized == resized


@pytest.mark.parametrize(
    ("size", "bucket", "bars", "mirrored"),
    [
        ((1920, 1080), (1344, 768), (0, 6), (0, 6)),  # 1344 wide is 756 high
        ((3000, 4000), (896, 1152), (16, 0), (16, 0)),  # 1152 high is 864 wide
        ((200, 300), (64, 64), (10, 0), (11, 0)),  # 42.67 wide: 10.67 on each side, rounded towards the left
        ((512, 512), (512, 512), (0, 0), (0, 0)),
    ],
)
def test_the_crop_that_sdxl_is_told(
    size: tuple[int, int], bucket: tuple[int, int], bars: tuple[int, int], mirrored: tuple[int, int]
) -> None:
    assert letterbox(size, bucket) == bars
    assert letterbox(size, bucket, flip=True) == mirrored


def test_the_cut_can_be_anywhere_in_what_is_too_much() -> None:
    found = fit((1920, 1080), 1024, 256, 2048, 64, upscale=True)
    assert found.room == (21, 0) and found.crop == (10, 0)
    assert found.at(21, 0) == Fit(found.bucket, found.resized, (21, 0))


def test_a_picture_of_a_buckets_own_size_is_only_cut_to_itself() -> None:
    assert fit((576, 448), 512, 256, 1024, 64, upscale=True) == Fit((576, 448), (576, 448), (0, 0))


def test_the_step_is_a_setting() -> None:
    tall = [(32, 160), (32, 192), (64, 128)]
    assert resolutions(96, 32, 192, 32) == [*tall, (96, 96), *sorted((w, h) for h, w in tall)]
    assert fit((130, 100), 96, 32, 192, 32, upscale=False).bucket == (96, 64)
    assert fit((100, 100), 96, 32, 192, 32, upscale=False) == Fit((96, 96), (96, 96), (0, 0))


def test_a_strip_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"strip\.png: 63x500 .*steps of 64"):
        fit((63, 500), 1024, 256, 2048, 64, upscale=False, name="strip.png")
    with pytest.raises(InputError, match="no pixels"):
        fit((0, 10), 512, 256, 1024, 64, upscale=True)


def test_settings_that_allow_no_bucket() -> None:
    with pytest.raises(SettingsError, match="bucket_step 64"):
        resolutions(32, 256, 1024, 64)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(1, 9000), st.integers(1, 9000), st.sampled_from([(512, 64), (1024, 64), (96, 32)]), st.booleans())
def test_every_picture_fits_or_is_refused(width: int, height: int, base: tuple[int, int], upscale: bool) -> None:
    side, step = base
    try:
        found = fit((width, height), side, side // 4 // step * step + step, side * 2, step, upscale=upscale)
    except InputError:
        return
    assert found.bucket[0] % step == 0 and found.bucket[1] % step == 0
    assert all(0 < b <= r for b, r in zip(found.bucket, found.resized, strict=True))
    assert all(c + b <= r for c, b, r in zip(found.crop, found.bucket, found.resized, strict=True))
    # the area may exceed the square only by what one rounding to the step can add
    assert upscale or found.bucket[0] * found.bucket[1] <= side * side + step * max(found.bucket)
