"""A PNG's size is read from its head; it is decoded only where words behind the pixels may turn it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from lorafactory import images
from lorafactory.png import told_after_pixels

TURNED = Image.Exif()
TURNED[0x0112] = 6


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def split(data: bytes) -> tuple[bytes, bytes]:
    """What comes before IEND, and it."""
    return data[:-12], data[-12:]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    Image.effect_noise((64, 48), 90).convert("RGB").save(tmp_path / "plain.png")
    return tmp_path / "plain.png"


def test_a_size_is_told_without_a_pixel(plain: Path) -> None:
    data = plain.read_bytes()
    broken = plain.with_name("broken.png")
    broken.write_bytes(data.replace(b"IDAT", b"IDAT", 1)[: data.index(b"IDAT") + 40])
    assert images.size(plain) == images.size(broken) == (64, 48)
    assert not told_after_pixels(plain) and not told_after_pixels(broken)
    with pytest.raises(images.Unreadable):
        images.load(broken)


def test_it_is_turned_wherever_that_stands(plain: Path, tmp_path: Path) -> None:
    before = tmp_path / "before.png"
    Image.open(plain).save(before, exif=TURNED)
    data, end = split(plain.read_bytes())
    behind = tmp_path / "behind.png"
    behind.write_bytes(data + chunk(b"eXIf", TURNED.tobytes().removeprefix(b"Exif\x00\x00")) + end)
    assert (told_after_pixels(before), told_after_pixels(behind)) == (False, True)
    assert (
        images.size(before) == images.size(behind) == images.load(behind).size == images.load(before).size == (48, 64)
    )


@pytest.mark.parametrize("data", [b"", b"no PNG at all, and longer than a head", b"\x89PNG\r\n\x1a\n" + b"\xff" * 40])
def test_what_is_no_png_says_nothing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert not told_after_pixels(path)
