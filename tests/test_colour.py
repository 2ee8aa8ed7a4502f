"""Every format, orientation, depth and colour model, against pixels that numpy worked out from the same numbers."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from lorafactory import colour, images

Pixels = NDArray[np.uint8]
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""How a camera stores an upright picture under each orientation (EXIF 2.32, tag 274)."""


def drawn(width: int = 40, height: int = 24) -> Pixels:
    """A smooth picture without any symmetry, so that JPEG keeps it and a turn would show."""
    y, x = np.mgrid[0:height, 0:width]
    red, green, blue = 255 * x / width, 255 * y / height, 120 + 110 * np.sin(x / 9 + y / 5)
    return np.stack([red, green, blue], -1).round().astype(np.uint8)


def png(path: Path, values: NDArray[np.integer], kind: int, extra: bytes = b"") -> None:
    """A PNG put together by hand: `kind` is its colour type, the depth that of the values."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, values.dtype.itemsize * 8, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def twelve_bits(path: Path, values: NDArray[np.uint16]) -> None:
    """A grey TIFF with two pixels in three bytes, as scanners and microscopes write it."""
    first, second = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    data = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    where = 8 + len(data)
    path.write_bytes(b"II*\0" + struct.pack("<I", where) + data + struct.pack("<H", len(tags)) + table + bytes(4))


# ---------------------------------------------------------------- formats and orientations


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def pillow(name: str, **options: object) -> Callable[[Pixels, int, Path], None]:
    def write(stored: Pixels, orientation: int, path: Path) -> None:
        Image.fromarray(stored).save(path, name, exif=exif(orientation), **options)

    return write


def tiff(stored: Pixels, orientation: int, path: Path) -> None:
    tifffile.imwrite(path, stored, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])


def heic(stored: Pixels, orientation: int, path: Path) -> None:
    """As telephones do: the turn is a property of the coded image, and the EXIF says it once more."""
    from pillow_heif import register_heif_opener

    register_heif_opener()
    Image.fromarray(stored).save(path, "HEIF", quality=95, chroma=444, exif=exif(orientation).tobytes())


def mpo(stored: Pixels, orientation: int, path: Path) -> None:
    second = Image.new("RGB", (stored.shape[1], stored.shape[0]), "lime")
    picture = Image.fromarray(stored)
    picture.save(path, "MPO", save_all=True, append_images=[second], quality=97, exif=exif(orientation))


FORMATS: dict[str, tuple[Callable[[Pixels, int, Path], None], float]] = {
    "jpg": (pillow("JPEG", quality=98, subsampling=0), 2.5),
    "png": (pillow("PNG"), 0),
    "webp": (pillow("WEBP", lossless=True), 0),
    "tiff": (tiff, 0),
    "avif": (pillow("AVIF", quality=98, subsampling="4:4:4"), 2.5),
    "heic": (heic, 2.5),
    "mpo": (mpo, 2.5),
}
"""How to write it, and by how much a level may be off on average."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_in_every_orientation(tmp_path: Path, suffix: str, orientation: int):
    write, tolerance = FORMATS[suffix]
    path = tmp_path / f"a.{suffix}"
    write(np.ascontiguousarray(STORED[orientation](drawn())), orientation, path)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    decoded = images.decode(path)
    assert decoded.image.size == images.size(path) == (40, 24)
    assert np.abs(np.asarray(decoded.image, dtype=int) - drawn()).mean() <= tolerance
    assert decoded.mask is None
    assert not decoded.image.info
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_formats_that_know_no_orientation(tmp_path: Path):
    indices = np.arange(40 * 24, dtype=np.uint8).reshape(24, 40)
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    paletted = Image.fromarray(indices)
    paletted.putpalette(palette.tobytes())
    Image.fromarray(drawn()).save(tmp_path / "a.bmp")
    Image.fromarray(drawn()).save(tmp_path / "b.dib", "BMP")
    paletted.save(tmp_path / "c.gif")
    paletted.save(tmp_path / "d.png")
    paletted.save(tmp_path / "e.tiff")
    wanted = {"a.bmp": drawn(), "b.dib": drawn()} | dict.fromkeys(("c.gif", "d.png", "e.tiff"), palette[indices])
    for name, pixels in wanted.items():
        assert np.array_equal(np.asarray(images.load(tmp_path / name)), pixels), name


