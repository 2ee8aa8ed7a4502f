"""What comes in must come out as it looks: upright, in sRGB, whole; and what cannot be read says why."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from lorafactory import images


def drawn(width: int = 40, height: int = 24, seed: int = 0) -> Image.Image:
    """A smooth picture without any symmetry, so that JPEG keeps it and a turn would show."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def difference(a: Image.Image, b: Image.Image) -> float:
    assert a.size == b.size
    return float(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).mean())


def far(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max())


# ---------------------------------------------------------------- finding


def test_find_sorts_naturally_and_leaves_out_what_is_hidden(tmp_path: Path):
    for name in ("b10.PNG", "b9.png", "ä 1.JPG", ".hidden.png", "._b9.png", "b9.txt", "notes.md", "c.jfif"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in images.find(tmp_path)] == ["b9.png", "b10.PNG", "c.jfif", "ä 1.JPG"]
    assert images.find(tmp_path / "missing") == []


def test_find_sources_looks_into_subfolders(tmp_path: Path):
    for name in ("2/a.png", "10/a.png", "__MACOSX/a.png", ".git/a.png", "raw.NEF", "2/a.txt", "2/a.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [p.relative_to(tmp_path).as_posix() for p in images.find_sources(tmp_path)]
    assert found == ["2/a.png", "10/a.png", "raw.NEF"]


# ---------------------------------------------------------------- upright


def test_a_broken_exif_block_says_nothing_about_the_picture(tmp_path: Path):
    drawn().save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08garbage")
    assert images.load(tmp_path / "a.png").size == (40, 24)


# ---------------------------------------------------------------- colour


def profile(kind: bytes, colours: bytes, between: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Put an ICC profile together: header, table of tags, tags."""
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79), b"wtpt": xyz(*D50), **tags}
    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        table += name + struct.pack(">II", offset + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    body = struct.pack(">I", len(tags)) + table + data
    head = struct.pack(">I4sI", 128 + len(body), b"lcms", 0x02400000) + kind + colours + between + bytes(12) + b"acsp"
    return head.ljust(68, b"\0") + xyz(*D50)[8:] + bytes(48) + body


D50 = (0.9642, 1.0, 0.8249)


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(fixed(v) for v in values)


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def rgb_profile(gamma: float) -> bytes:
    """sRGB's primaries with a plain gamma: as wide as sRGB, other tones."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    primaries = {b"r": (0.4361, 0.2225, 0.0139), b"g": (0.3851, 0.7169, 0.0971), b"b": (0.1431, 0.0606, 0.7141)}
    tags = {name + b"XYZ": xyz(*values) for name, values in primaries.items()}
    return profile(b"mntr", b"RGB ", b"XYZ ", tags | {name + b"TRC": curve for name in primaries})


def cmyk_profile(inks: tuple[int, int, int]) -> bytes:
    """A press whose first ink is not cyan but `inks` (L, a, b in 0..255); the others only darken."""
    corners = [(inks if c and not (m or y or k) else (255 - 60 * (m + y + 2 * k), 128, 128)) for c, m, y, k in
               np.ndindex(2, 2, 2, 2)]  # fmt: skip
    identity = b"".join(fixed(float(i in (0, 4, 8))) for i in range(9))
    ramp = bytes(range(256))
    table = b"".join(bytes(corner) for corner in corners)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + table + ramp * 3
    return profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def test_a_profile_is_applied_and_srgb_is_left_exact(tmp_path: Path):
    picture = drawn()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(tmp_path / "srgb.png", icc_profile=srgb)
    picture.save(tmp_path / "dark.png", icc_profile=rgb_profile(3.0))
    assert images.pixel_hash(images.load(tmp_path / "srgb.png")) == images.pixel_hash(picture)
    values = np.asarray(picture) / 255
    linear = values**3.0
    expected = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(np.asarray(images.load(tmp_path / "dark.png"), dtype=float) - expected).mean() < 1.5


def test_a_profile_works_with_transparency_and_gray(tmp_path: Path):
    picture = drawn().convert("RGBA")
    picture.save(tmp_path / "a.png", icc_profile=rgb_profile(3.0))
    drawn().save(tmp_path / "b.png", icc_profile=rgb_profile(3.0))
    assert far(images.load(tmp_path / "a.png"), images.load(tmp_path / "b.png")) == 0
    drawn().convert("L").save(tmp_path / "gray.png", icc_profile=rgb_profile(3.0))  # for another colour space
    assert far(images.load(tmp_path / "gray.png"), drawn().convert("L").convert("RGB")) == 0
    drawn().save(tmp_path / "bad.png", icc_profile=b"no profile at all")
    assert far(images.load(tmp_path / "bad.png"), drawn()) == 0


def test_cmyk_goes_through_its_profile(tmp_path: Path):
    press = cmyk_profile((136, 208, 195))  # sRGB's red, where cyan would be
    for name, ink in (("first", (255, 0, 0, 0)), ("none", (0, 0, 0, 0))):
        Image.new("CMYK", (8, 8), ink).save(tmp_path / f"{name}.tiff", icc_profile=press)
    red = images.load(tmp_path / "first.tiff")
    assert difference(red, Image.new("RGB", (8, 8), "red")) < 8
    assert difference(images.load(tmp_path / "none.tiff"), Image.new("RGB", (8, 8), "white")) < 2
    drawn().convert("CMYK").save(tmp_path / "broken.jpg", icc_profile=b"no profile at all", quality=98)
    assert difference(images.load(tmp_path / "broken.jpg"), drawn()) < 4


def test_palette_one_bit_gray_and_lab(tmp_path: Path):
    palette = drawn().quantize(16)
    palette.save(tmp_path / "p.png")
    assert far(images.load(tmp_path / "p.png"), palette.convert("RGB")) == 0
    one = drawn().convert("1")
    one.save(tmp_path / "one.png")
    assert far(images.load(tmp_path / "one.png"), one.convert("RGB")) == 0
    gray = drawn().convert("L")
    gray.save(tmp_path / "l.png")
    assert far(images.load(tmp_path / "l.png"), gray.convert("RGB")) == 0
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab.apply(drawn()).save(tmp_path / "lab.tiff")
    assert difference(images.load(tmp_path / "lab.tiff"), drawn()) < 2


def test_transparency_is_composited_on_white(tmp_path: Path):
    hidden = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    hidden.save(tmp_path / "rgba.png")
    Image.new("LA", (4, 4), (0, 0)).save(tmp_path / "la.png")
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0] + [0] * 765)
    palette.save(tmp_path / "p.png", transparency=0)
    palette.save(tmp_path / "p.gif", transparency=0)
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "key.png", transparency=(255, 0, 0))
    for name in ("rgba.png", "la.png", "p.png", "p.gif", "key.png"):
        assert images.load(tmp_path / name).getcolors() == [(16, (255, 255, 255))], name
    Image.new("RGBA", (1, 1), (255, 0, 0, 51)).save(tmp_path / "half.png")
    assert images.load(tmp_path / "half.png").getpixel((0, 0)) == (255, 204, 204)