# ---------------------------------------------------------------- depths

RAMP = np.linspace(0, 65535, 40 * 24).reshape(24, 40)
DEEP: dict[str, Callable[[Path], None]] = {
    "gray16.png": lambda p: png(p, RAMP.astype(np.uint16), 0),
    "gray16.tif": lambda p: tifffile.imwrite(p, RAMP.astype(np.uint16), photometric="minisblack"),
    "big-endian.tif": lambda p: tifffile.imwrite(p, RAMP.astype(np.uint16), photometric="minisblack", byteorder=">"),
    "white-is-0.tif": lambda p: tifffile.imwrite(p, (65535 - RAMP).astype(np.uint16), photometric="miniswhite"),
    "gray12.tif": lambda p: twelve_bits(p, (RAMP / 16).astype(np.uint16)),
    "signed16.tif": lambda p: tifffile.imwrite(p, (RAMP - 32768).astype(np.int16), photometric="minisblack"),
    "32-of-16.tif": lambda p: tifffile.imwrite(p, RAMP.astype(np.int32), photometric="minisblack"),
    "gray32.tif": lambda p: tifffile.imwrite(p, (RAMP * 65537).astype(np.uint32), photometric="minisblack"),
    "float.tif": lambda p: tifffile.imwrite(p, (RAMP / 65535).astype(np.float32), photometric="minisblack"),
    "float255.tif": lambda p: tifffile.imwrite(p, (RAMP / 257).astype(np.float32), photometric="minisblack"),
    "rgb16.png": lambda p: png(p, np.repeat(RAMP.astype(np.uint16)[..., None], 3, -1), 2),
    "rgb16.tif": lambda p: tifffile.imwrite(p, np.repeat(RAMP.astype(np.uint16)[..., None], 3, -1), photometric="rgb"),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_pictures_are_scaled_not_clipped(tmp_path: Path, name: str):
    DEEP[name](tmp_path / name)
    off = np.asarray(images.load(tmp_path / name), dtype=float) - (RAMP / 257)[..., None]
    assert np.abs(off).max() <= 1


def test_deep_colours_in_separate_planes_are_refused(tmp_path: Path):
    planes = np.moveaxis(drawn(), -1, 0)
    tifffile.imwrite(tmp_path / "8.tif", planes, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "16.tif", planes.astype(np.uint16), photometric="rgb", planarconfig="separate")
    assert np.array_equal(np.asarray(images.load(tmp_path / "8.tif")), drawn())
    with pytest.raises(images.Unreadable, match="separate planes is not read: save it as PNG"):
        images.load(tmp_path / "16.tif")


def test_a_kind_of_tiff_that_is_not_read_says_so(tmp_path: Path):
    tifffile.imwrite(tmp_path / "a.tif", drawn().astype(np.float32), photometric="rgb")
    with pytest.raises(images.Unreadable, match="a kind of TIFF that is not read: save it as PNG"):
        images.load(tmp_path / "a.tif")


# ---------------------------------------------------------------- inks


def test_cmyk_without_a_profile(tmp_path: Path):
    inks = np.random.default_rng(1).integers(0, 256, (24, 40, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    tifffile.imwrite(tmp_path / "16.tif", inks.astype(np.uint16) * 257, photometric="separated")
    paper = 255 - inks.astype(float)
    expected = paper[..., :3] * paper[..., 3:] / 255
    for name in ("a.tif", "16.tif"):
        assert np.abs(np.asarray(images.load(tmp_path / name)) - expected).max() <= 1.5, name


# ---------------------------------------------------------------- transparency


def fading(levels: NDArray[np.integer], opacity: Pixels, background: tuple[int, int, int]) -> NDArray[np.float64]:
    share = opacity[..., None] / 255
    return np.asarray(levels * share + np.array(background) * (1 - share))


OPACITY = np.linspace(0, 255, 40 * 24).reshape(24, 40).round().astype(np.uint8)
GRAY = drawn()[..., 2]


def premultiplied(path: Path) -> None:
    gray = (GRAY.astype(int) * OPACITY + 127) // 255
    values = np.dstack([gray, OPACITY]).astype(np.uint8)
    tifffile.imwrite(path, values, photometric="minisblack", extrasamples=["assocalpha"])


CLEAR: dict[str, tuple[Callable[[Path], None], Pixels, float]] = {
    "rgba.png": (lambda p: png(p, np.dstack([drawn(), OPACITY]), 6), drawn(), 1),
    "rgba16.png": (lambda p: png(p, np.dstack([drawn(), OPACITY]).astype(np.uint16) * 257, 6), drawn(), 1),
    "la.png": (lambda p: png(p, np.dstack([GRAY, OPACITY]), 4), np.repeat(GRAY[..., None], 3, -1), 1),
    "rgba.webp": (
        lambda p: Image.fromarray(np.dstack([drawn(), OPACITY])).save(p, lossless=True, exact=True), drawn(), 1,
    ),
    "rgba.tif": (
        lambda p: tifffile.imwrite(p, np.dstack([drawn(), OPACITY]), photometric="rgb", extrasamples=["unassalpha"]),
        drawn(), 1,
    ),
    "premultiplied.tif": (premultiplied, np.repeat(GRAY[..., None], 3, -1), 3),
}  # fmt: skip


@pytest.mark.parametrize("background", ["white", "#336699"])
@pytest.mark.parametrize("name", CLEAR)
def test_transparency_shows_the_background_and_is_kept(tmp_path: Path, name: str, background: str):
    write, levels, tolerance = CLEAR[name]
    write(tmp_path / name)
    decoded = images.decode(tmp_path / name, background)
    ground = (255, 255, 255) if background == "white" else (0x33, 0x66, 0x99)
    assert decoded.mask is not None
    assert np.array_equal(np.asarray(decoded.mask), OPACITY)
    off = np.abs(np.asarray(decoded.image) - fading(levels, OPACITY, ground))
    assert off[OPACITY > 40].max() <= tolerance  # below, premultiplied levels are coarse
    assert off.mean() <= 1.5


def test_a_transparent_level_or_colour(tmp_path: Path):
    ramp = RAMP.astype(np.uint16)
    png(tmp_path / "16.png", ramp, 0, chunk(b"tRNS", struct.pack(">H", int(ramp[3, 3]))))
    png(tmp_path / "8.png", drawn(), 2, chunk(b"tRNS", struct.pack(">HHH", *map(int, drawn()[3, 3]))))
    for name, levels in (("16.png", (ramp / 257)[..., None]), ("8.png", drawn())):
        decoded = images.decode(tmp_path / name, "black")
        clear = np.zeros((24, 40), bool)
        clear[3, 3] = True
        assert np.array_equal(np.asarray(decoded.mask) == 0, clear), name
        off = np.abs(np.asarray(decoded.image, dtype=float) - np.where(clear[..., None], 0, levels))
        assert off.max() <= 1, name


def test_the_mask_is_upright_too(tmp_path: Path):
    stored = np.ascontiguousarray(np.dstack([STORED[6](drawn()), STORED[6](OPACITY)]))
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif(6))
    assert np.array_equal(np.asarray(images.decode(tmp_path / "a.png").mask), OPACITY)


def test_an_alpha_channel_that_is_opaque_everywhere_is_no_mask(tmp_path: Path):
    png(tmp_path / "a.png", np.dstack([drawn(), np.full_like(OPACITY, 255)]), 6)
    decoded = images.decode(tmp_path / "a.png")
    assert decoded.mask is None
    assert np.array_equal(np.asarray(decoded.image), drawn())


def test_what_is_a_colour():
    assert all(map(colour.is_colour, ("white", "Gray", "#fff", "#336699", "rgb(1,2,3)")))
    assert not any(map(colour.is_colour, ("", "wite", "#12345", "#33669980", "0")))