def test_the_first_frame_is_used(tmp_path: Path):
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue", "lime")]
    for name in ("a.gif", "a.webp", "a.png", "a.tiff"):
        extra = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **extra)
        decoded = images.decode(tmp_path / name)
        assert decoded.frames == 3, name
        assert decoded.image.getpixel((0, 0)) == (255, 0, 0), name
    drawn().save(tmp_path / "b.mpo", save_all=True, append_images=[drawn(seed=1)], quality=95)
    assert difference(images.load(tmp_path / "b.mpo"), drawn()) < 4
    assert images.decode(tmp_path / "b.mpo").frames == 2


def test_heif_and_avif(tmp_path: Path):
    from pillow_heif import from_pillow

    picture = Image.new("RGB", (64, 48), (200, 40, 40))
    from_pillow(picture).save(tmp_path / "a.HEIC", quality=90)
    picture.save(tmp_path / "a.avif", quality=90)
    for name in ("a.HEIC", "a.avif"):
        assert images.size(tmp_path / name) == (64, 48)
        assert difference(images.load(tmp_path / name), picture) < 6, name


def test_heif_is_imported_only_when_one_is_met():
    code = "import sys, lorafactory.images; sys.exit('pillow_heif' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


def test_one_pixel_loads(tmp_path: Path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "a.png")
    assert images.load(tmp_path / "a.png").size == (1, 1)


# ---------------------------------------------------------------- identity and out


def test_hashes(tmp_path: Path):
    path = tmp_path / "a.png"
    drawn().save(path)
    first = images.sha256(path)
    assert first == images.sha256(path)
    images.save_png(drawn(seed=1), path)
    assert images.sha256(path) != first
    assert images.pixel_hash(drawn()) != images.pixel_hash(drawn(seed=1))
    assert images.pixel_hash(Image.new("RGB", (2, 8))) != images.pixel_hash(Image.new("RGB", (8, 2)))


def test_save_png_keeps_pixels_and_nothing_else(tmp_path: Path):
    picture = drawn()
    picture.info = {"icc_profile": b"x", "dpi": (300, 300), "comment": "home address"}
    images.save_png(picture, tmp_path / "a.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png"]
    assert far(images.load(tmp_path / "a.png"), picture) == 0
    data = (tmp_path / "a.png").read_bytes()
    assert not any(chunk in data for chunk in (b"iCCP", b"pHYs", b"tEXt", b"eXIf"))
    assert images.png(picture) == data


def test_thumbnail(tmp_path: Path):
    drawn(400, 200).save(tmp_path / "a.png")
    url = images.thumbnail_data_url(tmp_path / "a.png", 64)
    import base64

    with Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/webp;base64,")))) as image:
        assert image.size == (64, 32)
